//! Names: making, finding, removing, listing.

use bytes::Bytes;
use ff2_proto::pb::{self, Code, FileKind, ns_request::Op};

use crate::{ops::*, volume::Volume};

const ROOT: u64 = 1;

fn id(reply: Result<pb::NsReply, Code>) -> u64 {
    reply.expect("an inode").attr.expect("an attr").inode
}

/// Nobody was told of the inode that a name means since another command came first.
#[test]
fn what_was_not_told_is_not_touched() {
    let (mut v, root) = Volume::with_root();
    let old = id(v.ask(&root, touch(ROOT, "f", 0o644)));
    let new = id(v.ask(&root, touch(ROOT, "g", 0o644)));
    v.ask(&root, Op::Rename(rename(ROOT, "g", ROOT, "f"))).unwrap();
    let (session, cred) = (root.session, Some(pb::Credentials::default()));
    let request = |seq, op| pb::NsRequest {
        volume: 1,
        session,
        seq,
        ack_below: 0,
        cred: cred.clone(),
        at_ns: 0,
        op: Some(op),
    };
    let late = v.log_told(request(1_000, unlink(ROOT, "f")), None, 0, vec![ROOT, old]);
    assert_eq!(late, Err(Code::Busy));
    assert_eq!(id(v.ask(&root, lookup(ROOT, "f"))), new);
    v.log_told(request(1_000, unlink(ROOT, "f")), None, 0, vec![ROOT, new]).unwrap();
    // The name is free by now: whoever caches that it is not was told nothing.
    let open = Op::Create(pb::CreateOp { write: true, ..open_or_create(ROOT, "f", 0o644) });
    assert_eq!(v.log_told(request(1_001, open), None, 0, vec![]), Err(Code::Busy));
}

#[test]
fn a_tree_is_made_found_and_removed() {
    let (mut v, root) = Volume::with_root();
    assert_eq!(v.ask(&root, lookup(ROOT, "d")), Err(Code::NotFound));
    let made = v.ask(&root, mkdir(ROOT, "d", 0o7755)).unwrap();
    let d = made.attr.unwrap();
    assert_eq!((d.kind(), d.mode, d.nlink), (FileKind::Directory, 0o1755, 2), "mkdir: no setgid");
    assert_eq!(made.parent_attr.unwrap().nlink, 3);
    assert_eq!(v.attr(ROOT).mtime_ns, v.now_ns);
    let file = id(v.ask(&root, touch(d.inode, "f", 0o644)));
    assert_eq!(id(v.ask(&root, lookup(d.inode, "f"))), file);
    assert_eq!(v.ask(&root, mkdir(d.inode, "f", 0o755)), Err(Code::Exists));
    assert_eq!(v.ask(&root, rmdir(ROOT, "d")), Err(Code::NotEmpty));
    assert_eq!(v.ask(&root, unlink(ROOT, "d")), Err(Code::IsDirectory));
    assert_eq!(v.ask(&root, rmdir(d.inode, "f")), Err(Code::NotDirectory));
    let gone = v.ask(&root, unlink(d.inode, "f")).unwrap();
    assert_eq!(gone.replaced_attr.unwrap().nlink, 0);
    v.ask(&root, rmdir(ROOT, "d")).unwrap();
    assert_eq!(v.attr(ROOT).nlink, 2);
    assert_eq!(v.ask(&root, unlink(ROOT, "d")), Err(Code::NotFound));
    // Both stay readable by number until they are collected, in the order of their removal.
    assert_eq!(v.attr(file).nlink, 0);
    assert_eq!(v.orphans().iter().map(|o| o.inode).collect::<Vec<_>>(), [file, d.inode]);
    assert!(v.orphans().iter().all(|o| o.layout.is_none()), "neither can have chunks");
    v.lead(collect(&[file, d.inode])).unwrap();
    assert_eq!(v.ask(&root, Op::GetAttr(pb::GetAttrOp { inode: file })), Err(Code::StaleInode));
    assert!(v.orphans().is_empty());
}

#[test]
fn directories_that_are_gone_take_no_names() {
    let (mut v, root) = Volume::with_root();
    let d = id(v.ask(&root, mkdir(ROOT, "d", 0o755)));
    let f = id(v.ask(&root, touch(ROOT, "f", 0o755)));
    v.ask(&root, rmdir(ROOT, "d")).unwrap();
    for op in [touch(d, "x", 0o644), mkdir(d, "x", 0o755), link(f, d, "x"), mv(ROOT, "f", d, "x")] {
        assert_eq!(v.ask(&root, op), Err(Code::NotFound), "removed");
    }
    let empty = v.ask(&root, read_dir(d, 0, 9)).unwrap();
    assert!(empty.end && empty.entries.is_empty());
    v.lead(collect(&[d])).unwrap();
    for op in [touch(d, "x", 0o644), mkdir(d, "x", 0o755), link(f, d, "x"), mv(ROOT, "f", d, "x")] {
        assert_eq!(v.ask(&root, op), Err(Code::StaleInode), "collected");
    }
    for op in [touch(f, "x", 0o644), mkdir(f, "x", 0o755), lookup(f, "x"), read_dir(f, 0, 0)] {
        assert_eq!(v.ask(&root, op), Err(Code::NotDirectory), "never was one");
    }
}

