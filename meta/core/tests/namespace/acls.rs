//! POSIX ACLs: set by the owner, enforced by every operation, inherited, and one with the mode.

use ff2_proto::{
    extras,
    pb::{self, Code, FileKind, ns_request::Op},
};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// As `getfacl` numbers tags; entries in the order of Linux.
fn acl(text: &str) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for entry in text.split(',') {
        let (who, perm) = entry.rsplit_once(':').unwrap();
        let (kind, id) = who.split_once(':').unwrap();
        let tag: u16 = match (kind, id) {
            ("u", "") => 0x01,
            ("u", _) => 0x02,
            ("g", "") => 0x04,
            ("g", _) => 0x08,
            ("m", _) => 0x10,
            _ => 0x20,
        };
        let bits = "rwx".chars().zip([4_u16, 2, 1]);
        let perm = bits.filter(|(c, _)| perm.contains(*c)).map(|(_, bit)| bit).sum::<u16>();
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.parse().unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes
}

/// Root, the owner (10, group 20), the one whom lists name (11, group 30), another one (12, group 40).
fn users() -> (Volume, Who, [Who; 3]) {
    let (mut v, root) = Volume::with_root();
    v.ask(&root, chmod(ROOT, 0o777)).unwrap();
    let users = [(10, 20), (11, 30), (12, 40)].map(|(uid, gid)| v.user(uid, gid, &[]));
    (v, root, users)
}

fn made(v: &mut Volume, who: &Who, op: Op) -> pb::Attr {
    v.ask(who, op).unwrap().attr.unwrap()
}

fn value(v: &Volume, inode: u64, name: &str) -> Result<Vec<u8>, Code> {
    v.look(get_xattr(inode, name)).map(|reply| reply.xattr_value.to_vec())
}

#[test]
fn who_is_named_may_and_the_mode_shows_the_mask() {
    let (mut v, _, [owner, named, other]) = users();
    let file = made(&mut v, &owner, touch(ROOT, "f", 0o600)).inode;
    assert_eq!(v.ask(&named, open_read(file)), Err(Code::AccessDenied));
    let list = acl("u::rw,u:11:r,g::,m::r,o::");
    let set = made(&mut v, &owner, set_xattr(file, ACCESS, &list));
    assert_eq!((set.mode, set.extras, set.ctime_ns), (0o640, extras::ACCESS_ACL, v.now_ns));
    assert_eq!(value(&v, file, ACCESS).unwrap(), list);
    assert_eq!(v.look(list_xattrs(file)).unwrap().xattr_names, [ACCESS.as_bytes()]);
    v.ask(&named, open_read(file)).unwrap();
    assert_eq!(v.ask(&named, open_write(file)), Err(Code::AccessDenied));
    assert_eq!(v.ask(&other, open_read(file)), Err(Code::AccessDenied));
    let group = v.user(13, 20, &[]);
    assert_eq!(
        v.ask(&group, open_read(file)),
        Err(Code::AccessDenied),
        "the mask is not the group's"
    );
    assert_eq!(v.ask(&group, access(file, 4)), Err(Code::AccessDenied));
    // chmod changes the mask, and with it what the named one may.
    let list = acl("u::rw,u:11:rw,g::r,m::rw,o::");
    made(&mut v, &owner, set_xattr(file, ACCESS, &list));
    v.ask(&named, open_write(file)).unwrap();
    made(&mut v, &owner, chmod(file, 0o4604));
    assert_eq!(value(&v, file, ACCESS).unwrap(), acl("u::rw,u:11:rw,g::r,m::,o::r"));
    assert_eq!(v.ask(&named, access(file, 4)), Err(Code::AccessDenied), "masked, and no other");
    v.ask(&other, access(file, 4)).unwrap();
    // Without the list the mode stays, and counts.
    v.ask(&owner, remove_xattr(file, ACCESS)).unwrap();
    assert_eq!((v.attr(file).mode, v.attr(file).extras), (0o4604, 0));
    v.ask(&named, access(file, 4)).unwrap();
    assert_eq!(v.ask(&owner, remove_xattr(file, ACCESS)), Err(Code::NoAttribute));
}

#[test]
fn folders_are_searched_listed_and_changed_by_whom_they_name() {
    let (mut v, _, [owner, named, other]) = users();
    let dir = made(&mut v, &owner, mkdir(ROOT, "d", 0o700)).inode;
    let file = made(&mut v, &owner, touch(dir, "f", 0o644)).inode;
    let list = acl("u::rwx,u:11:rwx,g::,m::rwx,o::");
    made(&mut v, &owner, set_xattr(dir, ACCESS, &list));
    for (who, may) in [(&named, true), (&other, false)] {
        for op in [
            lookup(dir, "f"),
            resolve("d/f", true),
            read_dir(dir, 0, 9),
            access(dir, 7),
            touch(dir, "g", 0o644),
            mv(dir, "g", dir, "h"),
            link(file, dir, "i"),
            unlink(dir, "h"),
            unlink(dir, "i"),
        ] {
            let outcome = v.ask(who, op.clone());
            if may {
                assert!(outcome.is_ok(), "{op:?}: {outcome:?}");
            } else {
                assert_eq!(outcome, Err(Code::AccessDenied), "{op:?}");
            }
        }
    }
}

