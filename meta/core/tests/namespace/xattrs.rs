//! Extended attributes: name spaces, permissions, bounds, and their end.

use ff2_proto::{
    extras,
    limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX},
    pb::{Code, FileKind},
};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

/// Root, the owner of a file of mode `mode`, a stranger, and the file.
fn file(mode: u32) -> (Volume, Who, Who, Who, u64) {
    let (mut v, root) = Volume::with_root();
    let (owner, stranger) = (v.user(10, 20, &[]), v.user(11, 30, &[]));
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let file = v.ask(&owner, touch(ROOT, "f", mode)).unwrap().attr.unwrap().inode;
    (v, root, owner, stranger, file)
}

fn get(v: &mut Volume, who: &Who, inode: u64, name: &str) -> Result<Vec<u8>, Code> {
    v.ask(who, get_xattr(inode, name)).map(|reply| reply.xattr_value.to_vec())
}

fn list(v: &mut Volume, who: &Who, inode: u64) -> Vec<String> {
    let names = v.ask(who, list_xattrs(inode)).unwrap().xattr_names;
    names.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn values_are_set_replaced_listed_and_removed() {
    let (mut v, _, owner, _, file) = file(0o644);
    assert_eq!(get(&mut v, &owner, file, "user.a"), Err(Code::NoAttribute));
    let before = v.attr(file);
    let set = v.ask(&owner, set_xattr(file, "user.a", b"1")).unwrap().attr.unwrap();
    assert_eq!((set.ctime_ns, set.mtime_ns), (v.now_ns, before.mtime_ns));
    assert!(set.version > before.version);
    assert_eq!(set.extras, extras::XATTRS);
    v.ask(&owner, set_xattr(file, "user.b", b"")).unwrap();
    v.ask(&owner, set_xattr(file, "user.a", b"two")).unwrap();
    assert_eq!(get(&mut v, &owner, file, "user.a").unwrap(), b"two");
    assert_eq!(get(&mut v, &owner, file, "user.b").unwrap(), b"");
    assert_eq!(list(&mut v, &owner, file), ["user.a", "user.b"]);
    assert_eq!(v.ask(&owner, create_xattr(file, "user.a", b"3")), Err(Code::Exists));
    assert_eq!(v.ask(&owner, replace_xattr(file, "user.c", b"3")), Err(Code::NoAttribute));
    v.ask(&owner, create_xattr(file, "user.c", b"3")).unwrap();
    v.ask(&owner, replace_xattr(file, "user.c", b"4")).unwrap();
    v.ask(&owner, remove_xattr(file, "user.a")).unwrap();
    assert_eq!(v.ask(&owner, remove_xattr(file, "user.a")), Err(Code::NoAttribute));
    for name in ["user.b", "user.c"] {
        v.ask(&owner, remove_xattr(file, name)).unwrap();
    }
    assert_eq!(v.attr(file).extras, 0);
    assert_eq!(v.attr(file).ctime_ns, v.now_ns);
    assert_eq!(v.ask(&owner, set_xattr(99, "user.a", b"")), Err(Code::StaleInode));
}

#[test]
fn users_need_the_permissions_of_the_file() {
    let (mut v, root, owner, stranger, file) = file(0o640);
    v.ask(&owner, set_xattr(file, "user.a", b"1")).unwrap();
    assert_eq!(get(&mut v, &stranger, file, "user.a"), Err(Code::AccessDenied));
    assert_eq!(v.ask(&stranger, set_xattr(file, "user.a", b"2")), Err(Code::AccessDenied));
    v.ask(&owner, chmod(file, 0o444)).unwrap();
    assert_eq!(get(&mut v, &stranger, file, "user.a").unwrap(), b"1");
    assert_eq!(v.ask(&stranger, remove_xattr(file, "user.a")), Err(Code::AccessDenied));
    assert_eq!(v.ask(&owner, set_xattr(file, "user.a", b"2")), Err(Code::AccessDenied));
    v.ask(&owner, chmod(file, 0o666)).unwrap();
    v.ask(&stranger, set_xattr(file, "user.a", b"2")).unwrap();
    // In a sticky directory that all may write, only its owner says something about it.
    let dir = v.ask(&owner, mkdir(ROOT, "d", 0o777)).unwrap().attr.unwrap().inode;
    v.ask(&stranger, set_xattr(dir, "user.a", b"1")).unwrap();
    v.ask(&owner, chmod(dir, 0o1777)).unwrap();
    assert_eq!(v.ask(&stranger, set_xattr(dir, "user.a", b"2")), Err(Code::NotPermitted));
    assert_eq!(v.ask(&stranger, remove_xattr(dir, "user.a")), Err(Code::NotPermitted));
    v.ask(&owner, set_xattr(dir, "user.a", b"2")).unwrap();
    // Neither symlinks nor devices have any of these.
    let link = v.ask(&owner, symlink(ROOT, "s", "f")).unwrap().attr.unwrap().inode;
    let fifo = v.ask(&owner, mknod(ROOT, "p", FileKind::Fifo, 0o666)).unwrap().attr.unwrap().inode;
    for inode in [link, fifo] {
        assert_eq!(v.ask(&owner, set_xattr(inode, "user.a", b"1")), Err(Code::NotPermitted));
        assert_eq!(get(&mut v, &owner, inode, "user.a"), Err(Code::NoAttribute));
        v.ask(&root, set_xattr(inode, "trusted.a", b"1")).unwrap();
    }
}

#[test]
fn trusted_is_roots_alone_and_security_is_read_by_all() {
    let (mut v, root, owner, _, file) = file(0o600);
    v.ask(&owner, set_xattr(file, "user.z", b"z")).unwrap();
    for name in ["trusted.a", "security.a"] {
        assert_eq!(v.ask(&owner, set_xattr(file, name, b"1")), Err(Code::NotPermitted));
        v.ask(&root, set_xattr(file, name, b"1")).unwrap();
        assert_eq!(v.ask(&owner, remove_xattr(file, name)), Err(Code::NotPermitted));
    }
    assert_eq!(get(&mut v, &owner, file, "trusted.a"), Err(Code::NoAttribute), "as if none");
    assert_eq!(get(&mut v, &owner, file, "security.a").unwrap(), b"1");
    assert_eq!(list(&mut v, &owner, file), ["security.a", "user.z"]);
    assert_eq!(list(&mut v, &root, file), ["security.a", "trusted.a", "user.z"]);
    for name in ["system.a", "other.a", "a"] {
        assert_eq!(v.ask(&root, set_xattr(file, name, b"1")), Err(Code::Unsupported));
        assert_eq!(get(&mut v, &root, file, name), Err(Code::Unsupported));
    }
}

#[test]
fn capabilities_go_when_the_file_is_written_or_given_away() {
    let (mut v, root, owner, stranger, file) = file(0o666);
    const NAME: &str = "security.capability";
    let give = |v: &mut Volume| {
        let set = v.ask(&root, set_xattr(file, NAME, b"caps")).unwrap().attr.unwrap();
        assert_eq!(set.extras, extras::XATTRS | extras::CAPABILITY);
    };
    let is_given = |v: &Volume| v.attr(file).extras & extras::CAPABILITY != 0;
    give(&mut v);
    v.ask(&stranger, open_write(file)).unwrap();
    v.ask(&stranger, close(file, 5)).unwrap();
    assert!(!is_given(&v), "written");
    assert_eq!(get(&mut v, &root, file, NAME), Err(Code::NoAttribute));
    give(&mut v);
    v.ask(&owner, truncate(file, 9)).unwrap();
    assert!(!is_given(&v), "extended");
    give(&mut v);
    v.ask(&root, chown(file, Some(12), None)).unwrap();
    assert!(!is_given(&v), "given away");
    give(&mut v);
    v.ask(&root, chmod(file, 0o602)).unwrap();
    let who = v.user(13, 13, &[]);
    v.ask(&who, remove_xattr(file, NAME)).expect("who may write it");
    give(&mut v);
    v.ask(&root, chmod(file, 0o6710)).unwrap();
    assert_eq!(v.ask(&who, remove_xattr(file, NAME)), Err(Code::NotPermitted));
    assert_eq!(v.ask(&who, drop_privileges(file)), Err(Code::AccessDenied));
    assert!(is_given(&v));
    let writer = v.user(12, 12, &[]);
    let left = v.ask(&writer, drop_privileges(file)).unwrap().attr.unwrap();
    assert_eq!((left.mode, left.extras), (0o710, 0));
}

#[test]
fn names_values_and_their_sum_are_bounded() {
    let (mut v, _, owner, _, file) = file(0o644);
    let long = format!("user.{}", "n".repeat(250));
    v.ask(&owner, set_xattr(file, &long, b"1")).unwrap();
    assert_eq!(v.ask(&owner, set_xattr(file, &format!("{long}n"), b"1")), Err(Code::Range));
    assert_eq!(v.ask(&owner, set_xattr(file, "", b"1")), Err(Code::Range));
    let big = vec![7; XATTR_VALUE_BYTES_MAX];
    v.ask(&owner, set_xattr(file, "user.big", &big)).unwrap();
    let bigger = vec![7; XATTR_VALUE_BYTES_MAX + 1];
    assert_eq!(v.ask(&owner, set_xattr(file, "user.big", &bigger)), Err(Code::ValueTooBig));
    let fits =
        |v: &mut Volume, n: usize| v.ask(&owner, set_xattr(file, &format!("user.{n}"), &big));
    let count = (0..9).take_while(|&n| fits(&mut v, n).is_ok()).count();
    assert_eq!(count, 2, "three of the largest beside small ones");
    assert_eq!(fits(&mut v, 7), Err(Code::NoSpace));
    v.ask(&owner, remove_xattr(file, "user.big")).unwrap();
    fits(&mut v, 7).unwrap();
    // All names are shown in one list.
    let other = v.ask(&owner, touch(ROOT, "g", 0o644)).unwrap().attr.unwrap().inode;
    let mut bytes = 0;
    for n in 0.. {
        let name = format!("user.{n:0>250}");
        if let Err(code) = v.ask(&owner, set_xattr(other, &name, b"")) {
            assert_eq!(code, Code::NoSpace);
            break;
        }
        bytes += name.len() + 1;
    }
    assert!(bytes <= XATTR_LIST_BYTES_MAX && bytes + 256 > XATTR_LIST_BYTES_MAX, "{bytes}");
}

#[test]
fn they_go_with_their_inode() {
    let (mut v, root, owner, _, file) = file(0o644);
    let empty = v.kv.len();
    v.ask(&owner, set_xattr(file, "user.a", b"1")).unwrap();
    v.ask(&owner, set_xattr(file, "user.b", b"2")).unwrap();
    assert_eq!(v.kv.len(), empty + 2);
    v.ask(&owner, unlink(ROOT, "f")).unwrap();
    assert_eq!(get(&mut v, &owner, file, "user.a").unwrap(), b"1", "it may be open");
    v.lead(collect(&[file])).unwrap();
    assert_eq!(v.ask(&root, list_xattrs(file)), Err(Code::StaleInode));
    assert!(!v.kv.pairs().any(|(key, _)| key[0] == b'A'));
}
