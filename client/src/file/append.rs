//! Appends: one at a time, whichever client they come from.
//!
//! Who appends holds a lock of the file's end at the namespace. A client that got it at once, and with it
//! the inode's callback, keeps it from one append to the next, so that a file with one appender costs
//! nothing more: who wants the lock too breaks the callback, and then it is let go after the append in
//! progress, with what was written reported. Any other lets it go after each append: somebody may be in
//! line who will not ask again. The lock outlives leaders, and ends with the session or the registration
//! as a writer.

use std::{future::Future, pin::Pin, sync::Arc};

use ff2_fabric::SharedBuf;
use ff2_proto::{Code, Status, pb, pb::ns_request::Op};
use tokio::time::timeout_at;

use super::File;
use crate::{Result, client::Shared, inodes::OpenInode, locks::Came};

/// Of the append locks of a session, of which there is one for each inode.
const OWNER: u64 = 0;

impl File {
    /// Writes at the end of the file.
    pub async fn append_buf(&self, bytes: SharedBuf) -> Result<usize> {
        self.check_writable()?;
        self.inode.check_alive()?;
        let _alone = self.inode.gate.write().await;
        let (shared, inode, cred) = (self.shared(), &self.inode, &self.caller.cred);
        shared.settle(inode, |_| true).await;
        shared.make_sure_of_session().await?;
        self.register().await?;
        shared.lock_append(inode, cred).await?;
        let written = async {
            let end = self.end_of_file().await?;
            self.write_gated(end, bytes).await
        };
        let written = written.await;
        let let_go = shared.end_append_unless_kept(inode, cred).await;
        // What was written is written: who appends anew would do it twice.
        if let (Ok(_), Err(failure)) = (&written, let_go) {
            tracing::warn!(inode = %inode.id, %failure, "an append is done and not reported");
        }
        written
    }

    /// Where an append goes, with the lock held: at the end as everybody sees it now.
    async fn end_of_file(&self) -> Result<u64> {
        let shared = self.shared();
        let is_fresh = shared.is_fresh(&self.inode.attr());
        // By its age alone only the end is known that this client wrote itself and did not report.
        let knows = is_fresh && (shared.has_callbacks() || shared.inodes.is_dirty(self.inode.id));
        if !knows {
            return Ok(self.caller.get_attr(self.inode.id).await?.size);
        }
        Ok(shared.inodes.size(&self.inode))
    }
}

impl Shared {
    /// Takes the lock unless this session has it; others are waited for. With the gate held alone.
    async fn lock_append(self: &Arc<Self>, open: &OpenInode, cred: &pb::Credentials) -> Result<()> {
        let deadline = self.deadline();
        while !open.appends_in(self.session.id()) {
            let mut wait = self.locks.wait(OWNER);
            let lock = Some(pb::Lock { ticket: wait.ticket(), ..lock() });
            let op = Op::SetLock(pb::SetLockOp { inode: open.id.0, lock, wait: true });
            let (reply, registered) = self.mutate_registered(open, cred, |_| op.clone()).await?;
            let session = registered.session;
            let promised = reply.callbacks.iter().any(|callback| callback.inode == open.id.0);
            if !reply.granted {
                self.ask_for_locks(&wait, session);
                match timeout_at(deadline.into(), wait.came()).await {
                    Ok(Came::Granted) => {}
                    Ok(Came::SessionOver | Came::GivenUp) => continue,
                    Err(_) => {
                        let detail = "others append to the file, and do not let it go";
                        return Err(Status::new(Code::Timeout, detail));
                    }
                }
            }
            open.append_locked(session, reply.granted && promised);
            if !self.coherence.holds(open.id) {
                // The callback was broken in this moment.
                open.append_wanted();
            }
        }
        Ok(())
    }

    /// Lets the lock go if nobody would say that others want it. With the gate held alone.
    async fn end_append_unless_kept(
        self: &Arc<Self>,
        open: &OpenInode,
        cred: &pb::Credentials,
    ) -> Result<()> {
        if open.keeps_append() { Ok(()) } else { self.end_append(open, cred).await }
    }

    async fn end_append(self: &Arc<Self>, open: &OpenInode, cred: &pb::Credentials) -> Result<()> {
        if !open.appends_in(self.session.id()) {
            return Ok(());
        }
        // The next one asks the namespace where the file ends.
        self.report_length(open.id).await?;
        open.append_unlocked();
        let op = Op::Unlock(pb::UnlockOp { inode: open.id.0, lock: Some(lock()) });
        self.mutate_in(cred, op).await.map(drop)
    }

    /// Others change this inode, or want to append to it. The lock that is held meanwhile goes behind.
    pub(crate) fn let_append_go(self: &Arc<Self>, open: Arc<OpenInode>) {
        open.append_wanted();
        if !open.appends_in(self.session.id()) {
            return;
        }
        let shared = self.clone();
        // Boxed: a report may lead here again.
        let ending: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _alone = open.gate.write().await;
            if let Err(failure) = shared.end_append(&open, &open.opener()).await {
                tracing::warn!(inode = %open.id, %failure, "others wait to append");
            }
        });
        self.runtime.spawn(ending);
    }
}

fn lock() -> pb::Lock {
    pb::Lock { owner: OWNER, append: true, exclusive: true, end: u64::MAX, ..Default::default() }
}
