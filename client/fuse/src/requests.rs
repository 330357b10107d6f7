//! Requests as tasks: who asks, how an outcome becomes a reply.

use std::{future::Future, sync::Arc};

use ff2_client::{Caller, Result, SharedBuf, pb};
use ff2_daemon::Operation;
use fuser::{Errno, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, Request};

use crate::{
    attr::{errno, no_attr},
    mounted::Mounted,
    who::{self, Who},
};

/// fuser's side of a mount.
#[derive(Debug)]
pub(crate) struct Requests(pub(crate) Arc<Mounted>);

/// One request in progress.
pub(crate) struct Work {
    pub(crate) at: Arc<Mounted>,
    operation: Operation,
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

    /// For what must happen also when its process is killed: the last words about a file.
    pub(crate) fn to_the_end(mut self) -> Self {
        self.who.pid = 0;
        self
    }

    /// Runs the operation, counts its outcome and turns a failure into the kernel's number. Gives it
    /// up when the process behind it is being killed: the kernel waits for our answer even then.
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
}

impl Requests {
    pub(crate) fn work(&self, op: &'static str, inode: INodeNo, request: &Request) -> Work {
        let at = self.0.clone();
        let operation = at.operations.begin(op, format!("inode {inode}"));
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
            match work.run(operation).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    /// Runs an operation that answers an entry; it counted the kernel's reference.
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
            match work.run(operation).await {
                Ok(Some(attr)) => {
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
            match work.run(operation).await {
                Ok(attr) => reply.attr(&work.at.ttl, &attr),
                Err(errno) => reply.error(errno),
            }
        });
    }

    /// A registered copy of bytes that lie in the thread's read buffer. When the pool is empty this
    /// thread waits: that is how the mount pushes back.
    pub(crate) fn copy(&self, bytes: &[u8]) -> SharedBuf {
        let pool = self.0.client.pool();
        let mut buffer = pool
            .try_get(bytes.len())
            .unwrap_or_else(|| self.0.runtime.block_on(pool.get(bytes.len())));
        buffer.copy_from_slice(bytes);
        buffer.freeze()
    }
}
