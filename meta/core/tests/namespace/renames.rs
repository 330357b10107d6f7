//! rename: replacing, exchanging, moving directories.

use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

fn made(v: &mut Volume, who: &Who, op: Op) -> u64 {
    v.ask(who, op).unwrap().attr.unwrap().inode
}

fn find(v: &mut Volume, who: &Who, parent: u64, name: &str) -> Option<u64> {
    v.ask(who, lookup(parent, name)).ok().map(|reply| reply.attr.unwrap().inode)
}

#[test]
fn a_file_replaces_a_file() {
    let (mut v, root) = Volume::with_root();
    let d = made(&mut v, &root, mkdir(ROOT, "d", 0o755));
    let a = made(&mut v, &root, touch(ROOT, "a", 0o644));
    let b = made(&mut v, &root, touch(d, "b", 0o644));
    let cookie = |v: &Volume| v.look(read_dir(d, 0, 0)).unwrap().entries[0].cookie;
    let before = cookie(&v);
    let reply = v.ask(&root, mv(ROOT, "a", d, "b")).unwrap();
    assert_eq!(reply.attr.unwrap().inode, a);
    assert_eq!(reply.replaced_attr.map(|attr| (attr.inode, attr.nlink)), Some((b, 0)));
    assert_eq!(reply.parent_attr.unwrap().inode, d);
    assert_eq!(find(&mut v, &root, ROOT, "a"), None);
    assert_eq!(find(&mut v, &root, d, "b"), Some(a));
    assert_eq!(cookie(&v), before, "a reader of the directory meets the name once");
    assert_eq!(v.orphans()[0].inode, b);
    let now = v.now_ns;
    assert_eq!((v.attr(ROOT).mtime_ns, v.attr(d).mtime_ns, v.attr(a).ctime_ns), (now, now, now));
}

/// Every name that is there all the time is met exactly once, by a reader in pages of one.
#[test]
fn readers_meet_replaced_and_exchanged_names_once() {
    let (mut v, root) = Volume::with_root();
    for name in ["a", "b", "c", "d"] {
        made(&mut v, &root, touch(ROOT, name, 0o644));
    }
    let mut changes = [exchange(ROOT, "a", ROOT, "d"), mv(ROOT, "d", ROOT, "b")].into_iter();
    let (mut after, mut met) = (0, Vec::new());
    loop {
        let page = v.look(read_dir(ROOT, after, 1)).unwrap();
        if let Some(entry) = page.entries.first() {
            after = entry.cookie;
            met.push(String::from_utf8(entry.name.to_vec()).unwrap());
        }
        if page.end {
            break;
        }
        if met.len() >= 2
            && let Some(op) = changes.next()
        {
            v.ask(&root, op).unwrap();
        }
    }
    assert_eq!(met, ["a", "b", "c"], "and d went away in time");
}

#[test]
fn kinds_must_fit() {
    let (mut v, root) = Volume::with_root();
    let d = made(&mut v, &root, mkdir(ROOT, "d", 0o755));
    made(&mut v, &root, mkdir(ROOT, "full", 0o755));
    let full = find(&mut v, &root, ROOT, "full").unwrap();
    made(&mut v, &root, touch(full, "x", 0o644));
    made(&mut v, &root, touch(ROOT, "f", 0o644));
    assert_eq!(v.ask(&root, mv(ROOT, "f", ROOT, "d")), Err(Code::IsDirectory));
    assert_eq!(v.ask(&root, mv(ROOT, "d", ROOT, "f")), Err(Code::NotDirectory));
    assert_eq!(v.ask(&root, mv(ROOT, "d", ROOT, "full")), Err(Code::NotEmpty));
    assert_eq!(v.ask(&root, mv(ROOT, "none", ROOT, "f")), Err(Code::NotFound));
    v.ask(&root, mv(ROOT, "full", ROOT, "d")).unwrap();
    assert_eq!(find(&mut v, &root, ROOT, "d"), Some(full), "an empty directory is replaced");
    assert_eq!((v.attr(ROOT).nlink, v.attr(d).nlink), (3, 0));
}