#[test]
fn names_are_checked() {
    let (mut v, root) = Volume::with_root();
    let long = "n".repeat(256);
    for (name, code) in [
        ("", Code::InvalidArgument),
        (".", Code::InvalidArgument),
        ("..", Code::InvalidArgument),
        ("a/b", Code::InvalidArgument),
        ("a\0", Code::InvalidArgument),
        (long.as_str(), Code::NameTooLong),
    ] {
        for op in [
            lookup(ROOT, name),
            touch(ROOT, name, 0o644),
            mkdir(ROOT, name, 0o755),
            unlink(ROOT, name),
            mv(ROOT, name, ROOT, "x"),
            mv(ROOT, "x", ROOT, name),
            link(2, ROOT, name),
        ] {
            let expected = if matches!(op, Op::Link(_)) { Code::StaleInode } else { code };
            let result = v.ask(&root, op.clone());
            assert_eq!(result, Err(expected), "{op:?}");
        }
    }
    v.ask(&root, touch(ROOT, &long[..255], 0o644)).unwrap();
}

#[test]
fn nodes_of_all_kinds() {
    let (mut v, root) = Volume::with_root();
    let user = v.user(7, 7, &[]);
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    for kind in [FileKind::Fifo, FileKind::Socket, FileKind::Regular] {
        let made = v.ask(&user, mknod(ROOT, kind.as_str_name(), kind, 0o6751)).unwrap();
        let attr = made.attr.unwrap();
        assert_eq!((attr.kind(), attr.mode, attr.uid, attr.nlink), (kind, 0o6751, 7, 1));
        assert_eq!(attr.layout.is_some(), kind == FileKind::Regular);
    }
    let device = pb::MakeNodeOp {
        parent: ROOT,
        name: Bytes::from("null"),
        kind: FileKind::CharDevice.into(),
        mode: 0o666,
        rdev: 259,
        ..Default::default()
    };
    assert_eq!(v.ask(&user, Op::MakeNode(device.clone())), Err(Code::NotPermitted));
    assert_eq!(v.ask(&root, Op::MakeNode(device)).unwrap().attr.unwrap().rdev, 259);
    let unknown = mknod(ROOT, "u", FileKind::KindUnknown, 0);
    assert_eq!(v.ask(&root, unknown), Err(Code::InvalidArgument));

    let l = v.ask(&user, symlink(ROOT, "l", "some/where")).unwrap().attr.unwrap();
    assert_eq!((l.mode, l.size), (0o777, 10));
    let read = v.ask(&user, Op::ReadLink(pb::ReadLinkOp { inode: l.inode })).unwrap();
    assert_eq!(read.target, "some/where");
    assert_eq!(
        v.ask(&user, Op::ReadLink(pb::ReadLinkOp { inode: ROOT })),
        Err(Code::InvalidArgument)
    );
    assert_eq!(v.ask(&user, symlink(ROOT, "e", "")), Err(Code::NotFound));
    assert_eq!(v.ask(&user, symlink(ROOT, "e", &"x".repeat(4096))), Err(Code::NameTooLong));
}

#[test]
fn pages_of_a_directory_are_stable_under_change() {
    let (mut v, root) = Volume::with_root();
    for number in 0..20 {
        v.ask(&root, touch(ROOT, &format!("{number:02}"), 0o644)).unwrap();
    }
    let mut seen = vec![];
    let mut after = 0;
    loop {
        let page = v.ask(&root, read_dir(ROOT, after, 6)).unwrap();
        assert!(page.entries.len() <= 6);
        for entry in &page.entries {
            assert!(entry.cookie > after && entry.cookie > 2, "1 and 2 are of `.` and `..`");
            assert_eq!(entry.attr.unwrap().nlink, 1);
            after = entry.cookie;
            seen.push(String::from_utf8(entry.name.to_vec()).unwrap());
        }
        if page.end {
            break;
        }
        // Between the pages: what was read goes, what was not read stays, new names come.
        let gone = seen.last().unwrap().clone();
        v.ask(&root, unlink(ROOT, &gone)).unwrap();
        v.ask(&root, touch(ROOT, &gone, 0o644)).unwrap();
    }
    for number in 0..20 {
        let name = format!("{number:02}");
        assert!(seen.contains(&name), "{name} was there all the time");
    }
    let first = v.ask(&root, read_dir(ROOT, 0, 2)).unwrap().entries;
    let second = v.ask(&root, read_dir(ROOT, first[1].cookie, 2)).unwrap().entries;
    assert!(second[0].cookie > first[1].cookie, "a page begins behind the one before");
    let names = v.ask(&root, Op::ReadDir(pb::ReadDirOp { inode: ROOT, ..Default::default() }));
    let names = names.unwrap();
    assert!(names.end);
    assert!(names.entries.iter().all(|entry| entry.attr.unwrap().version == 0), "not asked for");
}
