//! Requests as tasks: who asks, how an outcome becomes a reply.

use std::{future::Future, sync::Arc};

use ff2_client::{Caller, Code, Result, Status, pb};
use ff2_daemon::Operation;
use fuser::{Errno, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, Request};

use crate::{
    attr::{errno, no_attr},
    limits,
    mounted::Mounted,
    ops::lock::{self, Asked},
    who::{self, Who},
};

/// fuser's side of a mount.
#[derive(Debug)]
pub(crate) struct Requests(pub(crate) Arc<Mounted>);

/// One request in progress.
pub(crate) struct Work {
    pub(crate) at: Arc<Mounted>,
    operation: Arc<Operation>,
    who: Who,
}

impl Work {
    pub(crate) fn caller(&self) -> Caller {
        if self.at.for_all_users {
            self.at.client.caller(self.at.groups.credentials(self.who))
        } else {
            self.at.client.me()
        }
    }

    /// Runs an operation that changes nothing, counts its outcome and turns a failure into the
    /// kernel's number. Gives it up when the process behind it is being killed: the kernel waits for
    /// our answer even then.
    pub(crate) async fn run<T>(
        &self,
        operation: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Errno> {
        let outcome = tokio::select! {
            outcome = operation => outcome.map_err(|failure| {
                tracing::debug!(%failure, "refused");
                errno(&failure)
            }),
            () = who::is_killed(self.who.pid) => Err(Errno::EINTR),
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
        let (at, caller, pid) = (self.at.clone(), self.caller(), self.who.pid);
        let listed = self.operation.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        let task = async move {
            let outcome = if wait {
                lock::set(&at, &caller, asked, who::is_interrupted(pid)).await
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
        self.at.requests.spawn_on(task, &self.at.runtime);
        let given_up = async {
            who::is_killed(pid).await;
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
        let task = self.at.requests.spawn_on(task, &self.at.runtime);
        self.run(async {
            let stopped = |error| Err(Status::new(Code::Internal, format!("{error}")));
            task.await.unwrap_or_else(stopped)
        })
        .await
    }
}

impl Requests {
    pub(crate) fn work(&self, op: &'static str, inode: INodeNo, request: &Request) -> Work {
        let at = self.0.clone();
        let operation = Arc::new(at.operations.begin(op, format!("inode {inode}")));
        let who = Who { uid: request.uid(), gid: request.gid(), pid: request.pid() };
        Work { at, operation, who }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.requests.spawn_on(task, &self.0.runtime);
    }

    /// Runs an operation that answers nothing but its success.
    pub(crate) fn answer_empty<F>(
        &self,
        work: Work,
        reply: ReplyEmpty,
        run: impl FnOnce(Arc<Mounted>, Caller) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.spawn(async move {
            let operation = run(work.at.clone(), work.caller());
            match work.run_to_the_end(operation).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    /// Runs an operation that answers an entry, to which the kernel then has a reference.
    pub(crate) fn answer_entry<F>(
        &self,
        work: Work,
        reply: ReplyEntry,
        run: impl FnOnce(Arc<Mounted>, Caller) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Option<pb::Attr>>> + Send + 'static,
    {
        self.spawn(async move {
            let ttl = work.at.ttl;
            let operation = run(work.at.clone(), work.caller());
            match work.run_to_the_end(operation).await {
                Ok(Some(attr)) => {
                    work.at.known.looked_up(attr.inode);
                    reply.entry(&ttl, &work.at.tell(&attr), Generation(attr.generation))
                }
                Ok(None) if ttl.is_zero() => reply.error(Errno::ENOENT),
                // The kernel remembers for the same time that there is no such name.
                Ok(None) => reply.entry(&ttl, &no_attr(), Generation(0)),
                Err(errno) => reply.error(errno),
            }
        });
    }

    pub(crate) fn answer_attr<F>(
        &self,
        work: Work,
        reply: ReplyAttr,
        run: impl FnOnce(Arc<Mounted>, Caller) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<fuser::FileAttr>> + Send + 'static,
    {
        self.spawn(async move {
            let operation = run(work.at.clone(), work.caller());
            match work.run_to_the_end(operation).await {
                Ok(attr) => reply.attr(&work.at.ttl, &attr),
                Err(errno) => reply.error(errno),
            }
        });
    }
}
