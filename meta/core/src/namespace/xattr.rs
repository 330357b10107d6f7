//! Extended attributes: which names there are, who may do what with them, and how they are kept.
//!
//! Each value lies under a key of its own, so that attributes of an inode cost nothing where nobody
//! asks for them; the inode knows how much there is, and of which kinds ([`extras`]). ACLs are read with
//! each access, and lie in the inode.

use bytes::Bytes;
use ff2_proto::{
    Status, extras, limits as wire,
    pb::{self, FileKind},
    status::Code,
};

use super::{
    inode::Inode,
    keys::{self, Tag},
    limits, perm,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// The name spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    User,
    /// Root's alone.
    Trusted,
    /// Read by all, written by root.
    Security,
    AccessAcl,
    DefaultAcl,
}

impl Space {
    pub(super) fn of(name: &[u8]) -> Result<Self, Status> {
        if name.is_empty() || name.len() > wire::XATTR_NAME_BYTES_MAX {
            return Err(Code::Range.into());
        }
        if name.contains(&0) {
            return Err(Status::new(Code::InvalidArgument, "a name with NUL"));
        }
        match name {
            extras::ACCESS_ACL_NAME => return Ok(Self::AccessAcl),
            extras::DEFAULT_ACL_NAME => return Ok(Self::DefaultAcl),
            _ => {}
        }
        let spaces: [(&[u8], Self); 3] =
            [(b"user.", Self::User), (b"trusted.", Self::Trusted), (b"security.", Self::Security)];
        for (prefix, space) in spaces {
            match name.strip_prefix(prefix) {
                Some(b"") => return Err(Status::new(Code::InvalidArgument, "only a prefix")),
                Some(_) => return Ok(space),
                None => {}
            }
        }
        Err(Status::new(Code::Unsupported, "no such name space of extended attributes"))
    }
}

/// Whether the caller may see the value. What is hidden does not exist for him.
pub(super) fn check_read(
    cred: &pb::Credentials,
    inode: &Inode,
    space: Space,
) -> Result<(), Status> {
    match space {
        Space::User if !has_user_names(inode) => Err(Code::NoAttribute.into()),
        Space::User => perm::check(cred, inode, perm::READ),
        Space::Trusted if !perm::is_root(cred) => Err(Code::NoAttribute.into()),
        Space::Trusted | Space::Security | Space::AccessAcl | Space::DefaultAcl => Ok(()),
    }
}

/// Whether the caller may set or remove the attribute.
pub(super) fn check_write(
    cred: &pb::Credentials,
    inode: &Inode,
    space: Space,
) -> Result<(), Status> {
    let refused = |why| Err(Status::new(Code::NotPermitted, why));
    match space {
        Space::User if !has_user_names(inode) => refused("only files and directories have these"),
        Space::User => {
            let sticky = inode.is_dir() && inode.attr.mode & perm::STICKY != 0;
            if sticky && !perm::is_owner(cred, &inode.attr) {
                return refused("the directory is sticky");
            }
            perm::check(cred, inode, perm::WRITE)
        }
        Space::Trusted | Space::Security if !perm::is_root(cred) => refused("only root sets these"),
        Space::Trusted | Space::Security => Ok(()),
        Space::AccessAcl | Space::DefaultAcl if inode.kind() == FileKind::Symlink => {
            Err(Status::new(Code::Unsupported, "symlinks have no ACL"))
        }
        Space::AccessAcl | Space::DefaultAcl if !perm::is_owner(cred, &inode.attr) => {
            refused("only the owner sets ACLs")
        }
        Space::AccessAcl | Space::DefaultAcl => Ok(()),
    }
}

fn has_user_names(inode: &Inode) -> bool {
    inode.is_dir() || inode.is_regular()
}

pub(super) fn value(kv: &dyn KvRead, inode: &Inode, name: &[u8]) -> Option<Bytes> {
    if !extras::may_have(inode.attr.extras, name) {
        return None;
    }
    kv.get(&keys::named(Tag::Xattr, inode.id(), name))
}

