//! Requests as tasks: who asks, how an outcome becomes a reply.

use std::{ffi::OsStr, future::Future, os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use ff2_client::{Caller, Code, Result, Status, Trust, pb};
use ff2_daemon::Operation;
use fuser::{Errno, FileAttr, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, Request};

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
    /// What the answers may be trusted for.
    pub(crate) trust: Trust,
    operation: Arc<Operation>,
    who: Who,
}

/// Where an entry is that is answered.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) parent: u64,
    pub(crate) name: Vec<u8>,
}

impl Place {
    pub(crate) fn new(parent: INodeNo, name: &OsStr) -> Self {
        Self { parent: parent.0, name: name.as_bytes().to_vec() }
    }
}

impl Work {
    /// An entry for the kernel, to which it then has a reference, and for how long it may keep the
    /// attributes and the name.
    pub(crate) fn entry(&self, place: &Place, attr: &pb::Attr) -> (FileAttr, [Duration; 2]) {
        self.at.entry(&self.trust, place, attr)
    }

    pub(crate) fn caller(&self) -> Caller {
        let caller = if self.at.for_all_users {
            self.at.client.caller(self.at.groups.credentials(self.who))
        } else {
            self.at.client.me()
        };
        caller.with_trust(self.trust.clone())
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
        let trust = at.client.trust();
        Work { at, trust, operation, who }
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
        place: Place,
        reply: ReplyEntry,
        run: impl FnOnce(Arc<Mounted>, Caller, Place) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Option<pb::Attr>>> + Send + 'static,
    {
        self.spawn(async move {
            let operation = run(work.at.clone(), work.caller(), place.clone());
            match work.run_to_the_end(operation).await {
                Ok(Some(attr)) => {
                    let (told, [attr_ttl, entry_ttl]) = work.entry(&place, &attr);
                    let generation = Generation(attr.generation);
                    reply.entry_with_ttls(&attr_ttl, &entry_ttl, &told, generation);
                    work.at.answered(&work.trust, attr_ttl.max(entry_ttl));
                }
                Ok(None) => {
                    work.at.coherence.told.note(place.parent, &place.name, false);
                    let ttl = work.at.entry_ttl(&work.trust, place.parent);
                    if ttl.is_zero() {
                        return reply.error(Errno::ENOENT);
                    }
                    // The kernel remembers for so long that there is no such name.
                    reply.entry(&ttl, &no_attr(), Generation(0));
                    work.at.answered(&work.trust, ttl);
                }
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
        F: Future<Output = Result<pb::Attr>> + Send + 'static,
    {
        self.spawn(async move {
            let operation = run(work.at.clone(), work.caller());
            match work.run_to_the_end(operation).await {
                Ok(attr) => {
                    let (told, ttl) = work.at.tell(&attr, &work.trust);
                    reply.attr(&ttl, &told);
                    work.at.answered(&work.trust, ttl);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }
}

/// Where fuser answers one time for a name and its attributes.
pub(crate) fn shortest([attr, entry]: [Duration; 2]) -> Duration {
    attr.min(entry)
}
