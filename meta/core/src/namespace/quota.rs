//! Quotas: how many inodes, and how many bytes of files, there may be in a folder, or be owned by a user or
//! a group (docs/design/0008).
//!
//! A folder with a quota is its *root*. Each inode says which root counts it ([`pb::Attr::quota`]): the
//! nearest one above where it was made, which new inodes have from their folder, so that nobody walks up
//! the tree. A root's record names the root above it, and an inode counts in the whole chain. What is used is
//! changed in the command that changes the inode. An inode counts while it has a name or a writer; bytes
//! are lengths of regular files.
//!
//! - `account`: counts inodes, and refuses what is too much.
//! - `place`: what a rename means.
//! - `set`: quotas come and go.
//! - `count`: what was there before a quota comes to be counted in steps, by the leader's driver.
//! - `list`: what there is, and what is left.

mod account;
mod count;
mod list;
mod place;
mod set;

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use pb::quota_key::Of;
use prost::Message;

use super::{
    inode::{Inode, decode},
    keys::{self, Tag},
    limits,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

pub(super) use account::{
    Amount, add, change_owner, check_growth, check_new, is_counted, remove, resized, written_again,
};
pub(super) use count::{count, touched};
pub(super) use list::{add_room, list, stat_fs};
pub(super) use place::{Arrival, arrive, folder_removed, returns};
pub(super) use set::{remove as remove_quota, set};

/// What a quota is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Folder(u64),
    User(u32),
    Group(u32),
}

impl Key {
    pub(super) fn parse(key: Option<&pb::QuotaKey>) -> Result<Self, Status> {
        match key.and_then(|key| key.of) {
            Some(Of::Inode(inode)) => Ok(Self::Folder(inode)),
            Some(Of::Uid(uid)) => Ok(Self::User(uid)),
            Some(Of::Gid(gid)) => Ok(Self::Group(gid)),
            None => Err(Status::new(Code::InvalidArgument, "a quota of nothing")),
        }
    }

    pub(super) fn told(self) -> pb::QuotaKey {
        let of = match self {
            Self::Folder(inode) => Of::Inode(inode),
            Self::User(uid) => Of::Uid(uid),
            Self::Group(gid) => Of::Gid(gid),
        };
        pb::QuotaKey { of: Some(of) }
    }

    pub(super) fn stored(self) -> Vec<u8> {
        match self {
            Self::Folder(inode) => keys::one(Tag::Quota, inode).to_vec(),
            Self::User(uid) => keys::two(Tag::OwnerQuota, USERS, uid.into()).to_vec(),
            Self::Group(gid) => keys::two(Tag::OwnerQuota, GROUPS, gid.into()).to_vec(),
        }
    }

    /// `None`: it is no quota's key.
    pub(super) fn of_stored(key: &[u8]) -> Option<Self> {
        let (number, rest) = keys::split(key)?;
        if key.first() == Some(&(Tag::Quota as u8)) {
            return rest.is_empty().then_some(Self::Folder(number));
        }
        let id = u32::try_from(keys::number(rest)?).ok()?;
        match number {
            USERS => Some(Self::User(id)),
            GROUPS => Some(Self::Group(id)),
            _ => None,
        }
    }

    pub(super) fn owners(inode: &Inode) -> [Self; 2] {
        [Self::User(inode.attr.uid), Self::Group(inode.attr.gid)]
    }
}

const USERS: u64 = 0;
const GROUPS: u64 = 1;

pub(super) fn find(kv: &dyn KvRead, key: Key) -> Result<Option<pb::QuotaRecord>, Status> {
    kv.get(&key.stored()).map(|bytes| decode(&bytes)).transpose()
}

/// Stores a record. One that has ended and counts nothing any more is forgotten.
fn put(tx: &mut Tx<'_>, key: Key, record: &pb::QuotaRecord) {
    if record.ending && !record.counting && record.inodes == 0 {
        tx.kv.delete(&key.stored());
        tx.volume.quotas -= 1;
    } else {
        tx.kv.put(&key.stored(), Bytes::from(record.encode_to_vec()));
    }
}

/// A root and those above it, the nearest first. One that is gone counts nothing, nor does what is above.
pub(super) fn chain(kv: &dyn KvRead, root: u64) -> Result<Vec<(u64, pb::QuotaRecord)>, Status> {
    let mut chain = Vec::new();
    let mut at = root;
    while at != 0
        && let Some(record) = find(kv, Key::Folder(at))?
    {
        if chain.len() >= limits::QUOTA_CHAIN_MAX {
            return Err(Status::new(Code::Corrupt, "a circle of quotas"));
        }
        let above = record.above;
        chain.push((at, record));
        at = above;
    }
    Ok(chain)
}

/// Whether this folder has a quota that goes on.
pub(super) fn is_root(inode: &Inode) -> bool {
    inode.is_dir() && inode.attr.quota == inode.id()
}
