//! What outlives a session: when it expired a new one is opened, and the open files move into it.
//!
//! A file's registration as written belongs to one session. The renewal takes all files over at once,
//! for a bounded time; whoever uses one that it has not come to, or could not reach, registers it
//! itself. So no operation meets a session that does not know its file.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use ff2_proto::{Code, Retry, Status, pb, pb::ns_request::Op};
use futures::{StreamExt, stream};
use tokio::time::timeout_at;

use crate::{
    OpenHow, Result,
    client::Shared,
    inodes::{OpenInode, Registered},
    limits,
};

impl Shared {
    /// Opens a new session in place of the expired `id`, unless somebody did, and takes the open
    /// files over into it. It goes on without its caller.
    pub(crate) async fn renew(self: &Arc<Self>, id: u64, deadline: Instant) -> Result<()> {
        if self.session.closing.load(Ordering::Acquire) {
            return Err(Status::new(Code::SessionExpired, "this client was closed"));
        }
        let shared = self.clone();
        let renewing = tokio::spawn(async move { shared.replace_session(id).await });
        match timeout_at(deadline.into(), renewing).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Status::new(Code::Internal, error.to_string())),
            Err(_) => Err(Status::new(Code::Timeout, "no new session was opened in time")),
        }
    }

    async fn replace_session(self: &Arc<Self>, id: u64) -> Result<()> {
        let _renewing = self.session.renewing.lock().await;
        if self.session.id() != id {
            return Ok(());
        }
        tracing::warn!(session = id, "the session expired; opening a new one");
        self.session.register(&self.own, self.deadline()).await?;
        if self.locks.session_over(id) {
            tracing::warn!(session = id, "locks were lost with the session");
        }
        let session = self.session.id();
        let deadline = Instant::now() + self.session.lease() / 3;
        stream::iter(self.inodes.session_renewed())
            .for_each_concurrent(limits::TAKEN_OVER_TOGETHER, |inode| async move {
                self.take_over(&inode, session, deadline).await;
            })
            .await;
        Ok(())
    }

    async fn take_over(&self, inode: &OpenInode, session: u64, deadline: Instant) {
        let Some(op) = inode.reopen_op() else { return };
        if op.write && inode.registered(session) > 0 {
            // Somebody used it already.
            return;
        }
        let cred = inode.opener();
        let outcome = if op.write {
            self.session.mutate_once(&cred, Op::Open(op), deadline).await
        } else {
            let reply = self.session.read_once(&cred, Op::Open(op), deadline).await;
            reply.map(|reply| (reply, session))
        };
        match outcome {
            Ok((reply, session)) => inode.reopened(&op, &reply, session),
            Err(failure) if failure.retry() == Retry::Never && !is_expiry(&failure) => {
                tracing::warn!(inode = %inode.id, %failure, "an open file was lost with its session");
                inode.lost(failure);
            }
            Err(failure) => {
                tracing::info!(inode = %inode.id, %failure, "an open file is taken over when it is used");
            }
        }
    }

    /// Makes sure that the namespace counts this session as a writer of the inode.
    pub(crate) async fn register(
        self: &Arc<Self>,
        open: &OpenInode,
        cred: &pb::Credentials,
    ) -> Result<()> {
        let is_registered = || open.registered(self.session.id()) > 0;
        if is_registered() {
            return Ok(());
        }
        let _registering = open.registering.lock().await;
        if is_registered() {
            return Ok(());
        }
        let op = OpenHow::write().op(open.id);
        let (reply, session) = self.mutate_in(cred, Op::Open(op)).await?;
        open.reopened(&op, &reply, session);
        Ok(())
    }

    /// A change that the inode's registration stands for, which is made first if there is none: a
    /// flush ended it, or the session is a new one. `op` is told of how many opens it consists.
    pub(crate) async fn mutate_registered(
        self: &Arc<Self>,
        open: &OpenInode,
        cred: &pb::Credentials,
        op: impl Fn(u32) -> Op,
    ) -> Result<(pb::NsReply, Registered)> {
        for _ in 0..limits::RENEWALS_MAX {
            self.register(open, cred).await?;
            let opens = open.registered(self.session.id());
            match self.mutate_in(cred, op(opens)).await {
                Ok((reply, session)) => {
                    open.take_room(&reply, 0);
                    return Ok((reply, Registered { session, opens }));
                }
                // The session was renewed in the middle, and this file not taken over.
                Err(failure)
                    if failure.code == Code::BadHandle
                        && open.registered(self.session.id()) == 0 => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Status::new(Code::SessionExpired, "each new session expired at once"))
    }
}

/// Says nothing about the file: the new session expired too.
fn is_expiry(failure: &Status) -> bool {
    failure.code == Code::SessionExpired
}
