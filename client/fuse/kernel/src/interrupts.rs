//! Signals for those who wait for an answer.
//!
//! The kernel tells by a message of its own that a signal came for the thread behind a request. It
//! waits for the request's answer all the same; who wants to give up answers EINTR. Only requests that
//! take long are entered here; a message that overtook its request is kept for a while.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::limits::EARLY_INTERRUPTS_MAX;

#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<u64, CancellationToken>,
    /// Of requests that did not wait (yet). The kernel never gives a number again.
    early: VecDeque<u64>,
}

impl Interrupts {
    pub(crate) fn of(self: &Arc<Self>, unique: u64) -> Interrupted {
        Interrupted { unique, token: OnceLock::new(), interrupts: self.clone() }
    }

    /// A signal came for who asked this request.
    pub(crate) fn interrupt(&self, unique: u64) {
        let mut table = self.table.lock();
        if let Some(token) = table.waiting.get(&unique) {
            return token.cancel();
        }
        if table.early.len() >= EARLY_INTERRUPTS_MAX {
            table.early.pop_front();
        }
        table.early.push_back(unique);
    }

    fn enter(&self, unique: u64) -> CancellationToken {
        let token = CancellationToken::new();
        let mut table = self.table.lock();
        if let Some(place) = table.early.iter().position(|early| *early == unique) {
            table.early.remove(place);
            token.cancel();
        }
        table.waiting.insert(unique, token.clone());
        token
    }
}

/// Whether a signal came for who asked a request.
#[derive(Debug)]
pub struct Interrupted {
    unique: u64,
    token: OnceLock<CancellationToken>,
    interrupts: Arc<Interrupts>,
}

impl Interrupted {
    /// Returns when a signal came, also one that came before. Cancel-safe.
    pub async fn wait(&self) {
        self.token.get_or_init(|| self.interrupts.enter(self.unique)).cancelled().await;
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        if self.token.get().is_some() {
            self.interrupts.table.lock().waiting.remove(&self.unique);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    fn is_over(interrupted: &Interrupted) -> bool {
        let mut wait = pin!(interrupted.wait());
        wait.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn a_signal_ends_the_wait_it_is_meant_for() {
        let interrupts = Arc::new(Interrupts::default());
        let (one, other) = (interrupts.of(2), interrupts.of(4));
        assert!(!is_over(&one) && !is_over(&other));
        interrupts.interrupt(4);
        assert!(!is_over(&one) && is_over(&other));
        drop((one, other));
        assert!(interrupts.table.lock().waiting.is_empty());
    }

    #[test]
    fn a_signal_that_was_told_before_the_wait_ends_it() {
        let interrupts = Arc::new(Interrupts::default());
        let late = interrupts.of(6);
        interrupts.interrupt(6);
        assert!(is_over(&late) && is_over(&late));
        for unique in 0..2 * EARLY_INTERRUPTS_MAX as u64 {
            interrupts.interrupt(100 + unique);
        }
        assert_eq!(interrupts.table.lock().early.len(), EARLY_INTERRUPTS_MAX);
        assert!(!is_over(&interrupts.of(100)), "too long ago");
    }
}
