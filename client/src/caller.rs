//! The namespace by inode number, on behalf of one user.

mod lock;
mod open;
mod xattr;

use std::sync::Arc;

use ff2_proto::{Code, InodeId, Status, pb, pb::ns_request::Op};

pub use lock::{LockRange, LockWait};
pub use open::OpenHow;
pub use xattr::XattrHow;

use crate::{Result, client::Shared, coherence::Trust};

/// One user's view of a volume. Cheap to make and to clone.
#[derive(Clone)]
pub struct Caller {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cred: pb::Credentials,
    pub(crate) umask: u32,
    /// Learns what the answers may be trusted for.
    pub(crate) trust: Option<Trust>,
}

/// What [`Caller::make_node`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Directory,
    Symlink { target: Vec<u8> },
    Regular,
    Fifo,
    Socket,
    CharDevice { rdev: u64 },
    BlockDevice { rdev: u64 },
}

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChange {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
    /// Through a handle that is open for writing, which stands for the permission.
    pub by_handle: bool,
    /// What lends privileges goes: the file is being written.
    pub drop_privileges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// The namespace's clock.
    Now,
    /// Nanoseconds since 1970.
    At(i64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameHow {
    /// What has the new name is replaced.
    #[default]
    Replace,
    NoReplace,
    Exchange,
}

impl Caller {
    pub fn credentials(&self) -> &pb::Credentials {
        &self.cred
    }

    /// What is made loses these permissions, unless its directory has a default ACL.
    #[must_use]
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = umask;
        self
    }

    /// For one request: what its answers may be trusted for is told to `trust`.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    pub async fn lookup(&self, parent: InodeId, name: &[u8]) -> Result<pb::Attr> {
        let found = self.find(parent, name).await?;
        found.ok_or_else(|| Code::NotFound.into())
    }

    /// As [`Caller::lookup`]; that there is no such name (`None`) is an answer, and can be trusted too.
    pub async fn find(&self, parent: InodeId, name: &[u8]) -> Result<Option<pb::Attr>> {
        let name = name.to_vec().into();
        let op = pb::LookupOp { parent: parent.0, name, absent_is_answer: true };
        match self.read(Op::Lookup(op)).await {
            Ok(reply) if reply.attr.is_none() => Ok(None),
            Ok(reply) => Ok(Some(self.attr_of(reply)?)),
            // So an earlier release says it.
            Err(failure) if failure.code == Code::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub async fn get_attr(&self, inode: InodeId) -> Result<pb::Attr> {
        let op = pb::GetAttrOp { inode: inode.0 };
        self.attr_of(self.read(Op::GetAttr(op)).await?)
    }

    pub async fn access(&self, inode: InodeId, mask: u32) -> Result<()> {
        let op = pb::AccessOp { inode: inode.0, mask };
        self.read(Op::Access(op)).await.map(drop)
    }

    pub async fn read_link(&self, inode: InodeId) -> Result<Vec<u8>> {
        let op = pb::ReadLinkOp { inode: inode.0 };
        let reply = self.read(Op::ReadLink(op)).await?;
        if let Some(attr) = &reply.attr {
            self.shared.looked_into(attr, &self.cred);
        }
        Ok(reply.target.to_vec())
    }

    /// A page of a directory after a cookie (0: from the start), and whether it is the last. With
    /// `plus` the entries have all their attributes, else only kind and inode.
    pub async fn read_dir_page(
        &self,
        inode: InodeId,
        after_cookie: u64,
        limit: u32,
        plus: bool,
    ) -> Result<(Vec<pb::Entry>, bool)> {
        let op = pb::ReadDirOp { inode: inode.0, after_cookie, limit, plus };
        let mut reply = self.read(Op::ReadDir(op)).await?;
        if let Some(attr) = reply.attr.filter(|_| after_cookie == 0) {
            self.shared.looked_into(&attr, &self.cred);
        }
        for attr in reply.entries.iter_mut().filter_map(|entry| entry.attr.as_mut()) {
            if plus {
                self.shared.journal.overlay(attr);
                self.shared.inodes.merge(attr);
                self.shared.access_times.overlay(attr);
            }
        }
        Ok((reply.entries, reply.end))
    }

    /// Space and inodes: of the quota that limits this inode most, or else of the volume.
    pub async fn stat_fs(&self, inode: InodeId) -> Result<pb::StatFs> {
        let reply = self.read(Op::StatFs(pb::StatFsOp { inode: inode.0 })).await?;
        reply.statfs.ok_or_else(|| incomplete("statfs"))
    }

    /// Walks a path on the server, from `base`.
    pub async fn resolve(&self, base: InodeId, path: &[u8], follow_last: bool) -> Result<pb::Attr> {
        let op = pb::ResolveOp { base: base.0, path: path.to_vec().into(), follow_last };
        self.attr_of(self.read(Op::Resolve(op)).await?)
    }

    pub async fn make_node(
        &self,
        parent: InodeId,
        name: &[u8],
        kind: NodeKind,
        mode: u32,
    ) -> Result<pb::Attr> {
        use pb::FileKind as K;
        let (kind, rdev, symlink_target) = match kind {
            NodeKind::Directory => (K::Directory, 0, Vec::new()),
            NodeKind::Symlink { target } => (K::Symlink, 0, target),
            NodeKind::Regular => (K::Regular, 0, Vec::new()),
            NodeKind::Fifo => (K::Fifo, 0, Vec::new()),
            NodeKind::Socket => (K::Socket, 0, Vec::new()),
            NodeKind::CharDevice { rdev } => (K::CharDevice, rdev, Vec::new()),
            NodeKind::BlockDevice { rdev } => (K::BlockDevice, rdev, Vec::new()),
        };
        let op = pb::MakeNodeOp {
            parent: parent.0,
            name: name.to_vec().into(),
            kind: kind.into(),
            mode,
            rdev,
            symlink_target: symlink_target.into(),
            umask: self.umask,
            inode: 0,
        };
        self.attr_of(self.mutate(Op::MakeNode(op)).await?)
    }

    pub async fn link(&self, inode: InodeId, parent: InodeId, name: &[u8]) -> Result<pb::Attr> {
        let op = pb::LinkOp { inode: inode.0, parent: parent.0, name: name.to_vec().into() };
        self.attr_of(self.mutate(Op::Link(op)).await?)
    }

    /// Removes a name: of a directory (which must be empty) or of anything else, as asked.
    pub async fn unlink(&self, parent: InodeId, name: &[u8], directory: bool) -> Result<()> {
        let op = pb::UnlinkOp { parent: parent.0, name: name.to_vec().into(), directory };
        self.took_name(self.mutate(Op::Unlink(op)).await?);
        Ok(())
    }

    pub async fn rename(
        &self,
        parent: InodeId,
        name: &[u8],
        new_parent: InodeId,
        new_name: &[u8],
        how: RenameHow,
    ) -> Result<()> {
        let op = pb::RenameOp {
            parent: parent.0,
            name: name.to_vec().into(),
            new_parent: new_parent.0,
            new_name: new_name.to_vec().into(),
            no_replace: how == RenameHow::NoReplace,
            exchange: how == RenameHow::Exchange,
        };
        self.took_name(self.mutate(Op::Rename(op)).await?);
        Ok(())
    }

    /// Changes attributes. What this client wrote into the file and did not report is reported
    /// first, so that a time set now stays, and a cut is measured against the real length.
    pub async fn set_attr(&self, inode: InodeId, change: AttrChange) -> Result<pb::Attr> {
        let open = self.shared.inodes.get(inode);
        let touches_content = change.size.is_some() || change.mtime.is_some();
        let _alone = match &open {
            Some(open) if touches_content => Some(open.gate.write().await),
            _ => None,
        };
        if touches_content {
            self.shared.report_length(inode).await?;
        }
        if change.atime.is_some() {
            self.shared.forget_access(inode).await;
        }
        let op = set_attr_op(inode, change);
        let reply = match &open {
            Some(open) if change.by_handle => {
                let set = |_| Op::SetAttr(op);
                let reply = self.shared.mutate_registered(open, &self.cred, set).await?.0;
                self.note(&reply);
                reply
            }
            _ => self.mutate(Op::SetAttr(op)).await?,
        };
        if let Some(size) = change.size {
            self.shared.inodes.truncated(inode, size);
            if let Some(open) = &open {
                open.content_changed();
            }
        }
        self.attr_of(reply)
    }

    pub async fn set_layout(&self, inode: InodeId, layout: pb::Layout) -> Result<pb::Attr> {
        let op = pb::SetLayoutOp { inode: inode.0, layout: Some(layout) };
        self.attr_of(self.mutate(Op::SetLayout(op)).await?)
    }

    pub(crate) async fn read(&self, op: Op) -> Result<pb::NsReply> {
        let reply = self.shared.read(&self.cred, op).await?;
        self.note(&reply);
        Ok(reply)
    }

    pub(crate) async fn mutate(&self, op: Op) -> Result<pb::NsReply> {
        Ok(self.mutate_in(op).await?.0)
    }

    pub(crate) async fn mutate_in(&self, op: Op) -> Result<(pb::NsReply, u64)> {
        let (reply, session) = self.shared.mutate_in(&self.cred, op).await?;
        self.note(&reply);
        Ok((reply, session))
    }

    fn note(&self, reply: &pb::NsReply) {
        if let Some(trust) = &self.trust {
            trust.note(reply);
        }
    }

    /// What lost a name may be open here: its handles learn how many names are left.
    fn took_name(&self, reply: pb::NsReply) {
        if let Some(mut attr) = reply.replaced_attr {
            self.shared.inodes.merge(&mut attr);
        }
    }

    pub(crate) fn attr_of(&self, reply: pb::NsReply) -> Result<pb::Attr> {
        let mut attr = reply.attr.ok_or_else(|| incomplete("attributes"))?;
        self.shared.journal.overlay(&mut attr);
        self.shared.inodes.merge(&mut attr);
        self.shared.access_times.overlay(&mut attr);
        Ok(attr)
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("cred", &self.cred).finish_non_exhaustive()
    }
}

pub(crate) fn incomplete(what: &str) -> Status {
    Status::new(Code::Internal, format!("the namespace's answer has no {what}"))
}

fn set_attr_op(inode: InodeId, change: AttrChange) -> pb::SetAttrOp {
    let at = |time: Option<TimeChange>| match time {
        Some(TimeChange::At(ns)) => Some(ns),
        Some(TimeChange::Now) | None => None,
    };
    pb::SetAttrOp {
        inode: inode.0,
        mode: change.mode,
        uid: change.uid,
        gid: change.gid,
        size: change.size,
        atime_ns: at(change.atime),
        mtime_ns: at(change.mtime),
        atime_now: change.atime == Some(TimeChange::Now),
        mtime_now: change.mtime == Some(TimeChange::Now),
        by_handle: change.by_handle,
        drop_privileges: change.drop_privileges,
    }
}
