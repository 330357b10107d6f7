//! The threads that serve requests: each receives them, runs their operations and sends the answers,
//! so that an operation that need not wait for others changes no thread.

use std::{io, thread};

use ff2_fabric::pace;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::{cpu, limits};

/// A few threads, each with a runtime of its own. Dropped, they end: their tasks are dropped where
/// they wait.
#[derive(Debug)]
pub struct Executors {
    handles: Vec<Handle>,
    threads: Vec<thread::JoinHandle<()>>,
    stop: CancellationToken,
}

impl Executors {
    /// `count`: 0 for one for each CPU, which then stays on it; on large machines for several.
    pub fn start(name: &str, count: usize) -> io::Result<Self> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let count = if count == 0 { cpus.min(limits::EXECUTORS_MAX) } else { count };
        let pinned = count == cpus && count > 1;
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        let stop = CancellationToken::new();
        for number in 0..count {
            let mut builder = Builder::new_current_thread();
            let runtime = pace::runtime(builder.enable_all().thread_name(name))?;
            handles.push(runtime.handle().clone());
            let stop = stop.clone();
            let run = move || {
                pace::keep();
                if pinned {
                    cpu::stay_on(number);
                }
                runtime.block_on(stop.cancelled());
                runtime.shutdown_timeout(limits::END);
            };
            threads.push(thread::Builder::new().name(format!("{name}-{number}")).spawn(run)?);
        }
        Ok(Self { handles, threads, stop })
    }

    /// Where work goes that belongs to no request; there is at least one.
    pub fn first(&self) -> &Handle {
        &self.handles[0]
    }

    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // It fails only if it panicked, which has been reported.
            let _ = thread.join();
        }
    }
}
