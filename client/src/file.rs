//! An open file.

mod ahead;
mod allocate;
mod append;
mod behind;
mod inline;
mod read;
mod room;
mod write;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ff2_client_core::lengths::Report;
use ff2_proto::{Code, InodeId, Status, pb, pb::ns_request::Op};
use parking_lot::Mutex;
use tokio::task::JoinError;

use crate::{
    AttrChange, Caller, OpenHow, Result,
    client::Shared,
    inodes::{Hold, OpenInode},
};
use ahead::Ahead;
use inline::Said;

/// A file that is open. Reads and writes may run side by side; writes that overlap take effect in
/// the order of their calls.
///
/// [`File::close`] reports what was written and says whether that worked. A file that is dropped is
/// closed in the background.
pub struct File {
    caller: Caller,
    inode: Arc<OpenInode>,
    how: OpenHow,
    ahead: Mutex<Ahead>,
    /// Failures of writes behind that this handle told, or that came before it.
    seen_failures: AtomicU64,
    /// Taken by the close.
    hold: Option<Hold>,
}

impl File {
    pub(crate) fn new(caller: Caller, inode: Arc<OpenInode>, hold: Hold, how: OpenHow) -> Self {
        let seen_failures = AtomicU64::new(inode.behind.failures());
        let ahead = Mutex::new(Ahead::default());
        // The trust was for the answer to the open.
        let caller = Caller { trust: None, ..caller };
        Self { caller, inode, how, ahead, seen_failures, hold: Some(hold) }
    }

    pub fn inode(&self) -> InodeId {
        self.inode.id
    }

    pub fn how(&self) -> OpenHow {
        self.how
    }

    /// The newest attributes that this client saw, with its own unreported writes; asks nobody.
    pub fn known_attr(&self) -> pb::Attr {
        let (mut attr, _) = self.inode.attr();
        self.shared().inodes.merge(&mut attr);
        attr
    }

    /// As if its bytes were read here now: for who may have them without asking, like a kernel with pages of it. True
    /// if that changes the access time.
    pub fn accessed(&self) -> bool {
        self.shared().accessed(&self.inode, &self.caller.cred)
    }

    /// The attributes as they are now.
    pub async fn attr(&self) -> Result<pb::Attr> {
        self.caller.get_attr(self.inode.id).await
    }

    /// Cuts or extends the file; what is new reads as zeros.
    pub async fn truncate(&self, size: u64) -> Result<pb::Attr> {
        self.check_writable()?;
        let change = AttrChange { size: Some(size), by_handle: true, ..AttrChange::default() };
        self.caller.set_attr(self.inode.id, change).await
    }

    /// Makes the file's length and times, as this client wrote them, known to everybody, and the bytes of a
    /// small file and those written behind durable. Others are durable when their write returns.
    pub async fn fsync(&self) -> Result<()> {
        self.inode.check_alive()?;
        self.settle().await?;
        self.shared().report_length_gated(self.inode.id).await?;
        self.shared().settle_journal(self.shared().deadline()).await?;
        self.inode.check_alive()
    }

    /// What `close(2)` waits for: other clients that open the file after it see all that was
    /// written. The file stays usable.
    pub async fn flush(&self) -> Result<()> {
        if !self.how.write {
            return Ok(());
        }
        self.settle().await?;
        if self.shared().inodes.report(self.inode.id).is_none() {
            return Ok(());
        }
        self.inode.check_alive()?;
        // Waits for writes in flight: their lengths belong to this flush.
        let _alone = self.inode.gate.write().await;
        let (attr, _) = self.inode.attr();
        // Another open must be possible if the file is written again after this flush.
        let may_open_again =
            attr.nlink > 0 && (attr.mode & 0o200 != 0 || self.caller.cred.uid == 0);
        let sole = self.inode.writers() == 1 && may_open_again;
        if !sole {
            return self.shared().report_length(self.inode.id).await;
        }
        // The only writer reports and ends its registration in one step; another write begins it anew.
        self.deregister().await
    }

