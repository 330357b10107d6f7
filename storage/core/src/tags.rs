//! What a chunk remembers of its latest updates, so that a retried one is not carried out twice.
//!
//! A client numbers its updates over all of its channels; one channel has one update in flight. The
//! chunk keeps, for each channel, the last number and the version it made, until the client says with a
//! later update that it has the answer; from then on all that is older is late. The entries are part of
//! the chunk's record and of every full copy, so they survive failover and resync. A chunk that was
//! cut to nothing keeps its record, and so its entries. A removed one leaves them in a tombstone, in
//! memory and for a while only: whoever removes a chunk says that nobody writes it any more, so it
//! does no harm if a removal is carried out twice. What else is in progress may then leave a chunk
//! behind that nobody reaches.

use ff2_proto::{ChunkVersion, pb};

use crate::limits;

/// The entries of one chunk: at most one for each (session, channel), oldest version first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<pb::AppliedTag>);

/// What the entries say of an update that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not carried out.
    New,
    /// Carried out: it made this version.
    Applied(ChunkVersion),
    /// The channel is past it: nobody can wait for its answer any more.
    Stale,
}

impl Tags {
    /// From a record or from the network: entries without a tag and beyond the bound are dropped.
    pub fn from_entries(entries: impl IntoIterator<Item = pb::AppliedTag>) -> Self {
        let mut tags = Self::default();
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|entry| entry.version);
        for entry in entries {
            if let Some(tag) = entry.tag {
                tags.apply(&tag, ChunkVersion(entry.version));
            }
        }
        tags
    }

    pub fn entries(&self) -> &[pb::AppliedTag] {
        &self.0
    }

    pub fn to_entries(&self) -> Vec<pb::AppliedTag> {
        self.0.clone()
    }

    pub fn seen(&self, tag: &pb::UpdateTag) -> Seen {
        match self.channel(tag) {
            Some((known, version)) if known.seq == tag.seq => Seen::Applied(version),
            Some((known, _)) if known.seq > tag.seq => Seen::Stale,
            _ if tag.seq < self.answered_below(tag.session) => Seen::Stale,
            _ => Seen::New,
        }
    }

    /// Remembers an update, and forgets what it says was answered. The entry with the oldest version makes
    /// room.
    pub fn apply(&mut self, tag: &pb::UpdateTag, version: ChunkVersion) {
        let ack_below = tag.ack_below.max(self.answered_below(tag.session));
        self.0.retain_mut(|entry| {
            let Some(known) = entry.tag.as_mut().filter(|known| known.session == tag.session)
            else {
                return true;
            };
            // The newest entry of a session says it for all.
            known.ack_below = 0;
            known.channel != tag.channel && known.seq >= ack_below
        });
        while self.0.len() >= limits::TAGS_PER_CHUNK {
            self.0.remove(0);
        }
        let tag = pb::UpdateTag { ack_below, ..*tag };
        self.0.push(pb::AppliedTag { tag: Some(tag), version: version.0 });
        self.check();
    }

    /// Updates of a session with numbers below this were answered, or given up: whoever comes with one now is
    /// late.
    fn answered_below(&self, session: u64) -> u64 {
        let of_session = |entry: &pb::AppliedTag| entry.tag.filter(|tag| tag.session == session);
        self.0.iter().filter_map(of_session).map(|tag| tag.ack_below).max().unwrap_or(0)
    }

    fn channel(&self, tag: &pb::UpdateTag) -> Option<(pb::UpdateTag, ChunkVersion)> {
        self.0.iter().find_map(|entry| {
            let known = entry.tag.filter(|known| same_channel(known, tag))?;
            Some((known, ChunkVersion(entry.version)))
        })
    }

    fn check(&self) {
        assert!(self.0.len() <= limits::TAGS_PER_CHUNK);
        debug_assert!(self.0.iter().all(|entry| entry.tag.is_some()));
    }
}

/// Whether two tags number the same row of updates.
pub fn same_channel(a: &pb::UpdateTag, b: &pb::UpdateTag) -> bool {
    a.session == b.session && a.channel == b.channel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(session: u64, channel: u32, seq: u64) -> pb::UpdateTag {
        pb::UpdateTag { session, channel, seq, ack_below: 0 }
    }

    #[test]
    fn the_table_of_answers() {
        let mut tags = Tags::default();
        tags.apply(&tag(1, 2, 5), ChunkVersion(9));
        let rows = [
            (tag(1, 2, 5), Seen::Applied(ChunkVersion(9))),
            (tag(1, 2, 4), Seen::Stale),
            (tag(1, 2, 6), Seen::New),
            (tag(1, 3, 1), Seen::New),
            (tag(2, 2, 5), Seen::New),
        ];
        for (asked, expected) in rows {
            assert_eq!(tags.seen(&asked), expected, "{asked:?}");
        }
    }

    #[test]
    fn what_was_answered_is_forgotten_and_late_if_it_comes_again() {
        let answered = |tag, ack_below| pb::UpdateTag { ack_below, ..tag };
        let mut tags = Tags::default();
        tags.apply(&tag(9, 0, 1), ChunkVersion(1));
        for seq in 1..=4 {
            tags.apply(&answered(tag(7, seq as u32, seq), 1), ChunkVersion(seq + 1));
        }
        assert_eq!(tags.entries().len(), 5, "all may still be asked for");
        tags.apply(&answered(tag(7, 0, 5), 4), ChunkVersion(6));
        assert_eq!(tags.entries().len(), 3);
        for _ in 0..2 {
            assert_eq!(tags.seen(&tag(7, 3, 3)), Seen::Stale);
            assert_eq!(tags.seen(&tag(7, 8, 2)), Seen::Stale, "it never came here, and is late");
            assert_eq!(tags.seen(&tag(7, 4, 4)), Seen::Applied(ChunkVersion(5)));
            assert_eq!(tags.seen(&tag(7, 3, 6)), Seen::New);
            assert_eq!(tags.seen(&tag(9, 0, 1)), Seen::Applied(ChunkVersion(1)), "of another");
            tags = Tags::from_entries(tags.to_entries());
        }
        // An update that was begun before it was known how far the others are.
        tags.apply(&answered(tag(7, 5, 6), 3), ChunkVersion(7));
        assert_eq!(tags.seen(&tag(7, 3, 3)), Seen::Stale);
    }

    #[test]
    fn a_channel_has_one_entry_and_the_oldest_version_makes_room() {
        let mut tags = Tags::default();
        for round in 0..3u64 {
            for channel in 0..limits::TAGS_PER_CHUNK as u32 {
                let version = ChunkVersion(round * 100 + u64::from(channel) + 1);
                tags.apply(&tag(7, channel, round + 1), version);
            }
        }
        assert_eq!(tags.entries().len(), limits::TAGS_PER_CHUNK);
        tags.apply(&tag(8, 0, 1), ChunkVersion(900));
        assert_eq!(tags.seen(&tag(7, 0, 3)), Seen::New, "evicted");
        assert_eq!(tags.seen(&tag(7, 1, 3)), Seen::Applied(ChunkVersion(202)));
        assert_eq!(Tags::from_entries(tags.to_entries()), tags, "survives the record");
    }

    #[test]
    fn foreign_entries_are_bounded() {
        let entries = (0..1_000)
            .map(|n| pb::AppliedTag { tag: (n % 2 == 0).then(|| tag(n, 0, 1)), version: n });
        let tags = Tags::from_entries(entries);
        assert_eq!(tags.entries().len(), limits::TAGS_PER_CHUNK);
        assert_eq!(tags.seen(&tag(998, 0, 1)), Seen::Applied(ChunkVersion(998)));
    }
}
