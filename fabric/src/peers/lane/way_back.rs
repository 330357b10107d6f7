//! When a connection that fell back to TCP tries for RDMA again: after a pause that doubles as long as that fails.
//!
//! Owned by the lane. It tries only while calls are made, and one try at a time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{clock, limits::RDMA_PAUSE_MAX};

#[derive(Debug, Default)]
pub(super) struct WayBack(Mutex<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    until: Instant,
    pause: Duration,
    trying: bool,
}

impl WayBack {
    /// A connection was made: `None` if it is what it was to become; else the first pause before it tries again.
    pub(super) fn settled(&self, pause: Option<Duration>) {
        let waiting =
            pause.map(|pause| Waiting { until: clock::now() + pause, pause, trying: false });
        *self.0.lock() = waiting;
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

    /// The try led to TCP again, or to nothing.
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

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_one_tries_at_a_time() {
        let back = WayBack::default();
        assert!(!back.begin(), "nothing fell back");
        let first = Duration::from_secs(60);
        back.settled(Some(first));
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
        back.settled(None);
        tokio::time::advance(2 * RDMA_PAUSE_MAX).await;
        assert!(!back.begin());
    }
}
