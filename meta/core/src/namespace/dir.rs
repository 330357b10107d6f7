//! Names in directories: the dentries and the cookie index beside them.

use bytes::Bytes;
use ff2_proto::{Status, limits as wire, pb, status::Code};
use prost::Message;

use super::{
    inode::{Inode, decode},
    keys::{self, Tag},
    trash,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// Names are 1 to 255 bytes without `/` and NUL. `.` and `..` belong to the path walk.
pub(super) fn check_name(name: &[u8]) -> Result<(), Status> {
    let refused = |why| Err(Status::new(Code::InvalidArgument, why));
    match name {
        [] => refused("an empty name"),
        b"." | b".." => refused("`.` and `..` are not names"),
        _ if name.len() > wire::NAME_BYTES_MAX => Err(Code::NameTooLong.into()),
        _ if name.iter().any(|byte| matches!(byte, b'/' | 0)) => refused("a name with `/` or NUL"),
        _ => Ok(()),
    }
}

pub(super) fn lookup(
    kv: &dyn KvRead,
    dir: &Inode,
    name: &[u8],
) -> Result<Option<pb::DentryRecord>, Status> {
    match named(kv, dir.id(), name)? {
        None if trash::folder::may_name(dir.id(), name) => trash::folder::named(kv, dir.id(), name),
        found => Ok(found),
    }
}

/// The name as it is stored.
fn named(kv: &dyn KvRead, dir: u64, name: &[u8]) -> Result<Option<pb::DentryRecord>, Status> {
    kv.get(&keys::dentry(dir, name)).map(|bytes| decode(&bytes)).transpose()
}

/// As [`lookup`], if no more than the number of the directory is known; what cannot be read is not there.
pub(super) fn meant(kv: &dyn KvRead, dir: u64, name: &[u8]) -> Option<u64> {
    let stored = named(kv, dir, name).ok()?;
    let entry = match stored {
        None if trash::folder::may_name(dir, name) => trash::folder::named(kv, dir, name).ok()?,
        stored => stored,
    };
    Some(entry?.inode)
}

/// Adds a name that is not there yet, and counts. The caller stores `dir`.
pub(super) fn insert(tx: &mut Tx<'_>, dir: &mut Inode, name: &[u8], child: &Inode) {
    // Cookies only grow, so a reader of the directory never meets the same entry twice.
    let cookie = dir.next_cookie;
    dir.next_cookie += 1;
    insert_at(tx, dir, name, child, cookie);
}

/// As [`insert`], at the place of the entry that had this name a moment ago: whoever reads the
/// directory meanwhile meets the name once.
pub(super) fn insert_at(tx: &mut Tx<'_>, dir: &mut Inode, name: &[u8], child: &Inode, cookie: u64) {
    debug_assert!(dir.is_dir());
    let key = keys::dentry(dir.id(), name);
    debug_assert!(tx.kv.get(&key).is_none(), "the name is taken");
    dir.entries += 1;
    if child.is_dir() {
        dir.attr.nlink += 1;
    }
    let entry = pb::DentryRecord { inode: child.id(), kind: child.attr.kind, cookie };
    tx.kv.put(&key, Bytes::from(entry.encode_to_vec()));
    tx.kv.put(&keys::two(Tag::Cookie, dir.id(), cookie), Bytes::copy_from_slice(name));
    dir.modified(tx.now_ns);
}

/// Takes a name away, and counts. The caller stores `dir`.
pub(super) fn remove(tx: &mut Tx<'_>, dir: &mut Inode, name: &[u8], entry: &pb::DentryRecord) {
    assert!(dir.entries > 0, "a directory counts its entries");
    dir.entries -= 1;
    if entry.kind() == pb::FileKind::Directory {
        assert!(dir.attr.nlink > 2, "a directory counts its subdirectories");
        dir.attr.nlink -= 1;
    }
    tx.kv.delete(&keys::dentry(dir.id(), name));
    tx.kv.delete(&keys::two(Tag::Cookie, dir.id(), entry.cookie));
    dir.modified(tx.now_ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in [b"a".as_slice(), b"...", b".x", b"\xff\xfe", &[b'n'; 255]] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
        for bad in [b"".as_slice(), b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(check_name(bad).unwrap_err().code, Code::InvalidArgument, "{bad:?}");
        }
        assert_eq!(check_name(&[b'n'; 256]).unwrap_err().code, Code::NameTooLong);
    }
}
