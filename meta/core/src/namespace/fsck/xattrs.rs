//! Extended attributes: each belongs to an inode, which says how much there is.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_proto::extras;

use super::{Problem, numbered, raw};
use crate::{
    kv::KvRead,
    namespace::{inode::Inode, keys::Tag},
};

#[derive(Default)]
struct Found {
    names: u64,
    bytes: u64,
    has_capability: bool,
}

pub(super) fn check(kv: &dyn KvRead, inodes: &BTreeMap<u64, Inode>, problems: &mut Vec<Problem>) {
    let mut found: BTreeMap<u64, Found> = BTreeMap::new();
    for (inode, name, value) in numbered::<Bytes>(kv, Tag::Xattr, raw, problems) {
        let of = found.entry(inode).or_default();
        of.names += name.len() as u64 + 1;
        of.bytes += (name.len() + 1 + value.len()) as u64;
        of.has_capability |= name == extras::CAPABILITY_NAME;
    }
    for (&id, inode) in inodes {
        let found = found.remove(&id).unwrap_or_default();
        let mut compare = |what, counted: u32, found| {
            let counted = u64::from(counted);
            if counted != found {
                problems.push(Problem::InodeCount { inode: id, what, counted, found });
            }
        };
        compare("bytes of extended attributes", inode.xattr_bytes, found.bytes);
        compare("bytes of their names", inode.xattr_name_bytes, found.names);
        let bits = [
            (extras::XATTRS, found.names > 0),
            (extras::CAPABILITY, found.has_capability),
            (extras::ACCESS_ACL, inode.access_acl.is_some()),
            (extras::DEFAULT_ACL, inode.default_acl.is_some()),
        ];
        let said = bits.iter().filter(|(_, is)| *is).fold(0, |said, (bit, _)| said | bit);
        if inode.attr.extras != said {
            problems.push(Problem::Inode { inode: id, what: "says wrongly what extras it has" });
        }
        if let Some(acl) = &inode.access_acl
            && (acl.mode().0 != inode.attr.mode & 0o777 || acl.mode().1)
        {
            problems.push(Problem::Inode { inode: id, what: "has an ACL that its mode belies" });
        }
        if inode.default_acl.is_some() && !inode.is_dir() {
            problems.push(Problem::Inode { inode: id, what: "has a default ACL but is no folder" });
        }
    }
    for inode in found.into_keys() {
        problems.push(Problem::Inode { inode, what: "is gone but has extended attributes" });
    }
}
