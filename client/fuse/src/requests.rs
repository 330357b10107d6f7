//! Requests as tasks: who asks, how an outcome becomes a reply.

use std::{future::Future, sync::Arc, time::Duration};

use ff2_client::{Caller, Code, Result, Status, Trust, pb};
use ff2_daemon::Operation;
use ff2_fuse_kernel::{Answer, Asker, Attr, Errno, Interrupted, Reply};

use crate::{
    attr::errno,
    limits,
    mounted::Mounted,
    ops::lock::{self, Asked},
    who,
};

/// The kernel's side of a mount.
#[derive(Debug)]
pub(crate) struct Requests(pub(crate) Arc<Mounted>);

/// One request in progress.
pub(crate) struct Work {
    pub(crate) at: Arc<Mounted>,
    /// What it is about.
    pub(crate) inode: u64,
    /// What the answers may be trusted for.
    pub(crate) trust: Trust,
    operation: Arc<Operation>,
    who: Asker,
    interrupted: Arc<Interrupted>,
    answer: Answer,
}

/// Where an entry is that is answered.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) parent: u64,
    pub(crate) name: Vec<u8>,
}

impl Work {
    pub(crate) fn begin(
        at: Arc<Mounted>,
        op: &'static str,
        inode: u64,
        who: Asker,
        (interrupted, answer): (Interrupted, Answer),
    ) -> Self {
        let operation = Arc::new(at.operations.begin(op, format!("inode {inode}")));
        let trust = at.client.trust();
        Self { at, inode, trust, operation, who, interrupted: Arc::new(interrupted), answer }
    }

    pub(crate) fn caller(&self) -> Caller {
        let caller = if self.at.for_all_users {
            self.at.client.caller(self.at.groups.credentials(self.who))
        } else {
            self.at.client.me()
        };
        caller.with_trust(self.trust.clone())
    }

    /// Where the kernel wants the bytes of a read.
    pub(crate) fn room(&self) -> Option<&Arc<ff2_client::BufPool>> {
        self.answer.room()
    }

    pub(crate) fn reply(self, outcome: std::result::Result<Reply, Errno>) {
        self.answer.send(outcome.unwrap_or_else(Reply::error));
    }

    /// With what the kernel may keep for a while: for no longer than this.
    pub(crate) fn reply_kept(self, outcome: std::result::Result<(Reply, Duration), Errno>) {
        let Self { at, trust, answer, .. } = self;
        let (reply, kept) = outcome.unwrap_or_else(|errno| (Reply::error(errno), Duration::ZERO));
        answer.send(reply);
        at.answered(&trust, kept);
    }

    /// Answers with attributes, in this form, and for how long the kernel may keep them.
    pub(crate) fn reply_attr(
        self,
        outcome: std::result::Result<pb::Attr, Errno>,
        form: impl FnOnce(&Attr, Duration) -> Reply,
    ) {
        let outcome = outcome.map(|attr| {
            let (attr, ttl) = self.at.tell(&attr, &self.trust);
            (form(&attr, ttl), ttl)
        });
        self.reply_kept(outcome);
    }

    /// Runs an operation that changes nothing, counts its outcome and turns a failure into the
    /// kernel's number. Gives it up when the process behind it is being killed: the kernel waits for
    /// our answer even then.
    pub(crate) async fn run<T>(
        &self,
        operation: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Errno> {
        let outcome = tokio::select! {
            // Who need not wait sets no timer.
            biased;
            outcome = operation => outcome.map_err(|failure| {
                tracing::debug!(%failure, "refused");
                errno(&failure)
            }),
            () = who::is_killed(self.who.pid, self.interrupted.wait()) => Err(Errno::EINTR),
        };
        if outcome.is_err() {
            self.operation.failed();
        }
        outcome
    }

    /// Takes a lock. The answer waits for the operation's own end: the kernel must not hear that a
    /// killed process is done, and tell the end of its locks, while one may still come. Only if the
    /// namespace is silent the answer is given up, and what comes then is freed.
    pub(crate) async fn lock(&self, asked: Asked, wait: bool) -> std::result::Result<(), Errno> {
        let (at, caller, interrupted) = (self.at.clone(), self.caller(), self.interrupted.clone());
        let listed = self.operation.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        let task = async move {
            let outcome = if wait {
                lock::set(&at, &caller, asked, interrupted.wait()).await
            } else {
                lock::try_set(&at, &caller, asked).await.map(|()| true)
            };
            let holds = matches!(outcome, Ok(true));
            if tell.send(outcome).is_err()
                && holds
                && let Err(failure) = lock::unlock(&at, &caller, asked).await
            {
                tracing::warn!(%failure, "a lock of a killed process is kept");
            }
            drop(listed);
        };
        self.at.requests.spawn(task);
        let given_up = async {
            who::is_killed(self.who.pid, self.interrupted.wait()).await;
            tokio::time::sleep(limits::LOCK_CANCEL_PATIENCE).await;
        };
        let outcome = tokio::select! {
            outcome = told => match outcome {
                Ok(Ok(true)) => Ok(()),
                // The kernel begins anew if the signal's handler wants it.
                Ok(Ok(false)) => Err(Errno::EINTR),
                Ok(Err(failure)) => Err(errno(&failure)),
                Err(_) => Err(Errno::EIO),
            },
            () = given_up => Err(Errno::EINTR),
        };
        if outcome.is_err() {
            self.operation.failed();
        }
        outcome
    }

    /// As [`Work::run`], but only the answer is given up: the operation has a task of its own and
    /// goes on to its end, so that no change is left half-way. What it returned is dropped then.
    pub(crate) async fn run_to_the_end<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> std::result::Result<T, Errno> {
        let listed = self.operation.clone();
        let task = async move {
            let outcome = operation.await;
            drop(listed);
            outcome
        };
        let task = self.at.requests.spawn(task);
        self.run(async {
            let stopped = |error| Err(Status::new(Code::Internal, format!("{error}")));
            task.await.unwrap_or_else(stopped)
        })
        .await
    }

    /// Goes on as a task on this thread, which replies.
    pub(crate) fn spawn<F>(self, run: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let requests = self.at.requests.clone();
        requests.spawn(run(self));
    }

    /// Runs a change that answers nothing but its success.
    pub(crate) fn answer_empty<F>(self, run: impl FnOnce(Arc<Mounted>, Caller) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let change = run(self.at.clone(), self.caller());
        self.spawn(|work| async move {
            let outcome = work.run_to_the_end(change).await;
            work.reply(outcome.map(|()| Reply::empty()));
        });
    }

    /// Runs a change that makes an entry of this name in the directory that it is about; the kernel then
    /// has a reference to it.
    pub(crate) fn answer_entry<F>(
        self,
        name: Vec<u8>,
        run: impl FnOnce(Arc<Mounted>, Caller, Place) -> F,
    ) where
        F: Future<Output = Result<pb::Attr>> + Send + 'static,
    {
        let place = Place { parent: self.inode, name };
        let change = run(self.at.clone(), self.caller(), place.clone());
        self.spawn(|work| async move {
            let outcome = work.run_to_the_end(change).await;
            let outcome = outcome.map(|attr| {
                let entry = work.at.tell_entry(&work.trust, &place, &attr);
                (Reply::entry(&entry), entry.kept())
            });
            work.reply_kept(outcome);
        });
    }
}
