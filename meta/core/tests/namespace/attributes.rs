//! chmod, chown, utimens, and what they do to setuid and setgid.

use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{
    ops::*,
    volume::{LAYOUT, Volume, Who},
};

const ROOT: u64 = 1;

/// A file of user 10, group 20, and that user (also in group 21), and a stranger.
fn file_of_a_user(mode: u32) -> (Volume, Who, Who, Who, u64) {
    let (mut v, root) = Volume::with_root();
    let owner = v.user(10, 20, &[21]);
    let stranger = v.user(11, 30, &[]);
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let file = v.ask(&owner, touch(ROOT, "f", mode)).unwrap().attr.unwrap();
    assert_eq!((file.uid, file.gid, file.mode), (10, 20, mode));
    (v, root, owner, stranger, file.inode)
}

#[test]
fn only_the_owner_changes_the_mode() {
    let (mut v, root, owner, stranger, file) = file_of_a_user(0o644);
    assert_eq!(v.ask(&stranger, chmod(file, 0o777)), Err(Code::NotPermitted));
    let changed = v.ask(&owner, chmod(file, 0o104_750)).unwrap().attr.unwrap();
    assert_eq!(changed.mode, 0o4750, "the bits of the kind are not the mode's");
    assert_eq!(changed.ctime_ns, v.now_ns);
    assert!(changed.mtime_ns < v.now_ns);
    v.ask(&root, chmod(file, 0o600)).unwrap();
    assert_eq!(v.ask(&root, chmod(99, 0o600)), Err(Code::StaleInode));
}

#[test]
fn setgid_needs_membership() {
    let (mut v, root, owner, _, file) = file_of_a_user(0o644);
    v.ask(&root, chown(file, None, Some(30))).unwrap();
    assert_eq!(v.ask(&owner, chmod(file, 0o2755)).unwrap().attr.unwrap().mode, 0o755);
    assert_eq!(v.ask(&root, chmod(file, 0o2755)).unwrap().attr.unwrap().mode, 0o2755);
    v.ask(&root, chown(file, None, Some(21))).unwrap();
    assert_eq!(v.ask(&owner, chmod(file, 0o2755)).unwrap().attr.unwrap().mode, 0o2755);
}

#[test]
fn files_are_given_away_by_root_only() {
    let (mut v, root, owner, stranger, file) = file_of_a_user(0o6755);
    assert_eq!(v.ask(&owner, chown(file, Some(11), None)), Err(Code::NotPermitted));
    assert_eq!(v.ask(&owner, chown(file, None, Some(30))), Err(Code::NotPermitted));
    assert_eq!(v.ask(&stranger, chown(file, None, Some(30))), Err(Code::NotPermitted));
    assert_eq!(v.attr(file).mode, 0o6755);
    let given = v.ask(&owner, chown(file, Some(10), Some(21))).unwrap().attr.unwrap();
    assert_eq!((given.uid, given.gid, given.mode), (10, 21, 0o755), "privileges fall");
    let given = v.ask(&root, chown(file, Some(11), Some(99))).unwrap().attr.unwrap();
    assert_eq!((given.uid, given.gid), (11, 99));
    // A directory keeps its setgid bit.
    let dir = v.ask(&owner, mkdir(ROOT, "d", 0o755)).unwrap().attr.unwrap().inode;
    v.ask(&owner, chmod(dir, 0o2755)).unwrap();
    assert_eq!(v.ask(&owner, chown(dir, None, Some(21))).unwrap().attr.unwrap().mode, 0o2755);
}