#[test]
fn only_the_owner_sets_lists_and_only_good_ones() {
    let (mut v, root, [owner, named, _]) = users();
    let file = made(&mut v, &owner, touch(ROOT, "f", 0o666)).inode;
    let good = acl("u::rw,u:11:r,g::,m::r,o::");
    assert_eq!(v.ask(&named, set_xattr(file, ACCESS, &good)), Err(Code::NotPermitted));
    assert_eq!(v.ask(&named, remove_xattr(file, ACCESS)), Err(Code::NotPermitted));
    v.ask(&root, set_xattr(file, ACCESS, &good)).unwrap();
    for bad in ["u::rw", "u::rw,g::r,u:11:r,m::r,o::", "u::rw,u:11:r,g::r,o::"] {
        let outcome = v.ask(&owner, set_xattr(file, ACCESS, &acl(bad)));
        assert_eq!(outcome, Err(Code::InvalidArgument), "{bad}");
    }
    assert_eq!(v.ask(&owner, set_xattr(file, ACCESS, b"")), Err(Code::InvalidArgument));
    assert_eq!(v.ask(&owner, set_xattr(file, DEFAULT, &good)), Err(Code::AccessDenied));
    let link = made(&mut v, &owner, symlink(ROOT, "s", "f")).inode;
    assert_eq!(v.ask(&owner, set_xattr(link, ACCESS, &good)), Err(Code::Unsupported));
    // One that says no more than a mode is none; one without entries takes the list away.
    let plain = acl("u::rwx,g::rx,o::x");
    assert_eq!(made(&mut v, &owner, set_xattr(file, ACCESS, &plain)).mode, 0o751);
    assert_eq!(value(&v, file, ACCESS), Err(Code::NoAttribute));
    v.ask(&owner, set_xattr(file, ACCESS, &good)).unwrap();
    v.ask(&owner, set_xattr(file, ACCESS, &acl("u::rw,u:11:r,g::,m::r,o::")[..4])).unwrap();
    assert_eq!(v.attr(file).extras, 0);
    // A setgid program of a group that the owner is not in does not survive it.
    v.ask(&root, chown(file, None, Some(77))).unwrap();
    v.ask(&root, chmod(file, 0o2755)).unwrap();
    assert_eq!(made(&mut v, &owner, set_xattr(file, ACCESS, &good)).mode, 0o640);
}

#[test]
fn what_is_made_inherits_and_the_umask_is_for_the_rest() {
    let (mut v, _, [owner, named, _]) = users();
    let masked = |mut op: Op| {
        match &mut op {
            Op::Create(create) => create.umask = 0o027,
            Op::MakeNode(make) => make.umask = 0o027,
            _ => unreachable!(),
        }
        op
    };
    assert_eq!(made(&mut v, &owner, masked(touch(ROOT, "plain", 0o666))).mode, 0o640);
    assert_eq!(made(&mut v, &owner, masked(mkdir(ROOT, "dir", 0o1777))).mode, 0o1750);
    assert_eq!(made(&mut v, &owner, masked(symlink(ROOT, "link", "x"))).mode, 0o777);

    let dir = made(&mut v, &owner, mkdir(ROOT, "d", 0o755)).inode;
    let list = acl("u::rwx,u:11:rwx,g::rx,m::rwx,o::");
    let set = made(&mut v, &owner, set_xattr(dir, DEFAULT, &list));
    assert_eq!((set.mode, set.extras), (0o755, extras::DEFAULT_ACL), "for others, not for itself");
    let file = made(&mut v, &owner, masked(touch(dir, "f", 0o666)));
    assert_eq!((file.mode, file.extras), (0o660, extras::ACCESS_ACL), "no umask");
    assert_eq!(value(&v, file.inode, ACCESS).unwrap(), acl("u::rw,u:11:rwx,g::rx,m::rw,o::"));
    v.ask(&named, open_write(file.inode)).unwrap();
    let sub = made(&mut v, &owner, masked(mkdir(dir, "sub", 0o700)));
    assert_eq!((sub.mode, sub.extras), (0o700, extras::ACCESS_ACL | extras::DEFAULT_ACL));
    assert_eq!(value(&v, sub.inode, DEFAULT).unwrap(), list);
    assert_eq!(v.ask(&named, lookup(sub.inode, "x")), Err(Code::AccessDenied), "masked");
    let fifo = made(&mut v, &owner, masked(mknod(sub.inode, "p", FileKind::Fifo, 0o666)));
    assert_eq!((fifo.mode, fifo.extras), (0o660, extras::ACCESS_ACL));
    let link = made(&mut v, &owner, symlink(dir, "s", "x"));
    assert_eq!((link.mode, link.extras), (0o777, 0));
    // A default list that says no more than a mode leaves none behind.
    v.ask(&owner, set_xattr(dir, DEFAULT, &acl("u::rwx,g::r,o::"))).unwrap();
    let file = made(&mut v, &owner, masked(touch(dir, "g", 0o666)));
    assert_eq!((file.mode, file.extras), (0o640, 0));
    v.ask(&owner, remove_xattr(dir, DEFAULT)).unwrap();
    assert_eq!(made(&mut v, &owner, masked(touch(dir, "h", 0o666))).mode, 0o640);
}
