//! The thread that makes index batches durable: one sync of the log for all that wait.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use ff2_proto::{Status, status::Code};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{core::Core, gone, limits};

#[derive(Debug, Default)]
pub(super) struct Syncer {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bounded by the prepares in progress and the few other callers.
    waiting: Vec<oneshot::Sender<Result<(), Status>>>,
    /// A batch was written since the thread last looked.
    written: bool,
    /// The thread sleeps until there is something to do: nothing was written for the idle time.
    rests: bool,
    stop: bool,
}

impl Syncer {
    pub(super) async fn ask(&self) -> Result<(), Status> {
        let (done, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.stop {
                return Err(gone());
            }
            state.waiting.push(done);
        }
        self.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// A batch was written that nobody may ask to be synced.
    pub(super) fn note(&self) {
        let mut state = self.state.lock();
        state.written = true;
        if state.rests {
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }

    /// Waits for somebody who waits, for the idle time after a batch was written, or for the end (`None`).
    fn next(&self) -> Option<Vec<oneshot::Sender<Result<(), Status>>>> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && !state.stop {
            self.wake.wait_for(&mut state, Duration::from_millis(limits::IDLE_SYNC_MS));
        }
        state.rests = true;
        while state.waiting.is_empty() && !state.written && !state.stop {
            self.wake.wait(&mut state);
        }
        state.rests = false;
        if state.stop {
            // Who waits hears that nobody will answer.
            state.waiting.clear();
            return None;
        }
        state.written = false;
        Some(std::mem::take(&mut state.waiting))
    }
}

pub(super) fn start(core: Arc<Core>) -> Result<JoinHandle<()>, Status> {
    let thread = Builder::new().name("ff2-index".into()).spawn(move || run(&core));
    thread.map_err(|error| Status::new(Code::Internal, format!("start the index thread: {error}")))
}

fn run(core: &Core) {
    while let Some(waiting) = core.syncer.next() {
        let (written, durable) = {
            let ledger = core.ledger.lock();
            (ledger.written(), ledger.durable())
        };
        let answer = if written == durable { Ok(()) } else { sync(core, written) };
        for done in waiting {
            let _ = done.send(answer.clone());
        }
    }
}

fn sync(core: &Core, written: u64) -> Result<(), Status> {
    core.check_not_broken()?;
    core.index.sync().inspect_err(|error| core.break_index(error))?;
    core.counters.index_syncs.fetch_add(1, Ordering::Relaxed);
    core.ledger.lock().set_durable(written);
    Ok(())
}