#[test]
fn times_are_chosen_by_owners_and_set_to_now_by_writers() {
    let (mut v, root, owner, stranger, file) = file_of_a_user(0o644);
    let chosen = Op::SetAttr(pb::SetAttrOp {
        atime_ns: Some(-5),
        mtime_ns: Some(1_234_567_890_123_456_789),
        ..set(file)
    });
    let now = Op::SetAttr(pb::SetAttrOp { atime_now: true, mtime_now: true, ..set(file) });
    assert_eq!(v.ask(&stranger, chosen.clone()), Err(Code::NotPermitted));
    assert_eq!(v.ask(&stranger, now.clone()), Err(Code::AccessDenied));
    let set = v.ask(&owner, chosen.clone()).unwrap().attr.unwrap();
    assert_eq!((set.atime_ns, set.mtime_ns), (-5, 1_234_567_890_123_456_789));
    assert_eq!(set.ctime_ns, v.now_ns);
    v.ask(&root, chmod(file, 0o666)).unwrap();
    let set = v.ask(&stranger, now).unwrap().attr.unwrap();
    assert_eq!((set.atime_ns, set.mtime_ns), (v.now_ns, v.now_ns));
    assert_eq!(v.ask(&stranger, chosen), Err(Code::NotPermitted), "writers choose no times");
}

#[test]
fn change_times_never_go_back() {
    let (mut v, root, _, _, file) = file_of_a_user(0o644);
    v.ask(&root, chmod(file, 0o600)).unwrap();
    let before = v.attr(file);
    v.now_ns = 100;
    let after = v.ask(&root, chmod(file, 0o640)).unwrap().attr.unwrap();
    assert_eq!(after.ctime_ns, before.ctime_ns, "a new leader's clock is behind");
    assert!(after.version > before.version);
}

#[test]
fn layouts_are_inherited_and_set_while_empty() {
    let (mut v, root, owner, stranger, file) = file_of_a_user(0o644);
    let small = pb::Layout { table: 2, chunk_size: 64 << 10, stripe: 1, ..Default::default() };
    let layout = |inode, layout| Op::SetLayout(pb::SetLayoutOp { inode, layout });
    let dir = v.ask(&owner, mkdir(ROOT, "d", 0o777)).unwrap().attr.unwrap().inode;
    assert_eq!(v.ask(&stranger, layout(dir, Some(small))), Err(Code::NotPermitted));
    let odd = pb::Layout { chunk_size: 100_000, ..small };
    assert_eq!(v.ask(&owner, layout(dir, Some(odd))), Err(Code::InvalidArgument));
    v.ask(&owner, layout(dir, Some(small))).unwrap();
    let sub = v.ask(&owner, mkdir(dir, "sub", 0o755)).unwrap().attr.unwrap();
    assert_eq!(sub.layout, Some(small));
    let inner = v.ask(&owner, create(sub.inode, "f", 0o644)).unwrap().attr.unwrap();
    let other = v.ask(&owner, touch(sub.inode, "g", 0o644)).unwrap().attr.unwrap();
    let [one, two] = [inner, other].map(|attr| attr.layout.unwrap());
    assert_eq!((one.table, one.chunk_size, one.stripe), (2, 64 << 10, 1));
    assert_ne!(one.seed, two.seed, "files of one directory use different chains");
    assert_eq!(v.ask(&owner, layout(inner.inode, Some(small))), Err(Code::InvalidArgument));
    v.ask(&owner, layout(file, Some(small))).unwrap();
    assert_eq!(v.attr(file).layout.unwrap().table, 2);
    // As it was when the directory was told; its files use what the cluster's table is now.
    let early = pb::Layout { table: LAYOUT.table, table_version: 1, ..small };
    v.ask(&owner, layout(dir, Some(early))).unwrap();
    let late = v.ask(&owner, touch(dir, "late", 0o644)).unwrap().attr.unwrap().layout.unwrap();
    assert_eq!((late.table_version, late.stripe), (LAYOUT.table_version, 1));
    v.ask(&root, layout(dir, None)).unwrap();
    let plain = v.ask(&owner, touch(dir, "plain", 0o644)).unwrap().attr.unwrap();
    assert_eq!(plain.layout.unwrap().table, 1, "the cluster's");
}
