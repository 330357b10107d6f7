//! Exactly-once numbers: of namespace mutations (session, seq) and of chunk updates (session,
//! channel, seq).
//!
//! A number is taken once for an operation and kept through all its retries; it is given back when
//! the operation's answer arrived, or nobody waits for it any more.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;

use crate::limits;

/// Numbers of one session's mutations.
#[derive(Clone, Debug)]
pub struct Mutations {
    next: u64,
    outstanding: BTreeSet<u64>,
}

impl Default for Mutations {
    fn default() -> Self {
        // 0 is for reads.
        Self { next: 1, outstanding: BTreeSet::new() }
    }
}

impl Mutations {
    pub fn new() -> Self {
        Self::default()
    }

    /// A number for a new mutation; `None`: too many wait for their answers.
    pub fn begin(&mut self) -> Option<u64> {
        if self.outstanding.len() >= limits::MUTATIONS_MAX {
            return None;
        }
        let seq = self.next;
        self.next += 1;
        self.outstanding.insert(seq);
        Some(seq)
    }

    /// The answer arrived, or is not waited for any more.
    pub fn end(&mut self, seq: u64) {
        self.outstanding.remove(&seq);
        debug_assert!(seq < self.next);
    }

    /// Answers of mutations below this may be forgotten by the leader.
    pub fn ack_below(&self) -> u64 {
        self.outstanding.first().copied().unwrap_or(self.next)
    }
}

/// Channels of one session's chunk updates: one update in flight on each.
#[derive(Clone, Debug)]
pub struct Channels {
    session: u64,
    limit: u32,
    next: u64,
    /// The last number of each channel that was ever used.
    last_seq: BTreeMap<u32, u64>,
    in_flight: BTreeSet<u64>,
    /// Used before and free now. The lowest is taken first: a chunk then remembers few channels.
    free: BTreeSet<u32>,
}

impl Channels {
    pub fn new(session: u64, limit: u32) -> Self {
        assert!(limit > 0 && limit <= limits::CHANNELS_MAX, "channels are bounded");
        let (last_seq, in_flight, free) = Default::default();
        Self { session, limit, next: 1, last_seq, in_flight, free }
    }

    /// A tag for a new update; `None`: every channel has one in flight. It tells the chunk which updates of
    /// the session it may forget, and refuses if they come once more.
    pub fn take(&mut self) -> Option<pb::UpdateTag> {
        let channel = match self.free.pop_first() {
            Some(channel) => channel,
            None => {
                let fresh = u32::try_from(self.last_seq.len()).expect("bounded by the limit");
                if fresh >= self.limit {
                    return None;
                }
                fresh
            }
        };
        let seq = self.next;
        self.next += 1;
        self.last_seq.insert(channel, seq);
        self.in_flight.insert(seq);
        let ack_below = *self.in_flight.first().expect("this one");
        Some(pb::UpdateTag { session: self.session, channel, seq, ack_below })
    }

    /// The update of this tag has its answer, or nobody waits for it any more. A tag of an earlier
    /// session is let go without effect.
    pub fn give_back(&mut self, tag: &pb::UpdateTag) {
        if tag.session != self.session {
            return;
        }
        assert_eq!(self.last_seq.get(&tag.channel), Some(&tag.seq), "one update per channel");
        let was_taken = self.free.insert(tag.channel);
        assert!(was_taken, "a tag is given back once");
        self.in_flight.remove(&tag.seq);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_stop_at_the_oldest_open_mutation() {
        let mut mutations = Mutations::new();
        assert_eq!(mutations.ack_below(), 1);
        let [a, b, c] = [(); 3].map(|()| mutations.begin().unwrap());
        assert_eq!((a, b, c), (1, 2, 3));
        mutations.end(b);
        assert_eq!(mutations.ack_below(), a);
        mutations.end(a);
        assert_eq!(mutations.ack_below(), c);
        mutations.end(c);
        assert_eq!(mutations.ack_below(), 4);
    }

    #[test]
    fn mutations_are_bounded() {
        let mut mutations = Mutations::new();
        for _ in 0..limits::MUTATIONS_MAX {
            assert!(mutations.begin().is_some());
        }
        assert_eq!(mutations.begin(), None);
        mutations.end(1);
        assert!(mutations.begin().is_some());
    }

    #[test]
    fn a_channel_has_one_update_in_flight_and_its_numbers_grow() {
        let mut channels = Channels::new(9, 2);
        let a = channels.take().unwrap();
        let b = channels.take().unwrap();
        assert_ne!(a.channel, b.channel);
        assert_eq!(channels.take(), None);
        assert_eq!(channels.in_flight(), 2);
        channels.give_back(&b);
        channels.give_back(&a);
        let c = channels.take().unwrap();
        assert_eq!((c.channel, c.seq), (0, 3), "the lowest channel first, with the next number");
        assert_eq!(c.session, 9);
    }

    #[test]
    fn a_tag_tells_what_has_its_answer() {
        let mut channels = Channels::new(9, 4);
        let [a, b, c] = [(); 3].map(|()| channels.take().unwrap());
        assert_eq!([a.ack_below, b.ack_below, c.ack_below], [1; 3]);
        channels.give_back(&b);
        assert_eq!(channels.take().unwrap().ack_below, 1, "the first is in flight");
        channels.give_back(&a);
        let last = channels.take().unwrap();
        assert_eq!((last.seq, last.ack_below), (5, c.seq));
    }

    #[test]
    fn tags_of_an_earlier_session_are_let_go() {
        let mut channels = Channels::new(9, 2);
        let taken = channels.take().unwrap();
        channels.give_back(&pb::UpdateTag { session: 8, ..taken });
        assert_eq!(channels.in_flight(), 1);
    }
}
