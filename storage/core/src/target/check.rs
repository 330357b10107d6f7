//! What must hold after every step.

use ff2_proto::pb;

use super::{
    Target,
    live::{Hop, Live, Pending},
    types::Role,
};
use crate::limits;

/// Chunks whose state is looked at after each step in debug; all of them in [`Target::check`].
const CHUNKS_PER_STEP: usize = 64;

impl<P: Clone> Target<P> {
    pub(super) fn check_in_debug(&self) {
        if cfg!(debug_assertions) {
            self.check_some(CHUNKS_PER_STEP);
        }
    }

    /// Panics if the machine is in a state that it can never be in.
    pub fn check(&self) {
        self.check_some(usize::MAX);
        let waiting: usize = self.live.values().map(|live| live.waiting.len()).sum();
        assert_eq!(waiting, self.waiting_updates, "waiting updates are counted");
        let asks: usize = self.live.values().map(|live| live.asks.len()).sum();
        assert_eq!(asks, self.waiting_reads, "waiting reads are counted");
    }

    fn check_some(&self, chunks: usize) {
        // After every step of a daemon, too: without memory of its own.
        let mut members = self.chain.members.iter().enumerate();
        let is_before = |(place, member): (usize, &pb::ChainMember)| {
            self.chain.members[..place].iter().any(|before| before.target == member.target)
        };
        assert!(!members.any(is_before), "a target has one place in a chain");
        assert!(self.tombstones.len() <= limits::TOMBSTONES);
        assert!(self.dropped.len() <= limits::DROPPED);
        assert!(self.waiting_updates <= limits::WAITING_UPDATES_PER_TARGET);
        assert!(self.failed.is_none() || self.role == Role::Out, "a failed target does nothing");
        assert!(self.source.is_none() || self.role.serves(), "only a serving target sends copies");
        assert!(self.complete_under.is_none_or(|version| version == self.version()));
        for (chunk, live) in self.live.iter().take(chunks) {
            self.check_live(live);
            if let Some(pending) = &live.pending {
                let record = self.records.get(chunk);
                let is_later = record.is_none_or(|record| record.id < pending.id);
                assert!(is_later || pending.resync, "{chunk}: an update follows the committed one");
                self.check_pending(pending);
            }
        }
    }

    fn check_live(&self, live: &Live<P>) {
        assert!(live.waiting.len() <= limits::WAITING_UPDATES_PER_CHUNK);
        assert!(live.asks.len() <= limits::WAITING_READS_PER_CHUNK);
        assert!(live.waiting.is_empty() || self.role.is_head(), "only the head queues updates");
        assert!(live.asks.is_empty() || self.role.serves(), "only a serving member answers reads");
        assert!(live.store.len() <= limits::STORE_QUEUE + 1);
    }

    fn check_pending(&self, pending: &Pending<P>) {
        assert!(pending.callers.len() <= limits::CALLS_PER_UPDATE);
        assert!(pending.id.version.0 > 0, "versions begin at 1");
        if self.role == Role::Out {
            return;
        }
        assert!(pending.id.made_under <= self.version(), "nobody is ahead of the chain");
        if pending.resync {
            assert_eq!(self.role, Role::Syncing, "copies go to syncing targets");
            assert_eq!(pending.hop, Hop::Last, "copies go no further");
        }
        if self.role.is_head() {
            let has_committed = pending.is_complete();
            assert!(!has_committed, "what is complete at the head is committed at once");
        }
        if matches!(pending.hop, Hop::Sent { .. } | Hop::Done) {
            assert!(pending.sent, "who was sent an update hears its outcome");
        }
    }
}
