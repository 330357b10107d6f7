//! The thread that keeps this node a member: heartbeats and routing run on it, and nothing else.
//!
//! Index writes may block the threads of the main runtime for as long as RocksDB stalls, and a node
//! that is merely busy must not be taken for dead. So the membership has connections and a runtime
//! of its own, and what it reports is read without waiting for a disk.

use std::io;

use ff2_fabric::pace;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

#[derive(Debug)]
pub(crate) struct Heart {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Heart {
    pub(crate) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("ff2-heart").enable_all();
        Ok(Self { runtime: Some(pace::runtime(&mut builder)?) })
    }

    /// Runs `work` there; what it spawns stays there. It ends when the handle is dropped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        let runtime = self.runtime.as_ref().expect("it is not being dropped");
        AbortOnDropHandle::new(runtime.spawn(work))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        // Not to be waited for in a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
