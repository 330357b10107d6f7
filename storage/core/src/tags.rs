//! What a chunk remembers of its latest updates, so that a retried one is not carried out twice.
//!
//! A client numbers the updates of each of its channels; one channel has one update in flight. The
//! chunk keeps, for each channel, the last number and the version it made. The entries are part of
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
        let Some((known, version)) = self.channel(tag) else { return Seen::New };
        match tag.seq.cmp(&known.seq) {
            std::cmp::Ordering::Greater => Seen::New,
            std::cmp::Ordering::Equal => Seen::Applied(version),
            std::cmp::Ordering::Less => Seen::Stale,
        }
    }

    /// Remembers an update. The entry with the oldest version makes room.
    pub fn apply(&mut self, tag: &pb::UpdateTag, version: ChunkVersion) {
        self.0.retain(|entry| !entry.tag.is_some_and(|known| same_channel(&known, tag)));
        while self.0.len() >= limits::TAGS_PER_CHUNK {
            self.0.remove(0);
        }
        self.0.push(pb::AppliedTag { tag: Some(*tag), version: version.0 });
        self.check();
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
        pb::UpdateTag { session, channel, seq }
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
