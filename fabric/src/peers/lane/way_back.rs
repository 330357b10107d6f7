//! When a connection that came about by a farther address, or fell back to TCP, tries for better: after a pause that
//! doubles as long as that fails.
//!
//! Owned by the lane. It tries only while calls are made, and one try at a time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{clock, limits::RDMA_PAUSE_MAX};

#[derive(Debug, Default)]
pub(super) struct WayBack(Mutex<Option<Waiting>>);

/// By how much a connection falls short of what it was to become: the less, the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shortfall {
    /// Nearer addresses of its server that were passed over.
    pub(super) nearer: usize,
    /// It goes by TCP where RDMA was to serve.
    pub(super) by_tcp: bool,
}

#[derive(Debug)]
struct Waiting {
    shortfall: Shortfall,
    until: Instant,
    pause: Duration,
    trying: bool,
}

impl WayBack {
    /// A connection was made. If it falls short of what it was to become, `pause` is the first before a try.
    pub(super) fn settled(&self, shortfall: Shortfall, pause: Duration) {
        let until = clock::now() + pause;
        let waiting = Waiting { shortfall, until, pause, trying: false };
        *self.0.lock() = (shortfall != Shortfall::default()).then_some(waiting);
    }

    /// Whether what a try led to is better than what is there.
    pub(super) fn is_better(&self, shortfall: Shortfall) -> bool {
        self.0.lock().as_ref().is_some_and(|waiting| shortfall < waiting.shortfall)
    }

    /// Whether it is time for a try, which is the caller's to make.
    pub(super) fn begin(&self) -> bool {
        match &mut *self.0.lock() {
            Some(waiting) if !waiting.trying && waiting.until <= clock::now() => {
                waiting.trying = true;
                true
            }
            _ => false,
        }
    }

    /// The try led to nothing better.
    pub(super) fn failed(&self) {
        if let Some(waiting) = &mut *self.0.lock() {
            waiting.pause = (waiting.pause * 2).min(RDMA_PAUSE_MAX);
            waiting.until = clock::now() + waiting.pause;
            waiting.trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_address_is_better_than_rdma_by_a_far_one() {
        let short = |nearer, by_tcp| Shortfall { nearer, by_tcp };
        let back = WayBack::default();
        assert!(!back.is_better(short(0, false)), "nothing fell short");
        back.settled(short(1, false), Duration::ZERO);
        assert!(back.is_better(short(0, false)) && back.is_better(short(0, true)));
        assert!(!back.is_better(short(1, false)) && !back.is_better(short(1, true)));
        back.settled(short(0, true), Duration::ZERO);
        assert!(back.is_better(short(0, false)));
        assert!(!back.is_better(short(0, true)) && !back.is_better(short(1, false)));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_one_tries_at_a_time() {
        let back = WayBack::default();
        assert!(!back.begin(), "nothing fell back");
        let first = Duration::from_secs(60);
        back.settled(Shortfall { by_tcp: true, ..Shortfall::default() }, first);
        let mut pause = first;
        for _ in 0..8 {
            tokio::time::advance(pause - Duration::from_millis(1)).await;
            assert!(!back.begin());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(back.begin() && !back.begin());
            back.failed();
            pause = (pause * 2).min(RDMA_PAUSE_MAX);
        }
        assert_eq!(pause, RDMA_PAUSE_MAX);
        back.settled(Shortfall::default(), first);
        tokio::time::advance(2 * RDMA_PAUSE_MAX).await;
        assert!(!back.begin());
    }
}
