//! Questions that sessions leave with the leader until there is an answer.
//!
//! What the answer is lies elsewhere; here is only whom to wake. A session has one question of a kind at
//! a time: a newer one ends the one before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ff2_proto::VolumeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

type Key = (VolumeId, u64);

/// Sessions with a question that is held. As many as sessions at most.
#[derive(Debug, Default)]
pub(super) struct Questions {
    held: Mutex<BTreeMap<Key, Arc<Bell>>>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    questions: AtomicU64,
}

/// One question; forgotten when dropped.
pub(super) struct Question<'a> {
    questions: &'a Questions,
    key: Key,
    bell: Arc<Bell>,
    number: u64,
}

impl Questions {
    /// There is news for these sessions.
    pub(super) fn wake(&self, volume: VolumeId, sessions: impl IntoIterator<Item = u64>) {
        let mut sessions = sessions.into_iter().peekable();
        if sessions.peek().is_none() {
            return;
        }
        let held = self.held.lock();
        for session in sessions {
            if let Some(bell) = held.get(&(volume, session)) {
                bell.rung.notify_waiters();
            }
        }
    }

    /// There may be news for anybody.
    pub(super) fn wake_all(&self, volume: VolumeId) {
        for (_, bell) in self.held.lock().range((volume, 0)..=(volume, u64::MAX)) {
            bell.rung.notify_waiters();
        }
    }

    pub(super) fn ask(&self, key: Key) -> Question<'_> {
        let bell = self.held.lock().entry(key).or_default().clone();
        let number = bell.questions.fetch_add(1, Ordering::AcqRel) + 1;
        bell.rung.notify_waiters();
        Question { questions: self, key, bell, number }
    }
}

impl Question<'_> {
    /// Returns at the next news. What comes after this call is not missed.
    pub(super) fn news(&self) -> Notified<'_> {
        self.bell.rung.notified()
    }

    /// No newer question of the session came.
    pub(super) fn is_last(&self) -> bool {
        self.bell.questions.load(Ordering::Acquire) == self.number
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut held = self.questions.held.lock();
        if self.is_last() {
            held.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_is_granted_is_woken_and_a_newer_question_ends_the_older() {
        let waits = Questions::default();
        let key = (VolumeId(1), 7);
        let first = waits.ask(key);
        {
            let mut rung = std::pin::pin!(first.news());
            rung.as_mut().enable();
            waits.wake(VolumeId(2), [7]);
            waits.wake(VolumeId(1), [8]);
            let others = tokio::time::timeout(Duration::from_millis(20), rung.as_mut()).await;
            assert!(others.is_err(), "another volume, another session");
            waits.wake(VolumeId(1), [7]);
            rung.await;
            let mut rung = std::pin::pin!(first.news());
            rung.as_mut().enable();
            waits.wake_all(VolumeId(1));
            rung.await;
        }
        assert!(first.is_last());
        let second = waits.ask(key);
        assert!(!first.is_last() && second.is_last());
        drop(first);
        assert_eq!(waits.held.lock().len(), 1, "the second is still held");
        drop(second);
        assert!(waits.held.lock().is_empty());
    }
}
