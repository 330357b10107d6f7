//! One command while it is applied: the changes so far, what the leader stamped, and who asks.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_proto::{
    Status,
    pb::{self, FileKind},
    status::Code,
};
use prost::Message;

use super::{
    inode::{Inode, decode},
    keys::{self, Tag},
    limits, quota,
    request::Owner,
};
use crate::kv::{Kv, KvRead, Overlay};

pub(super) struct Tx<'a> {
    pub(super) kv: Overlay<'a>,
    pub(super) now_ns: i64,
    pub(super) seed: u64,
    pub(super) default_layout: Option<pb::Layout>,
    pub(super) session: u64,
    /// The folder that the connection is confined to; 0: none.
    pub(super) subtree: u64,
    pub(super) owner: Owner,
    pub(super) cred: pb::Credentials,
    /// Its programs were told of it already.
    pub(super) foreseen: bool,
    pub(super) volume: pb::VolumeRecord,
    /// Of the cluster when the command was logged.
    pub(super) level: u32,
}

impl<'a> Tx<'a> {
    /// The facts of a command over the keys as they are. The volume must be formatted.
    pub(super) fn new(
        kv: &'a dyn KvRead,
        command: &pb::NsCommand,
        request: &pb::NsRequest,
    ) -> Result<Self, Status> {
        Ok(Self {
            volume: volume(kv)?,
            kv: Overlay::new(kv),
            now_ns: command.now_ns,
            seed: command.seed,
            default_layout: command.default_layout,
            session: request.session,
            subtree: command.subtree,
            foreseen: request.at_ns != 0,
            owner: command.owner,
            level: command.level,
            cred: request.cred.clone().unwrap_or_default(),
        })
    }

    /// Refuses what programs of a level before `level` do not know, as long as the cluster may have such.
    pub(super) fn require_level(&self, level: u32, what: &str) -> Result<(), Status> {
        if self.level >= level {
            return Ok(());
        }
        let why = format!(
            "{what} needs a cluster whose programs all know it: finish the upgrade first \
             (`ff2ctl upgrade finish`)"
        );
        Err(Status::new(Code::InvalidArgument, why))
    }

    /// The changes of a command that succeeded.
    pub(super) fn finish(mut self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.kv.put(&keys::VOLUME, Bytes::from(self.volume.encode_to_vec()));
        self.kv.into_changes()
    }

    pub(super) fn put_inode(&mut self, inode: &Inode) {
        self.kv.put(&keys::one(Tag::Inode, inode.id()), inode.encode());
    }

    /// A new inode of the caller in `parent`, with one name (or a directory's two) to come, under a number
    /// of [`super::allot::number`].
    /// The mode loses what `umask` says, or what the directory's default ACL does not allow. It counts in the
    /// quotas of the directory and the caller, if they have room.
    pub(super) fn new_inode(
        &mut self,
        parent: &Inode,
        kind: FileKind,
        mode: u32,
        umask: u32,
        id: u64,
    ) -> Result<Inode, Status> {
        self.volume.inodes += 1;
        let (mode, gid) = super::perm::inherit(&self.cred, parent, kind, mode);
        let mut inode = blank(id, kind, self.now_ns);
        inode.attr.mode = match &parent.default_acl {
            // The permissions of a symlink are nobody's business.
            _ if kind == FileKind::Symlink => mode,
            Some(acl) => {
                let (mode, access) = acl.inherited(mode);
                inode.set_access_acl(access);
                if inode.is_dir() {
                    inode.set_default_acl(Some(acl.clone()));
                }
                mode
            }
            None => mode & !(umask & 0o777),
        };
        inode.attr.uid = self.cred.uid;
        inode.attr.gid = gid;
        if inode.is_dir() {
            inode.parent = parent.id();
            inode.attr.layout = parent.attr.layout;
        }
        inode.attr.quota = parent.attr.quota;
        quota::check_new(self, &inode)?;
        quota::add(self, &inode)?;
        Ok(inode)
    }

    /// Sets the size and keeps the sums of volume and quotas.
    pub(super) fn set_size(&mut self, inode: &mut Inode, size: u64) -> Result<(), Status> {
        debug_assert!(inode.is_regular());
        quota::resized(self, inode, size)?;
        // Sparse files can promise more than 2^64 bytes together: the sum is modulo that.
        let sums = [&mut self.volume.bytes, &mut self.volume.trash_bytes];
        for sum in sums.into_iter().take(if inode.trash > 0 { 2 } else { 1 }) {
            *sum = sum.wrapping_sub(inode.attr.size).wrapping_add(size);
        }
        inode.attr.size = size;
        Ok(())
    }

    pub(super) fn session_use(&self, session: u64) -> Result<Option<pb::SessionUseRecord>, Status> {
        session_use(&self.kv, session)
    }

    pub(super) fn put_session_use(&mut self, session: u64, record: &pb::SessionUseRecord) {
        put_session_use(&mut self.kv, session, record);
    }
}

/// An inode without owner and mode.
pub(super) fn blank(id: u64, kind: FileKind, now_ns: i64) -> Inode {
    let is_dir = kind == FileKind::Directory;
    let attr = pb::Attr {
        inode: id,
        kind: kind.into(),
        nlink: if is_dir { 2 } else { 1 },
        atime_ns: now_ns,
        mtime_ns: now_ns,
        ctime_ns: now_ns,
        btime_ns: now_ns,
        // Numbers are never reused, so each has one generation.
        generation: 1,
        version: 1,
        ..Default::default()
    };
    Inode {
        attr,
        symlink_target: Bytes::new(),
        parent: 0,
        next_cookie: if is_dir { limits::FIRST_COOKIE } else { 0 },
        entries: 0,
        truncate_version: 0,
        truncating_to: None,
        length_bound: 0,
        attempted_end: 0,
        writers: 0,
        access_acl: None,
        default_acl: None,
        xattr_bytes: 0,
        xattr_name_bytes: 0,
        trash: 0,
    }
}

pub(super) fn volume(kv: &dyn KvRead) -> Result<pb::VolumeRecord, Status> {
    let Some(bytes) = kv.get(&keys::VOLUME) else {
        return Err(Status::new(Code::NotServing, "the volume is not formatted"));
    };
    decode(&bytes)
}

pub(super) fn session_use(
    kv: &dyn KvRead,
    session: u64,
) -> Result<Option<pb::SessionUseRecord>, Status> {
    kv.get(&keys::one(Tag::SessionUse, session)).map(|bytes| decode(&bytes)).transpose()
}

pub(super) fn put_session_use(kv: &mut dyn Kv, session: u64, record: &pb::SessionUseRecord) {
    kv.put(&keys::one(Tag::SessionUse, session), Bytes::from(record.encode_to_vec()));
}
