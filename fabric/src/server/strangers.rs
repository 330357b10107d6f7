//! Connections that have not proved who they are: so many at a time, and no silent one in the way.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// All of a listener. Whoever comes takes the place of the oldest if there is no other: peers that
/// say nothing, by accident or on purpose, keep nobody out.
#[derive(Debug)]
pub(super) struct Strangers {
    places: Arc<Semaphore>,
    /// Oldest first; cancelled ones have gone or were admitted.
    oldest: VecDeque<CancellationToken>,
    limit: usize,
}

/// One of them, until it is admitted or dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    /// Another one took the place.
    pub(super) evicted: CancellationToken,
    _over: DropGuard,
    _place: OwnedSemaphorePermit,
}

impl Strangers {
    pub(super) fn new(limit: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(limit)), oldest: VecDeque::new(), limit }
    }

    pub(super) async fn add(&mut self) -> Stranger {
        if self.places.available_permits() == 0 {
            self.oldest.retain(|stranger| !stranger.is_cancelled());
            if let Some(oldest) = self.oldest.pop_front() {
                oldest.cancel();
            }
        }
        let place = self.places.clone().acquire_owned().await;
        let evicted = CancellationToken::new();
        if self.oldest.len() >= 2 * self.limit {
            self.oldest.retain(|stranger| !stranger.is_cancelled());
        }
        self.oldest.push_back(evicted.clone());
        Stranger {
            _over: evicted.clone().drop_guard(),
            evicted,
            _place: place.expect("the semaphore is never closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let mut strangers = Strangers::new(2);
        let (first, second) = (strangers.add().await, strangers.add().await);
        let silent = first.evicted.clone();
        let peer = tokio::spawn(async move {
            first.evicted.cancelled().await;
            drop(first);
        });
        let third = strangers.add().await;
        peer.await.unwrap();
        assert!(silent.is_cancelled() && !second.evicted.is_cancelled());
        // Who was admitted is not evicted in the place of one that was not.
        drop(second);
        let fourth = strangers.add().await;
        assert!(!third.evicted.is_cancelled() && !fourth.evicted.is_cancelled());
        drop(fourth);
        for _ in 0..100 {
            drop(strangers.add().await);
            assert!(strangers.oldest.len() <= 4);
        }
    }
}