#[test]
fn directories_move_but_not_into_themselves() {
    let (mut v, root) = Volume::with_root();
    let a = made(&mut v, &root, mkdir(ROOT, "a", 0o755));
    let b = made(&mut v, &root, mkdir(a, "b", 0o755));
    let c = made(&mut v, &root, mkdir(b, "c", 0o755));
    for op in [
        mv(ROOT, "a", a, "x"),
        mv(ROOT, "a", c, "x"),
        mv(a, "b", c, "x"),
        exchange(ROOT, "a", b, "c"),
        exchange(b, "c", ROOT, "a"),
    ] {
        assert_eq!(v.ask(&root, op.clone()), Err(Code::InvalidArgument), "{op:?}");
    }
    assert_eq!(v.ask(&root, mv(b, "c", ROOT, "a")), Err(Code::NotEmpty), "a contains it");
    assert_eq!((v.attr(ROOT).nlink, v.attr(a).nlink), (3, 3));
    v.ask(&root, mv(b, "c", ROOT, "c")).unwrap();
    assert_eq!((v.attr(ROOT).nlink, v.attr(b).nlink), (4, 2));
    v.ask(&root, mv(ROOT, "a", c, "a")).unwrap();
    assert_eq!(v.ask(&root, mv(ROOT, "c", b, "x")), Err(Code::InvalidArgument), "b is in c now");
}

#[test]
fn nothing_moves_into_a_directory_that_is_gone() {
    let (mut v, root) = Volume::with_root();
    let a = made(&mut v, &root, mkdir(ROOT, "a", 0o755));
    let b = made(&mut v, &root, mkdir(a, "b", 0o755));
    made(&mut v, &root, mkdir(ROOT, "d", 0o755));
    v.ask(&root, rmdir(a, "b")).unwrap();
    assert_eq!(v.ask(&root, mv(ROOT, "a", b, "x")), Err(Code::NotFound), "it was in a");
    v.ask(&root, rmdir(ROOT, "a")).unwrap();
    v.lead(collect(&[a])).unwrap();
    assert_eq!(v.ask(&root, mv(ROOT, "d", b, "x")), Err(Code::NotFound), "its parent is gone");
}

#[test]
fn the_same_inode_under_both_names_stays_as_it_is() {
    let (mut v, root) = Volume::with_root();
    let a = made(&mut v, &root, touch(ROOT, "a", 0o644));
    v.ask(&root, link(a, ROOT, "b")).unwrap();
    let before = v.attr(a);
    assert_eq!(v.ask(&root, mv(ROOT, "a", ROOT, "b")).unwrap().attr, Some(before));
    v.ask(&root, mv(ROOT, "a", ROOT, "a")).unwrap();
    v.ask(&root, exchange(ROOT, "a", ROOT, "b")).unwrap();
    assert_eq!(v.attr(a), before);
    assert_eq!(find(&mut v, &root, ROOT, "a"), Some(a));
    let no_replace = Op::Rename(pb::RenameOp { no_replace: true, ..rename(ROOT, "a", ROOT, "a") });
    assert_eq!(v.ask(&root, no_replace), Err(Code::Exists));
}

#[test]
fn no_replace_and_exchange() {
    let (mut v, root) = Volume::with_root();
    let d = made(&mut v, &root, mkdir(ROOT, "d", 0o755));
    let inner = made(&mut v, &root, mkdir(d, "inner", 0o755));
    let f = made(&mut v, &root, touch(ROOT, "f", 0o644));
    let no_replace =
        |to: &str| Op::Rename(pb::RenameOp { no_replace: true, ..rename(ROOT, "f", ROOT, to) });
    assert_eq!(v.ask(&root, no_replace("d")), Err(Code::Exists));
    v.ask(&root, no_replace("g")).unwrap();
    assert_eq!(v.ask(&root, exchange(ROOT, "g", ROOT, "none")), Err(Code::NotFound));
    // A directory and a file change places, across directories.
    v.ask(&root, exchange(ROOT, "g", d, "inner")).unwrap();
    assert_eq!(find(&mut v, &root, ROOT, "g"), Some(inner));
    assert_eq!(find(&mut v, &root, d, "inner"), Some(f));
    assert_eq!((v.attr(ROOT).nlink, v.attr(d).nlink), (4, 2));
    // Within one directory.
    v.ask(&root, exchange(ROOT, "g", ROOT, "d")).unwrap();
    assert_eq!(find(&mut v, &root, ROOT, "g"), Some(d));
    let both = pb::RenameOp { no_replace: true, exchange: true, ..rename(ROOT, "d", ROOT, "x") };
    assert_eq!(v.ask(&root, Op::Rename(both)), Err(Code::InvalidArgument));
    assert!(v.orphans().is_empty());
}
