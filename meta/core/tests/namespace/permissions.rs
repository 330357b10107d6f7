//! Who may change directories: search and write permission, sticky and setgid directories.

use ff2_proto::pb::{Code, FileKind};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

/// Root, two users of group 50, and a directory of the first in a root that all may write.
fn shared(mode: u32) -> (Volume, Who, Who, Who, u64) {
    let (mut v, root) = Volume::with_root();
    let alice = v.user(10, 100, &[50]);
    let bob = v.user(11, 101, &[50]);
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let dir = v.ask(&alice, mkdir(ROOT, "d", 0o755)).unwrap().attr.unwrap().inode;
    v.ask(&alice, chown(dir, None, Some(50))).unwrap();
    v.ask(&root, chmod(dir, mode)).unwrap();
    (v, root, alice, bob, dir)
}

#[test]
fn changing_a_directory_needs_write_and_search() {
    for (mode, allowed) in [(0o770, true), (0o760, false), (0o750, false), (0o707, false)] {
        let (mut v, root, alice, bob, dir) = shared(mode);
        v.ask(&alice, touch(dir, "old", 0o644)).unwrap();
        v.ask(&alice, mkdir(dir, "sub", 0o777)).unwrap();
        let outside = v.ask(&bob, touch(ROOT, "own", 0o644)).unwrap().attr.unwrap().inode;
        for op in [
            touch(dir, "new", 0o644),
            mkdir(dir, "newdir", 0o755),
            symlink(dir, "newlink", "x"),
            mknod(dir, "fifo", FileKind::Fifo, 0o644),
            link(outside, dir, "linked"),
            unlink(dir, "old"),
            rmdir(dir, "sub"),
            mv(ROOT, "own", dir, "moved"),
            mv(dir, "moved", ROOT, "back"),
        ] {
            let result = v.ask(&bob, op.clone());
            if allowed {
                assert!(result.is_ok(), "{mode:o} {op:?}: {result:?}");
            } else {
                assert!(
                    matches!(result, Err(Code::AccessDenied | Code::NotFound)),
                    "{mode:o} {op:?}: {result:?}"
                );
            }
        }
        v.ask(&root, touch(dir, "by root", 0o644)).unwrap();
    }
}

#[test]
fn in_a_sticky_directory_only_owners_remove() {
    let (mut v, root, alice, bob, dir) = shared(0o1777);
    v.ask(&alice, touch(dir, "a", 0o666)).unwrap();
    v.ask(&bob, touch(dir, "b", 0o666)).unwrap();
    assert_eq!(v.ask(&bob, unlink(dir, "a")), Err(Code::NotPermitted));
    assert_eq!(v.ask(&bob, mv(dir, "a", dir, "c")), Err(Code::NotPermitted));
    assert_eq!(v.ask(&bob, mv(dir, "b", dir, "a")), Err(Code::NotPermitted), "it would replace a");
    assert_eq!(v.ask(&bob, exchange(dir, "b", dir, "a")), Err(Code::NotPermitted));
    v.ask(&bob, mv(dir, "b", dir, "c")).unwrap();
    v.ask(&alice, unlink(dir, "c")).expect("the directory's owner may");
    v.ask(&root, unlink(dir, "a")).expect("root may");
}

#[test]
fn moving_a_directory_needs_write_permission_on_it() {
    let (mut v, _, alice, bob, dir) = shared(0o777);
    let sub = v.ask(&alice, mkdir(ROOT, "sub", 0o755)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&bob, mv(ROOT, "sub", dir, "sub")), Err(Code::AccessDenied));
    v.ask(&bob, mv(ROOT, "sub", ROOT, "other")).expect("its parent stays");
    v.ask(&bob, touch(dir, "file", 0o644)).unwrap();
    let in_place = exchange(dir, "file", ROOT, "other");
    assert_eq!(v.ask(&bob, in_place), Err(Code::AccessDenied), "also when it gives way");
    v.ask(&alice, chmod(sub, 0o777)).unwrap();
    v.ask(&bob, mv(ROOT, "other", dir, "sub")).unwrap();
}

#[test]
fn setgid_directories_give_their_group() {
    let (mut v, root, alice, bob, dir) = shared(0o2777);
    let file = v.ask(&bob, touch(dir, "f", 0o644)).unwrap().attr.unwrap();
    assert_eq!((file.uid, file.gid, file.mode), (11, 50, 0o644));
    let sub = v.ask(&bob, mkdir(dir, "sub", 0o755)).unwrap().attr.unwrap();
    assert_eq!((sub.gid, sub.mode), (50, 0o2755));
    // Nobody makes a program of a group that he is not in.
    let carol = v.user(12, 102, &[]);
    let program = v.ask(&carol, touch(dir, "p", 0o2755)).unwrap().attr.unwrap();
    assert_eq!((program.gid, program.mode), (50, 0o755));
    let member = v.ask(&alice, touch(dir, "q", 0o2755)).unwrap().attr.unwrap();
    assert_eq!(member.mode, 0o2755);
    v.ask(&root, chmod(dir, 0o777)).unwrap();
    assert_eq!(v.ask(&bob, touch(dir, "own", 0o644)).unwrap().attr.unwrap().gid, 101);
}

#[test]
fn access_answers_for_the_caller() {
    let (mut v, root, alice, bob, dir) = shared(0o750);
    let file = v.ask(&alice, touch(dir, "f", 0o640)).unwrap().attr.unwrap().inode;
    v.ask(&alice, chown(file, None, Some(50))).unwrap();
    for (who, mask, allowed) in
        [(&alice, 6, true), (&bob, 4, true), (&bob, 6, false), (&root, 6, true), (&root, 1, false)]
    {
        let expected = if allowed { Ok(()) } else { Err(Code::AccessDenied) };
        assert_eq!(v.ask(who, access(file, mask)).map(|_| ()), expected, "{who:?} {mask}");
    }
    v.ask(&bob, access(file, 0)).unwrap();
    assert_eq!(v.ask(&bob, access(file, 8)), Err(Code::InvalidArgument));
}