    /// Reports and lets go.
    pub async fn close(mut self) -> Result<()> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let result = self.finish().await;
        drop(hold);
        result
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.caller.shared
    }

    /// The end of a handle, its hold still in place.
    async fn finish(&self) -> Result<()> {
        if !self.how.write {
            self.inode.handle_closed(self.how);
            return Ok(());
        }
        let settled = self.settle().await;
        let _alone = self.inode.gate.write().await;
        let last = self.inode.handle_closed(self.how) == 0;
        self.inode.check_alive()?;
        if last {
            self.deregister().await?;
        } else {
            self.shared().report_length(self.inode.id).await?;
        }
        settled
    }

    /// Registers as a writer if a flush, or the end of the session, ended the registration.
    async fn register(&self) -> Result<()> {
        self.shared().register(&self.inode, &self.caller.cred).await
    }

    /// Reports the length and ends the registration. With the gate held alone.
    async fn deregister(&self) -> Result<()> {
        let shared = self.shared();
        shared.settle(&self.inode, |_| true).await;
        let nothing_new = shared.inodes.report(self.inode.id).is_none();
        if nothing_new && self.inode.registered(shared.session.id()) == 0 {
            return Ok(());
        }
        let close = |(opens, report, inline_writes): Said| {
            Op::Close(pb::CloseOp {
                inode: self.inode.id.0,
                length_at_least: report.map_or(0, |report| report.length_at_least),
                attempted_end: report.map_or(0, |report| report.attempted_end),
                wrote: report.is_some(),
                mtime_ns: self.inode.mtime_ns(),
                opens,
                inline_writes,
            })
        };
        let ended = shared.tell(&self.inode, &self.caller.cred, close).await?;
        self.inode.deregistered(ended);
        Ok(())
    }

    async fn renew_grant(&self) -> Result<()> {
        self.shared().renew_grant(&self.inode, &self.caller.cred, self.reopen_op()).await
    }

    fn reopen_op(&self) -> pb::OpenOp {
        OpenHow { truncate: false, ..self.how }.op(self.inode.id)
    }

    fn check_writable(&self) -> Result<()> {
        if self.how.write {
            Ok(())
        } else {
            Err(Status::new(Code::BadHandle, "the file is not open for writing"))
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        if !self.how.write {
            self.inode.handle_closed(self.how);
            return;
        }
        // The report needs a runtime; without one the session's end will report for us.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.inode.handle_closed(self.how);
            return;
        };
        let remains = Self {
            caller: self.caller.clone(),
            inode: self.inode.clone(),
            how: self.how,
            ahead: Mutex::new(Ahead::default()),
            seen_failures: AtomicU64::new(self.seen_failures.load(Relaxed)),
            hold: None,
        };
        runtime.spawn(async move {
            if let Err(failure) = remains.finish().await {
                tracing::warn!(inode = %remains.inode.id, %failure, "a dropped file was not closed");
            }
            drop(hold);
        });
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("File");
        out.field("inode", &self.inode.id).field("how", &self.how).finish_non_exhaustive()
    }
}

impl Shared {
    /// As [`Self::report_length`], beside writes but not beside a close.
    pub(crate) async fn report_length_gated(self: &Arc<Self>, inode: InodeId) -> Result<()> {
        let Some(open) = self.inodes.get(inode) else { return Ok(()) };
        let _with_others = open.gate.read().await;
        self.report_length(inode).await
    }

    /// Tells the namespace how far this client wrote into an inode, if it does not know. With the
    /// inode's gate held.
    pub(crate) async fn report_length(self: &Arc<Self>, inode: InodeId) -> Result<()> {
        self.settle_inode(inode).await;
        if self.inodes.report(inode).is_none() {
            return Ok(());
        }
        let Some(open) = self.inodes.get(inode) else { return Ok(()) };
        let report_of = |(_, report, inline_writes): Said| {
            Op::ReportLength(pb::ReportLengthOp {
                inode: inode.0,
                length_at_least: report.map_or(0, |report| report.length_at_least),
                attempted_end: report.map_or(0, |report| report.attempted_end),
                mtime_ns: open.mtime_ns(),
                inline_writes,
            })
        };
        self.tell(&open, &open.opener(), report_of).await?;
        Ok(())
    }

    /// Renews an expired grant. In a task of its own: a read that is given up in the middle must not
    /// leave a registration that nobody knows of.
    async fn renew_grant(
        self: &Arc<Self>,
        inode: &Arc<OpenInode>,
        cred: &pb::Credentials,
        op: pb::OpenOp,
    ) -> Result<()> {
        let (shared, inode, cred) = (self.clone(), inode.clone(), cred.clone());
        let renewing = tokio::spawn(async move {
            let (reply, session) = if op.write {
                shared.mutate_in(&cred, Op::Open(op)).await?
            } else {
                (shared.read(&cred, Op::Open(op)).await?, shared.session.id())
            };
            inode.reopened(&op, &reply, session);
            if reply.grant.is_empty() {
                return Err(Status::new(Code::GrantExpired, "the namespace gave no new grant"));
            }
            Ok(())
        });
        let stopped = |error: JoinError| Err(Status::new(Code::Internal, error.to_string()));
        renewing.await.unwrap_or_else(stopped)
    }

    fn took_report(&self, report: Option<Report>, reply: pb::NsReply) {
        // The answer's size first, then the own one goes: a reader between sees it once at least.
        if let Some(mut attr) = reply.attr {
            self.inodes.merge(&mut attr);
        }
        if let Some(report) = report {
            self.inodes.reported(report);
        }
    }
}
