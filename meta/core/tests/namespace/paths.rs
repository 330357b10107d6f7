//! Whole paths, walked on the server.

use bytes::Bytes;
use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{ops::*, volume::Volume};

const ROOT: u64 = 1;

/// `/a/b/f`, `/l -> a/b`, `/a/up -> ../a/b/f`, `/abs -> /a`, `/loop -> loop`, `/dangling -> none`.
fn tree() -> (Volume, crate::volume::Who, [u64; 3]) {
    let (mut v, root) = Volume::with_root();
    let a = v.ask(&root, mkdir(ROOT, "a", 0o755)).unwrap().attr.unwrap().inode;
    let b = v.ask(&root, mkdir(a, "b", 0o755)).unwrap().attr.unwrap().inode;
    let f = v.ask(&root, touch(b, "f", 0o644)).unwrap().attr.unwrap().inode;
    for (parent, name, target) in [
        (ROOT, "l", "a/b"),
        (a, "up", "../a/b/f"),
        (ROOT, "abs", "/a"),
        (ROOT, "loop", "loop"),
        (ROOT, "dangling", "none"),
    ] {
        v.ask(&root, symlink(parent, name, target)).unwrap();
    }
    (v, root, [a, b, f])
}

#[test]
fn paths_are_walked() {
    let (mut v, root, [a, b, f]) = tree();
    for (path, inode) in [
        ("/", ROOT),
        ("//a///b/", b),
        ("a/b/f", f),
        ("a/./b/../b/f", f),
        ("..", ROOT),
        ("../../a", a),
        ("l/f", f),
        ("l/", b),
        ("l/..", a),
        ("a/up", f),
        ("abs/b/f", f),
        ("abs/up", f),
    ] {
        let reply =
            v.ask(&root, resolve(path, true)).unwrap_or_else(|code| panic!("{path}: {code:?}"));
        assert_eq!(reply.attr.unwrap().inode, inode, "{path}");
    }
    for (path, code) in [
        ("", Code::NotFound),
        ("none", Code::NotFound),
        ("none/..", Code::NotFound),
        ("a/b/f/", Code::NotDirectory),
        ("a/b/f/..", Code::NotDirectory),
        ("a/b/f/x", Code::NotDirectory),
        ("dangling", Code::NotFound),
        ("loop", Code::SymlinkLoop),
        ("a\0", Code::InvalidArgument),
        (&"a/".repeat(2_100), Code::NameTooLong),
        (&"a".repeat(256), Code::NameTooLong),
    ] {
        assert_eq!(v.ask(&root, resolve(path, true)), Err(code), "{path:?}");
    }
}

#[test]
fn the_last_symlink_is_followed_if_asked() {
    let (mut v, root, [a, b, f]) = tree();
    let l = v.ask(&root, lookup(ROOT, "l")).unwrap().attr.unwrap();
    let reply = v.ask(&root, resolve("l", false)).unwrap();
    assert_eq!(reply.attr.unwrap(), l);
    assert_eq!(reply.parent_attr.unwrap().inode, ROOT);
    assert_eq!(v.ask(&root, resolve("l/", false)).unwrap().attr.unwrap().inode, b);
    assert_eq!(v.ask(&root, resolve("loop", false)).unwrap().attr.unwrap().size, 4);
    let up = v.ask(&root, resolve("abs/up", true)).unwrap();
    assert_eq!((up.attr.unwrap().inode, up.parent_attr.unwrap().inode), (f, b));
    let from_a = pb::ResolveOp { base: a, path: Bytes::from("b/f"), follow_last: true };
    assert_eq!(v.ask(&root, Op::Resolve(from_a)).unwrap().attr.unwrap().inode, f);
}

#[test]
fn each_directory_on_the_way_must_be_searchable() {
    let (mut v, root, [a, b, _]) = tree();
    let user = v.user(7, 7, &[]);
    v.ask(&user, resolve("a/b/f", true)).unwrap();
    v.ask(&root, chmod(a, 0o700)).unwrap();
    assert_eq!(v.ask(&user, resolve("a/b/f", true)), Err(Code::AccessDenied));
    assert_eq!(v.ask(&user, resolve("l/f", true)), Err(Code::AccessDenied));
    v.ask(&user, resolve("a", true)).unwrap();
    v.ask(&root, chmod(a, 0o711)).unwrap();
    v.ask(&root, chmod(b, 0o744)).unwrap();
    assert_eq!(v.ask(&user, resolve("a/b/f", true)), Err(Code::AccessDenied));
    assert_eq!(v.ask(&user, lookup(b, "f")), Err(Code::AccessDenied));
    let listed = v.ask(&user, read_dir(b, 0, 0)).unwrap();
    assert_eq!(listed.entries[0].attr.unwrap().version, 0, "named, but not looked at");
    assert_eq!(v.ask(&user, read_dir(a, 0, 0)), Err(Code::AccessDenied));
}

#[test]
fn long_chains_of_symlinks_end() {
    let (mut v, root) = Volume::with_root();
    v.ask(&root, touch(ROOT, "s0", 0o644)).unwrap();
    for number in 1..=41 {
        let target = format!("s{}", number - 1);
        v.ask(&root, symlink(ROOT, &format!("s{number}"), &target)).unwrap();
    }
    v.ask(&root, resolve("s40", true)).unwrap();
    assert_eq!(v.ask(&root, resolve("s41", true)), Err(Code::SymlinkLoop));
}
