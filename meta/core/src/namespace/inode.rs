//! Inodes in memory, and how they are loaded.

use bytes::Bytes;
use ff2_proto::{
    Status, extras,
    pb::{self, FileKind},
    status::Code,
};
use prost::Message;

use super::{
    acl::Acl,
    keys::{self, Tag},
    trash,
};
use crate::kv::KvRead;

/// An inode, as [`pb::InodeRecord`] stores it, with what must be there made certain.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inode {
    pub(super) attr: pb::Attr,
    pub(super) symlink_target: Bytes,
    /// Directories: the directory that names it.
    pub(super) parent: u64,
    pub(super) next_cookie: u64,
    pub(super) entries: u64,
    pub(super) truncate_version: u64,
    pub(super) truncating_to: Option<u64>,
    pub(super) length_bound: u64,
    pub(super) attempted_end: u64,
    pub(super) writers: u32,
    /// Set by [`Inode::set_access_acl`] and [`Inode::set_default_acl`] alone.
    pub(super) access_acl: Option<Acl>,
    pub(super) default_acl: Option<Acl>,
    pub(super) xattr_bytes: u32,
    pub(super) xattr_name_bytes: u32,
    /// Its entry in the trash; 0: it is not there.
    pub(super) trash: u64,
}

impl Inode {
    pub(super) fn id(&self) -> u64 {
        self.attr.inode
    }

    pub(super) fn kind(&self) -> FileKind {
        self.attr.kind()
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    pub(super) fn is_regular(&self) -> bool {
        self.kind() == FileKind::Regular
    }

    /// No chunk lies above this, unless the length is uncertain.
    pub(super) fn chunks_end(&self) -> u64 {
        self.length_bound.max(self.attempted_end)
    }

    /// Something about the inode changed. Its change time never goes back, even if a new leader's
    /// clock is behind the old one's.
    pub(super) fn changed(&mut self, now_ns: i64) {
        self.attr.ctime_ns = self.attr.ctime_ns.max(now_ns);
        self.attr.version += 1;
    }

    /// The content changed: a directory's entries, or a file's bytes.
    pub(super) fn modified(&mut self, now_ns: i64) {
        self.attr.mtime_ns = now_ns;
        self.changed(now_ns);
    }

    pub(super) fn set_access_acl(&mut self, acl: Option<Acl>) {
        self.set_extra(extras::ACCESS_ACL, acl.is_some());
        self.access_acl = acl;
    }

    pub(super) fn set_default_acl(&mut self, acl: Option<Acl>) {
        self.set_extra(extras::DEFAULT_ACL, acl.is_some());
        self.default_acl = acl;
    }

    fn set_extra(&mut self, bit: u32, is_there: bool) {
        self.attr.extras = if is_there { self.attr.extras | bit } else { self.attr.extras & !bit };
    }

    /// While chunks are being cut, nobody may see the inode: a client that believed the new length
    /// could still read what is being cut.
    pub(super) fn settled(&self) -> Result<(), Status> {
        match self.truncating_to {
            Some(_) => Err(Status::new(Code::Busy, "the file is being truncated")),
            None => Ok(()),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let record = pb::InodeRecord {
            attr: Some(self.attr),
            symlink_target: self.symlink_target.clone(),
            parent: self.parent,
            next_cookie: self.next_cookie,
            entries: self.entries,
            truncate_version: self.truncate_version,
            truncating_to: self.truncating_to,
            length_bound: self.length_bound,
            attempted_end: self.attempted_end,
            writers: self.writers,
            access_acl: self.access_acl.as_ref().map(Acl::encode).unwrap_or_default(),
            default_acl: self.default_acl.as_ref().map(Acl::encode).unwrap_or_default(),
            xattr_bytes: self.xattr_bytes,
            xattr_name_bytes: self.xattr_name_bytes,
            trash: self.trash,
        };
        Bytes::from(record.encode_to_vec())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Status> {
        let record: pb::InodeRecord = decode(bytes)?;
        let Some(attr) = record.attr else {
            return Err(Status::new(Code::Corrupt, "an inode without attributes"));
        };
        Ok(Self {
            attr,
            symlink_target: record.symlink_target,
            parent: record.parent,
            next_cookie: record.next_cookie,
            entries: record.entries,
            truncate_version: record.truncate_version,
            truncating_to: record.truncating_to,
            length_bound: record.length_bound,
            attempted_end: record.attempted_end,
            writers: record.writers,
            access_acl: Acl::stored(&record.access_acl)?,
            default_acl: Acl::stored(&record.default_acl)?,
            xattr_bytes: record.xattr_bytes,
            xattr_name_bytes: record.xattr_name_bytes,
            trash: record.trash,
        })
    }
}

/// A stored value; one that cannot be decoded is a corrupt store, never a panic.
pub(super) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| Status::new(Code::Corrupt, format!("stored value: {error}")))
}

pub(super) fn find(kv: &dyn KvRead, id: u64) -> Result<Option<Inode>, Status> {
    if trash::folder::is_folder(id) {
        return trash::folder::inode(kv, id);
    }
    find_stored(kv, id)
}

/// As [`find`], but for the folders of the trash, which are made up.
pub(super) fn find_stored(kv: &dyn KvRead, id: u64) -> Result<Option<Inode>, Status> {
    let Some(bytes) = kv.get(&keys::one(Tag::Inode, id)) else { return Ok(None) };
    let inode = Inode::decode(&bytes)?;
    if inode.id() != id {
        return Err(Status::new(Code::Corrupt, "an inode under another number"));
    }
    Ok(Some(inode))
}

pub(super) fn load(kv: &dyn KvRead, id: u64) -> Result<Inode, Status> {
    find(kv, id)?.ok_or_else(|| Status::new(Code::StaleInode, format!("inode {id} is gone")))
}

/// The inode that a stored dentry names: it must be there.
pub(super) fn load_named(kv: &dyn KvRead, entry: &pb::DentryRecord) -> Result<Inode, Status> {
    find(kv, entry.inode)?.ok_or_else(|| Status::new(Code::Corrupt, "a name without its inode"))
}

pub(super) fn load_dir(kv: &dyn KvRead, id: u64) -> Result<Inode, Status> {
    let inode = load(kv, id)?;
    if inode.is_dir() { Ok(inode) } else { Err(Code::NotDirectory.into()) }
}
