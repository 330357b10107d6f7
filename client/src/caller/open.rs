//! Opening and creating: from a name or an inode to a [`File`].

use std::sync::Arc;

use ff2_proto::{ChainId, Code, InodeId, Status, layout, pb, pb::FileKind, pb::ns_request::Op};

use super::{Caller, incomplete};
use crate::{File, Result, client::Shared, inodes::Hold, limits};

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenHow {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
    /// Each write goes to the end.
    pub append: bool,
    /// To run it: execute permission is enough.
    pub execute: bool,
    /// Make the file, with this mode, if there is none.
    pub create: Option<u32>,
    /// With `create`: fail if there is one.
    pub exclusive: bool,
}

impl OpenHow {
    pub fn read() -> Self {
        Self { read: true, ..Self::default() }
    }

    pub fn write() -> Self {
        Self { write: true, ..Self::default() }
    }

    pub fn read_write() -> Self {
        Self { read: true, write: true, ..Self::default() }
    }

    #[must_use]
    pub fn create(mut self, mode: u32) -> Self {
        self.create = Some(mode);
        self
    }

    #[must_use]
    pub fn create_new(mut self, mode: u32) -> Self {
        self.create = Some(mode);
        self.exclusive = true;
        self
    }

    #[must_use]
    pub fn truncate(mut self) -> Self {
        self.truncate = true;
        self
    }

    #[must_use]
    pub fn append(mut self) -> Self {
        self.append = true;
        self.write = true;
        self
    }
}

impl OpenHow {
    pub(crate) fn op(self, inode: InodeId) -> pb::OpenOp {
        pb::OpenOp {
            inode: inode.0,
            read: self.read,
            write: self.write,
            truncate: self.truncate,
            execute: self.execute,
        }
    }
}

impl Caller {
    /// Opens a file by its inode. `create` is not looked at. A file that was removed, and that nobody here
    /// has open, is a stale inode.
    pub async fn open(&self, inode: InodeId, how: OpenHow) -> Result<File> {
        let hold = Hold::new(&self.shared, inode);
        let open = self.shared.inodes.entry(inode);
        let op = how.op(inode);
        // A truncating open is a cut: what was written here before it comes first.
        let alone = if how.truncate { Some(open.gate.write().await) } else { None };
        if how.truncate {
            self.shared.report_length(inode).await?;
        }
        let (reply, session) = if how.write || how.truncate {
            self.mutate_in(Op::Open(op)).await?
        } else {
            (self.read(Op::Open(op)).await?, self.shared.session.id())
        };
        let attr = reply.attr.as_ref().ok_or_else(|| incomplete("attributes"))?;
        let chains = self.shared.file_chains(attr).await?;
        // The notice of an orphan that was not open here may have been acknowledged before this open: then
        // nobody holds it, and its data goes. An open handle holds it.
        let is_held = attr.nlink > 0 || open.has_handles() || hold.keeps(reply.orphan_seq);
        open.opened(&op, &reply, session, chains, &self.cred);
        if how.read && !how.write && !how.truncate {
            open.took_inline(&reply);
        }
        if how.truncate {
            self.shared.inodes.truncated(inode, 0);
        }
        let file = File::new(self.clone(), open.clone(), hold, how);
        if !is_held {
            drop(alone);
            file.close().await?;
            return Err(Status::new(Code::StaleInode, "the file was removed"));
        }
        Ok(file)
    }

    /// Makes and opens a file; opens the one that is there unless `how.exclusive`. The last value tells
    /// whether it was made.
    pub async fn create(
        &self,
        parent: InodeId,
        name: &[u8],
        how: OpenHow,
    ) -> Result<(File, pb::Attr, bool)> {
        let create = pb::CreateOp { name: name.to_vec().into(), ..self.create_op(parent, how) };
        self.send_create(create, how).await
    }

    /// Makes and opens a file without a name, which goes with its last handle. As long as it is written
    /// here it can get a name by [`Caller::link`], unless `how.exclusive`. It must be opened for writing.
    pub async fn create_unnamed(&self, parent: InodeId, how: OpenHow) -> Result<(File, pb::Attr)> {
        let create = pb::CreateOp { unnamed: true, ..self.create_op(parent, how) };
        let (file, attr, _) = self.send_create(create, how).await?;
        Ok((file, attr))
    }

    fn create_op(&self, parent: InodeId, how: OpenHow) -> pb::CreateOp {
        pb::CreateOp {
            parent: parent.0,
            mode: how.create.unwrap_or(0o644),
            exclusive: how.exclusive,
            truncate: how.truncate,
            read: how.read,
            write: how.write,
            inline: self.shared.options.inline,
            umask: self.umask,
            ..pb::CreateOp::default()
        }
    }

    async fn send_create(
        &self,
        create: pb::CreateOp,
        how: OpenHow,
    ) -> Result<(File, pb::Attr, bool)> {
        let creating = self.shared.inodes.creating();
        let (reply, session) = self.mutate_in(Op::Create(create)).await?;
        let mut attr = reply.attr.ok_or_else(|| incomplete("attributes"))?;
        let inode = InodeId(attr.inode);
        let hold = Hold::new(&self.shared, inode);
        drop(creating);
        let open = self.shared.inodes.entry(inode);
        let chains = self.shared.file_chains(&attr).await?;
        let op = how.op(inode);
        open.opened(&op, &reply, session, chains, &self.cred);
        if reply.created {
            open.took_inline(&reply);
        }
        if how.truncate && !reply.created {
            self.shared.inodes.truncated(inode, 0);
        }
        self.shared.inodes.merge(&mut attr);
        Ok((File::new(self.clone(), open, hold, how), attr, reply.created))
    }
}

impl Shared {
    /// The chains of a file, by its layout. A table made a moment ago may not be known here yet.
    pub(crate) async fn file_chains(&self, attr: &pb::Attr) -> Result<Arc<[ChainId]>> {
        if attr.kind() != FileKind::Regular {
            let directory = attr.kind() == FileKind::Directory;
            let code = if directory { Code::IsDirectory } else { Code::InvalidArgument };
            return Err(Status::new(code, "only regular files have data"));
        }
        let layout = attr.layout.ok_or_else(|| incomplete("layout"))?;
        if !layout.chunk_size.is_power_of_two() {
            let why = format!("a chunk size of {} bytes", layout.chunk_size);
            return Err(Status::new(Code::Internal, why));
        }
        let mut routing = self.routing.get();
        let mut table = routing.table_chains(&layout);
        if table.is_none() {
            routing = self.routing.wait_newer(routing.version, limits::CACHE).await;
            table = routing.table_chains(&layout);
        }
        let chains = layout::stripe_chains(&table.unwrap_or_default(), layout.stripe, layout.seed);
        if chains.is_empty() {
            let why = format!("chain table {} is empty or not known here", layout.table);
            return Err(Status::new(Code::NotServing, why));
        }
        Ok(chains.into())
    }
}