/// All names that are kept under keys, in order.
pub(super) fn names(kv: &dyn KvRead, inode: &Inode) -> Vec<Bytes> {
    if inode.attr.extras & extras::XATTRS == 0 {
        return Vec::new();
    }
    let pairs = keys::all(kv, &keys::one(Tag::Xattr, inode.id()));
    pairs.filter_map(|(key, _)| Some(Bytes::copy_from_slice(keys::split(&key)?.1))).collect()
}

/// Sets a value within the bounds of an inode. The caller stores the inode.
pub(super) fn put(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    name: &[u8],
    value: &Bytes,
) -> Result<(), Status> {
    let before = self::value(&tx.kv, inode, name);
    let (old_name, old_value) = match &before {
        Some(value) => (name.len() + 1, value.len()),
        None => (0, 0),
    };
    let names = inode.xattr_name_bytes as usize - old_name + name.len() + 1;
    let bytes = inode.xattr_bytes as usize - old_name - old_value + name.len() + 1 + value.len();
    if names > wire::XATTR_LIST_BYTES_MAX || bytes > limits::XATTR_BYTES_MAX {
        return Err(Status::new(Code::NoSpace, "the inode has too many extended attributes"));
    }
    account(inode, names, bytes);
    inode.attr.extras |= extras::XATTRS;
    if name == extras::CAPABILITY_NAME {
        inode.attr.extras |= extras::CAPABILITY;
    }
    tx.kv.put(&keys::named(Tag::Xattr, inode.id(), name), value.clone());
    Ok(())
}

/// Takes one away; whether it was there. The caller stores the inode.
pub(super) fn remove(tx: &mut Tx<'_>, inode: &mut Inode, name: &[u8]) -> bool {
    let Some(value) = value(&tx.kv, inode, name) else { return false };
    let names = inode.xattr_name_bytes as usize - name.len() - 1;
    let bytes = inode.xattr_bytes as usize - name.len() - 1 - value.len();
    account(inode, names, bytes);
    tx.kv.delete(&keys::named(Tag::Xattr, inode.id(), name));
    if name == extras::CAPABILITY_NAME {
        inode.attr.extras &= !extras::CAPABILITY;
    }
    if names == 0 {
        inode.attr.extras &= !extras::XATTRS;
    }
    true
}

/// The bytes of a file, or its owner, changed: a program that was given capabilities loses them.
pub(super) fn drop_capability(tx: &mut Tx<'_>, inode: &mut Inode) {
    if inode.attr.extras & extras::CAPABILITY != 0 {
        remove(tx, inode, extras::CAPABILITY_NAME);
    }
}

/// The inode goes; how many there were.
pub(super) fn remove_all(tx: &mut Tx<'_>, inode: &Inode) -> usize {
    let names = names(&tx.kv, inode);
    for name in &names {
        tx.kv.delete(&keys::named(Tag::Xattr, inode.id(), name));
    }
    names.len()
}

fn account(inode: &mut Inode, names: usize, bytes: usize) {
    let within = |bytes: usize| u32::try_from(bytes).expect("bounded far below");
    inode.xattr_name_bytes = within(names);
    inode.xattr_bytes = within(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_known_spaces() {
        let of = |name: &[u8]| Space::of(name).map_err(|status| status.code);
        assert_eq!(of(b"user.a"), Ok(Space::User));
        assert_eq!(of(b"trusted.overlay.opaque"), Ok(Space::Trusted));
        assert_eq!(of(b"security.capability"), Ok(Space::Security));
        assert_eq!(of(b"system.posix_acl_access"), Ok(Space::AccessAcl));
        assert_eq!(of(b"system.posix_acl_default"), Ok(Space::DefaultAcl));
        for name in [b"system.other".as_slice(), b"a", b"users.a", b"USER.a"] {
            assert_eq!(of(name), Err(Code::Unsupported), "{name:?}");
        }
        assert_eq!(of(b"user."), Err(Code::InvalidArgument));
        assert_eq!(of(b"user.a\0b"), Err(Code::InvalidArgument));
        assert_eq!(of(b""), Err(Code::Range));
        assert_eq!(of(&[b"user.".as_slice(), &[b'n'; 251]].concat()), Err(Code::Range));
        assert_eq!(of(&[b"user.".as_slice(), &[b'n'; 250]].concat()), Ok(Space::User));
    }
}
