//! Who waits for something to change.
//!
//! As a watch channel of tokio, but that those who wait are woken in the order in which they began
//! to: a simulation can repeat it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use thiserror::Error;
use tokio::sync::Notify;

/// The changes of one thing; whoever owns the thing owns this.
#[derive(Debug, Default)]
pub(super) struct Changes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many there were; [`GONE`] once there can be no more.
    count: AtomicU64,
    told: Notify,
}

const GONE: u64 = u64::MAX;

/// What changed is gone: it will never change again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("what was waited for is gone")]
pub struct Gone;

impl Changes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Something changed, and can be seen.
    pub(super) fn tell(&self) {
        self.shared.count.fetch_add(1, Ordering::Release);
        self.shared.told.notify_waiters();
    }

    /// Sees the changes from now on.
    pub(super) fn subscribe(&self) -> Changed {
        let seen = self.shared.count.load(Ordering::Acquire);
        Changed { shared: self.shared.clone(), seen }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.shared.count.store(GONE, Ordering::Release);
        self.shared.told.notify_waiters();
    }
}

/// One who watches for changes. What happens between two looks is one change.
#[derive(Debug)]
pub struct Changed {
    shared: Arc<Shared>,
    seen: u64,
}

impl Changed {
    /// Returns after the next change that was not seen yet. Cancel-safe.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        loop {
            // Before the look, so that a change between the two is not missed.
            let told = self.shared.told.notified();
            let count = self.shared.count.load(Ordering::Acquire);
            if count == GONE {
                return Err(Gone);
            }
            if count != self.seen {
                self.seen = count;
                return Ok(());
            }
            told.await;
        }
    }

    /// Whether there was a change since the last look.
    #[cfg(test)]
    pub(super) fn take(&mut self) -> bool {
        let count = self.shared.count.load(Ordering::Acquire);
        std::mem::replace(&mut self.seen, count) != count
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn first_come_first_woken() {
        let changes = Changes::new();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..40 {
            let (mut changed, woken) = (changes.subscribe(), woken.clone());
            tasks.push(tokio::spawn(async move {
                changed.changed().await.unwrap();
                woken.lock().push(number);
                changed.changed().await
            }));
            tokio::task::yield_now().await;
        }
        changes.tell();
        tokio::task::yield_now().await;
        assert_eq!(*woken.lock(), (0..40).collect::<Vec<_>>());
        drop(changes);
        for task in tasks {
            assert_eq!(task.await.unwrap(), Err(Gone));
        }
    }

    #[tokio::test]
    async fn what_was_not_seen_is_not_waited_for() {
        let changes = Changes::new();
        let mut changed = changes.subscribe();
        changes.tell();
        changes.tell();
        changed.changed().await.unwrap();
        assert!(!changed.take(), "both were one");
    }
}
