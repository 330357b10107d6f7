//! Small files: read from the namespace and written into it, until they move to chunks.
//!
//! A write is kept here and told with the next report of the file: at fsync, at close, and from time to
//! time. So a small file costs no storage node, and its bytes are as durable as its name once the report
//! is answered. The first write beyond the bound, of whichever client, moves the file (`SpillOp`).

use std::{ops::Range, sync::Arc};

use ff2_client_core::lengths::Report;
use ff2_fabric::SharedBuf;
use ff2_proto::{Code, Status, pb, pb::ns_request::Op};

use super::File;
use crate::{
    Result,
    client::Shared,
    inodes::{OpenInode, Place, Registered},
    limits,
};

/// What a report says: opens that the registration consists of, what was written to chunks, what was
/// written here.
pub(crate) type Said = (u32, Option<Report>, Vec<pb::InlineWrite>);

impl File {
    /// The bytes of a range within the file; `None` if they lie in chunks.
    pub(super) async fn read_inline(&self, range: &Range<u64>) -> Result<Option<SharedBuf>> {
        let mut why = Status::new(Code::Busy, "the file changes faster than it can be read");
        for _ in 0..limits::GRANT_RENEWALS_MAX {
            match self.inode.place() {
                Place::Chunks => return Ok(None),
                Place::Leaving => {
                    self.shared().leave_inline(&self.inode, &self.inode.opener()).await?;
                    return Ok(None);
                }
                Place::Namespace => {}
            }
            if let Some(bytes) =
                self.inode.read_inline(range, |known| self.shared().is_fresh(known))
            {
                return Ok(Some(SharedBuf::from(bytes)));
            }
            let (inode, grant) = (self.inode.id.0, self.inode.read_grant());
            let asked = self.caller.read(Op::ReadInline(pb::ReadInlineOp { inode, grant })).await;
            let reply = match asked {
                Err(failure) if failure.code == Code::GrantExpired => {
                    self.renew_grant().await?;
                    why = failure;
                    continue;
                }
                reply => reply?,
            };
            self.inode.took_inline(&reply);
            // However short the cache time is: this is the answer to this read.
            if let Some(bytes) = self.inode.read_inline(range, |_| true) {
                return Ok(Some(SharedBuf::from(bytes)));
            }
        }
        Err(why)
    }
}

impl Shared {
    /// Keeps a write of an inline file. False: it must go to chunks, where the file lies now.
    pub(super) async fn write_inline(
        self: &Arc<Self>,
        open: &Arc<OpenInode>,
        cred: &pb::Credentials,
        offset: u64,
        bytes: &[u8],
    ) -> Result<bool> {
        if open.place() == Place::Chunks {
            return Ok(false);
        }
        {
            let _staying = open.moving.read().await;
            if open.write_inline(offset, bytes) {
                self.inodes.wrote(open, offset + bytes.len() as u64);
                return Ok(true);
            }
        }
        self.leave_inline(open, cred).await?;
        Ok(false)
    }

    /// Moves a file to chunks, and after it the writes that were kept for the namespace.
    pub(crate) async fn leave_inline(
        self: &Arc<Self>,
        open: &Arc<OpenInode>,
        cred: &pb::Credentials,
    ) -> Result<()> {
        let _alone = open.moving.write().await;
        if open.place() == Place::Chunks {
            return Ok(());
        }
        let spill = |_| Op::Spill(pb::SpillOp { inode: open.id.0 });
        let (reply, _) = self.mutate_registered(open, cred, spill).await?;
        let (writes, _) = open.inline_writes();
        for write in writes {
            let (mut at, bytes) = (0, SharedBuf::from(write.bytes));
            while at < bytes.len() {
                let offset = u64::from(write.offset) + at as u64;
                at += self.write_chunks(open, cred, offset, bytes.slice(at..)).await?;
            }
        }
        open.left_inline(reply.attr.as_ref());
        Ok(())
    }

    /// Tells the namespace what this client wrote into a file. With the inode's gate held.
    pub(super) async fn tell(
        self: &Arc<Self>,
        open: &Arc<OpenInode>,
        cred: &pb::Credentials,
        op: impl Fn(Said) -> Op,
    ) -> Result<Registered> {
        loop {
            let report = self.inodes.report(open.id);
            let (writes, number) = open.inline_writes();
            let said = |opens| op((opens, report, writes.clone()));
            match self.mutate_registered(open, cred, said).await {
                Ok((reply, registered)) => {
                    open.inline_told(number, &reply);
                    self.took_report(report, reply);
                    return Ok(registered);
                }
                Err(failure) if failure.code == Code::NotInline => {
                    self.leave_inline(open, cred).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}
