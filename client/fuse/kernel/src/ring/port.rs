//! Where the answers to a ring's requests wait for its thread.

use std::sync::Arc;

use ff2_fabric::BufPool;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::reply::Reply;

/// As bounded as the entries.
#[derive(Debug, Default)]
pub(super) struct Port {
    answered: Mutex<Vec<Answered>>,
    filled: Notify,
}

#[derive(Debug)]
pub(super) struct Answered {
    /// Its number.
    pub(super) entry: usize,
    pub(super) reply: Reply,
}

impl Port {
    pub(super) fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut *self.answered.lock())
    }

    /// Returns when an answer came since the last time.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

/// The entry that a request came in.
#[derive(Debug)]
pub(crate) struct Place {
    port: Arc<Port>,
    entry: usize,
    room: Arc<BufPool>,
}

impl Place {
    pub(super) fn new(port: Arc<Port>, entry: usize, room: Arc<BufPool>) -> Self {
        Self { port, entry, room }
    }

    pub(crate) fn room(&self) -> &Arc<BufPool> {
        &self.room
    }

    pub(crate) fn answer(self, reply: Reply) {
        let mut answered = self.port.answered.lock();
        answered.push(Answered { entry: self.entry, reply });
        let first = answered.len() == 1;
        drop(answered);
        if first {
            self.port.filled.notify_one();
        }
    }
}
