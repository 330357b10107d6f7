//! Questions of sessions whether their locks came: the leader holds them until one did.
//!
//! Who waits is in the replicated state; here is only whom to wake. A session has one question at a
//! time: a newer one, which knows of more waits, ends the one before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ff2_fabric::Context;
use ff2_proto::{Code, Status, VolumeId, pb};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{NamespaceService, guard};
use crate::limits;

type Key = (VolumeId, u64);

/// Sessions with a question that is held. As many as sessions at most.
#[derive(Debug, Default)]
pub(super) struct LockWaits {
    held: Mutex<BTreeMap<Key, Arc<Bell>>>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    questions: AtomicU64,
}

/// One question; forgotten when dropped.
struct Question<'a> {
    waits: &'a LockWaits,
    key: Key,
    bell: Arc<Bell>,
    number: u64,
}

impl LockWaits {
    pub(super) fn wake(&self, volume: VolumeId, grants: &[pb::LockGrant]) {
        if grants.is_empty() {
            return;
        }
        let held = self.held.lock();
        for grant in grants {
            if let Some(bell) = held.get(&(volume, grant.session)) {
                bell.rung.notify_waiters();
            }
        }
    }

    /// Sessions ended, with locks perhaps: everybody looks.
    pub(super) fn wake_all(&self, volume: VolumeId) {
        for (_, bell) in self.held.lock().range((volume, 0)..=(volume, u64::MAX)) {
            bell.rung.notify_waiters();
        }
    }

    fn ask(&self, key: Key) -> Question<'_> {
        let bell = self.held.lock().entry(key).or_default().clone();
        let number = bell.questions.fetch_add(1, Ordering::AcqRel) + 1;
        bell.rung.notify_waiters();
        Question { waits: self, key, bell, number }
    }
}

impl Question<'_> {
    fn is_last(&self) -> bool {
        self.bell.questions.load(Ordering::Acquire) == self.number
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut held = self.waits.held.lock();
        if self.is_last() {
            held.remove(&self.key);
        }
    }
}

impl NamespaceService {
    /// Answers when a lock of these came, at the latest after `at_most`.
    pub(super) async fn await_locks(
        &self,
        cx: &Context,
        request: pb::NsRequest,
        at_most: Duration,
    ) -> Result<pb::NsReply, Status> {
        let group = &self.namespace;
        let lead = group.lead.get().ok_or_else(|| group.not_leader())?;
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN);
        let until = Instant::now() + at_most.min(patience).min(limits::LOCK_WAIT_MAX);
        let asker = guard::asker(&cx.peer);
        let question = group.lock_waits.ask((VolumeId(request.volume), request.session));
        loop {
            // Listening before the look, so that what comes between is not missed.
            let mut rung = std::pin::pin!(question.bell.rung.notified());
            rung.as_mut().enable();
            let look = group.query(request.clone(), asker);
            let silence = |_| Status::new(Code::Timeout, "no quorum answered in time");
            let reply = tokio::time::timeout(cx.remaining(), look).await.map_err(silence)??;
            let left = until.saturating_duration_since(Instant::now());
            let is_answer = reply.status.is_some() || !reply.granted_tickets.is_empty();
            if is_answer || left.is_zero() || !question.is_last() {
                return Ok(reply);
            }
            // Woken, or not: look again.
            let _ = tokio::time::timeout(left.min(limits::LOCK_LOOK), rung).await;
            lead.check()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_granted_is_woken_and_a_newer_question_ends_the_older() {
        let waits = LockWaits::default();
        let key = (VolumeId(1), 7);
        let first = waits.ask(key);
        {
            let mut rung = std::pin::pin!(first.bell.rung.notified());
            rung.as_mut().enable();
            waits.wake(VolumeId(2), &[pb::LockGrant { session: 7, ticket: 1 }]);
            waits.wake(VolumeId(1), &[pb::LockGrant { session: 8, ticket: 1 }]);
            let others = tokio::time::timeout(Duration::from_millis(20), rung.as_mut()).await;
            assert!(others.is_err(), "another volume, another session");
            waits.wake(VolumeId(1), &[pb::LockGrant { session: 7, ticket: 1 }]);
            rung.await;
            let mut rung = std::pin::pin!(first.bell.rung.notified());
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
