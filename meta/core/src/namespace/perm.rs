//! Who may do what, by POSIX: owner, group and others, with supplementary groups and access control
//! lists, and the exceptions for root.

use ff2_proto::{Status, pb, status::Code};

use super::inode::Inode;

pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const EXECUTE: u32 = 1;

pub(super) const SETUID: u32 = 0o4000;
pub(super) const SETGID: u32 = 0o2000;
pub(super) const STICKY: u32 = 0o1000;
const GROUP_EXECUTE: u32 = 0o010;

pub(super) fn is_root(cred: &pb::Credentials) -> bool {
    cred.uid == 0
}

pub(super) fn is_owner(cred: &pb::Credentials, attr: &pb::Attr) -> bool {
    is_root(cred) || cred.uid == attr.uid
}

pub(super) fn in_group(cred: &pb::Credentials, gid: u32) -> bool {
    cred.gid == gid || cred.groups.contains(&gid)
}

/// Whether all bits of `mask` are allowed. Only the first class that fits the caller counts, so an
/// owner may have less than others.
pub(super) fn allows(cred: &pb::Credentials, inode: &Inode, mask: u32) -> bool {
    let attr = &inode.attr;
    if is_root(cred) {
        // Root runs a file only if somebody may.
        let runs = attr.kind() == pb::FileKind::Directory || attr.mode & 0o111 != 0;
        return mask & EXECUTE == 0 || runs;
    }
    let bits = if cred.uid == attr.uid {
        attr.mode >> 6
    } else if let Some(acl) = &inode.access_acl {
        return acl.allows(cred, attr.gid, mask);
    } else if in_group(cred, attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    bits & mask == mask
}

pub(super) fn check(cred: &pb::Credentials, inode: &Inode, mask: u32) -> Result<(), Status> {
    if allows(cred, inode, mask) { Ok(()) } else { Err(Code::AccessDenied.into()) }
}

/// A step of a path walk: `dir` must be a directory that the caller may search.
pub(super) fn search(cred: &pb::Credentials, dir: &Inode) -> Result<(), Status> {
    if !dir.is_dir() {
        return Err(Code::NotDirectory.into());
    }
    check(cred, dir, EXECUTE)
}

/// Names may be added to `dir`: it is not removed, and the caller may write it.
pub(super) fn add_name(cred: &pb::Credentials, dir: &Inode) -> Result<(), Status> {
    if dir.attr.nlink == 0 {
        return Err(Status::new(Code::NotFound, "the directory was removed"));
    }
    check(cred, dir, WRITE | EXECUTE)
}

/// The name of `victim` may be taken from `dir`. In a sticky directory only the owners of the
/// directory and of the victim may do so.
pub(super) fn remove_name(
    cred: &pb::Credentials,
    dir: &Inode,
    victim: &Inode,
) -> Result<(), Status> {
    check(cred, dir, WRITE | EXECUTE)?;
    let sticky = dir.attr.mode & STICKY != 0;
    if sticky && !is_owner(cred, &dir.attr) && !is_owner(cred, &victim.attr) {
        return Err(Status::new(Code::NotPermitted, "the directory is sticky"));
    }
    Ok(())
}

/// The mode of a file after its bytes or its owner changed: no setuid, and no setgid where that bit
/// means privilege (without group execution it means mandatory locking).
pub(super) fn without_privileges(mode: u32) -> u32 {
    if mode & GROUP_EXECUTE != 0 { mode & !(SETUID | SETGID) } else { mode & !SETUID }
}

/// Mode and group of something new in `parent`: a setgid directory gives its group, and
/// directories in it are setgid as well.
pub(super) fn inherit(
    cred: &pb::Credentials,
    parent: &Inode,
    kind: pb::FileKind,
    mode: u32,
) -> (u32, u32) {
    if parent.attr.mode & SETGID == 0 {
        return (mode, cred.gid);
    }
    let gid = parent.attr.gid;
    let privileged = mode & (SETGID | GROUP_EXECUTE) == SETGID | GROUP_EXECUTE;
    if kind == pb::FileKind::Directory {
        (mode | SETGID, gid)
    } else if privileged && !in_group(cred, gid) && !is_root(cred) {
        // Else anybody could make a program that runs with the directory's group.
        (mode & !SETGID, gid)
    } else {
        (mode, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, gid: u32, groups: &[u32]) -> pb::Credentials {
        pb::Credentials { uid, gid, groups: groups.to_vec() }
    }

    fn node(kind: pb::FileKind, mode: u32) -> Inode {
        let mut inode = crate::namespace::tx::blank(5, kind, 0);
        inode.attr = pb::Attr { mode, uid: 10, gid: 20, ..inode.attr };
        inode
    }

    fn file(mode: u32) -> Inode {
        node(pb::FileKind::Regular, mode)
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let odd = file(0o047);
        assert!(!allows(&user(10, 20, &[]), &odd, READ), "the owner, though others may");
        assert!(allows(&user(11, 20, &[]), &odd, READ));
        assert!(!allows(&user(11, 20, &[]), &odd, WRITE));
        assert!(allows(&user(11, 21, &[20]), &odd, READ), "a supplementary group");
        assert!(!allows(&user(11, 21, &[20]), &odd, WRITE));
        assert!(allows(&user(11, 21, &[]), &odd, READ | WRITE | EXECUTE));
        assert!(!allows(&user(11, 21, &[]), &file(0o770), EXECUTE));
    }

    #[test]
    fn root_runs_what_anybody_may_run() {
        let root = user(0, 0, &[]);
        assert!(allows(&root, &file(0), READ | WRITE));
        assert!(!allows(&root, &file(0o666), EXECUTE));
        assert!(allows(&root, &file(0o001), EXECUTE));
        assert!(allows(&root, &node(pb::FileKind::Directory, 0), EXECUTE));
    }

    #[test]
    fn a_list_decides_for_all_but_the_owner() {
        let mut inode = file(0o640);
        let user_obj = [1_u16, 6];
        let entries: [([u16; 2], u32); 5] =
            [(user_obj, 0), ([2, 4], 11), ([4, 0], 0), ([16, 4], 0), ([32, 0], 0)];
        let mut bytes = vec![2, 0, 0, 0];
        for ([tag, perm], id) in entries {
            bytes.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
            bytes.extend(id.to_le_bytes());
        }
        inode.set_access_acl(crate::namespace::acl::Acl::parse(&bytes).unwrap());
        assert!(allows(&user(11, 99, &[]), &inode, READ), "whom it names");
        assert!(
            !allows(&user(12, 20, &[]), &inode, READ),
            "the mode shows the mask, not the group"
        );
        assert!(allows(&user(10, 99, &[]), &inode, READ | WRITE));
        assert!(allows(&user(0, 0, &[]), &inode, READ | WRITE));
        assert!(!allows(&user(0, 0, &[]), &inode, EXECUTE));
    }

    #[test]
    fn privileges_fall() {
        assert_eq!(without_privileges(0o6755), 0o755);
        assert_eq!(without_privileges(0o6745), 0o2745, "setgid without group execution stays");
    }
}
