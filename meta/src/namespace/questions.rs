//! Questions that sessions leave with the leader until there is an answer.
//!
//! What the answer is lies elsewhere; here is only whom to wake. A session has one question of a kind at
//! a time: a newer one ends the one before.

use std::{collections::BTreeMap, sync::Arc};

use ff2_proto::VolumeId;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

type Key = (VolumeId, u64);

/// Sessions with a question that is held. As many as sessions at most.
#[derive(Debug, Default)]
pub(super) struct Questions {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    held: BTreeMap<Key, Held>,
    /// Questions so far: each has a number of its own.
    asked: u64,
}

/// A session's bell, and its last question.
#[derive(Debug, Default)]
struct Held {
    bell: Arc<Notify>,
    last: u64,
}

/// One question; forgotten when dropped.
pub(super) struct Question<'a> {
    questions: &'a Questions,
    key: Key,
    bell: Arc<Notify>,
    number: u64,
}

impl Questions {
    /// There is news for these sessions.
    pub(super) fn wake(&self, volume: VolumeId, sessions: impl IntoIterator<Item = u64>) {
        let mut sessions = sessions.into_iter().peekable();
        if sessions.peek().is_none() {
            return;
        }
        let book = self.book.lock();
        for session in sessions {
            if let Some(held) = book.held.get(&(volume, session)) {
                held.bell.notify_waiters();
            }
        }
    }

    /// There may be news for anybody.
    pub(super) fn wake_all(&self, volume: VolumeId) {
        for (_, held) in self.book.lock().held.range((volume, 0)..=(volume, u64::MAX)) {
            held.bell.notify_waiters();
        }
    }

    /// In one step: a question that ends at the same moment takes the bell of its session with it only if it is
    /// still the last.
    pub(super) fn ask(&self, key: Key) -> Question<'_> {
        let mut book = self.book.lock();
        book.asked += 1;
        let number = book.asked;
        let held = book.held.entry(key).or_default();
        held.last = number;
        held.bell.notify_waiters();
        Question { questions: self, key, bell: held.bell.clone(), number }
    }
}

impl Question<'_> {
    /// Returns at the next news. What comes after this call is not missed.
    pub(super) fn news(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// No newer question of the session came.
    pub(super) fn is_last(&self) -> bool {
        self.questions.book.lock().is_last(self.key, self.number)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut book = self.questions.book.lock();
        if book.is_last(self.key, self.number) {
            book.held.remove(&self.key);
        }
    }
}

impl Book {
    fn is_last(&self, key: Key, number: u64) -> bool {
        self.held.get(&key).is_some_and(|held| held.last == number)
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
        assert_eq!(waits.book.lock().held.len(), 1, "the second is still held");
        drop(second);
        assert!(waits.book.lock().held.is_empty());
    }
}
