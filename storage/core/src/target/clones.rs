//! What chunks were, kept for snapshots (docs/design/0011).
//!
//! A clone is a chunk of its own, whose name is the chunk's with the number of the newest snapshot that
//! shows it. Nobody writes it. It comes into being when an update that the head made under a newer snapshot
//! is committed: each member then has its old version under the clone's name, without a message and without
//! moving a byte. From then on it is synced, scrubbed and removed like any chunk.
//!
//! What a chunk is, or a clone, has been so `since` a snapshot: that one and earlier ones do not show it.
//! So a snapshot shows the first clone that is not older than itself, or else the chunk as it is, if that
//! was so at its time; if not, there was none.
//!
//! The head alone looks at the snapshots, and its lease says that it knows of all that were published: so no
//! update that begins later goes without its clone. While a snapshot is being made none begins at all, and it is
//! made once those that had begun are over, which is what makes one moment of all chains.

use ff2_proto::{
    ChainVersion, ChunkId,
    marks::{Mark, reached},
};

use super::{
    Now, Outputs, Target,
    live::{Live, Pending},
    types::{Keeping, Record, Snapshots},
};
use crate::tags::Tags;

impl<P: Clone> Target<P> {
    pub(super) fn set_snapshots(&mut self, now: Now, snapshots: Snapshots, out: &mut Outputs<P>) {
        debug_assert!(snapshots.ids.is_sorted());
        let thaws = self.snapshots.frozen && !snapshots.frozen;
        self.snapshots = snapshots;
        if thaws {
            reached(Mark::UpdatesThawed);
            let chunks: Vec<ChunkId> = self.live.keys().copied().collect();
            for chunk in chunks {
                self.progress(now, chunk, out);
            }
        }
    }

    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// It is a head that begins no updates, and none that had begun is left: what a snapshot shows of this
    /// chain does not change any more, and later reads see no less.
    pub fn holds(&self) -> bool {
        let is_pending = |live: &Live<P>| live.pending.is_some();
        self.snapshots.frozen && self.role.is_head() && !self.live.values().any(is_pending)
    }

    /// Of an update that the head makes now.
    pub(super) fn keeping_now(&self, chunk: ChunkId) -> Keeping {
        let newest = self.snapshots.ids.last().copied().unwrap_or(0);
        let Some(record) = self.records.get(&chunk) else {
            return Keeping { since: newest, keep: 0 };
        };
        let is_shown = newest > record.since && chunk.snapshot == 0;
        Keeping { since: newest.max(record.since), keep: if is_shown { newest } else { 0 } }
    }

    /// The update goes by what the head said, as far as this member has what is to be kept. One that
    /// lacks it syncs, and is sent the clone like any chunk.
    pub(super) fn keep_by(&self, chunk: ChunkId, keeping: Keeping, pending: &mut Pending<P>) {
        let has_base = self.records.get(&chunk).is_some_and(|r| Some(r.id) == pending.base);
        pending.keeping = keeping;
        pending.keeps = keeping.keep != 0 && has_base && !self.is_known(chunk.at(keeping.keep));
    }

    fn is_known(&self, clone: ChunkId) -> bool {
        self.records.contains_key(&clone) || self.live.contains_key(&clone)
    }

    /// The update is being committed: what it builds on becomes the clone. The store does the same.
    pub(super) fn keep(&mut self, now: Now, chunk: ChunkId, pending: &Pending<P>) {
        let clone = chunk.at(pending.keeping.keep);
        let Some(record) = self.records.get(&chunk).filter(|_| !self.is_known(clone)) else {
            return;
        };
        assert_eq!(Some(record.id), pending.base, "what is kept is what the update builds on");
        assert!(record.since < pending.keeping.keep, "a clone is for a later snapshot");
        let record =
            Record { tags: Tags::default(), synced_under: ChainVersion(0), ..record.clone() };
        reached(Mark::CloneMade);
        self.records.insert(clone, record);
        if self.suspects.contains(&chunk) {
            self.suspects.insert(clone);
        }
        if let Some(source) = &mut self.source {
            source.redo(now.at, clone);
        }
    }

    /// The chunk, or the clone of it, that a snapshot shows (which `chunk` names; 0: as it is).
    pub(super) fn shown_at(&self, chunk: ChunkId) -> Option<ChunkId> {
        if chunk.snapshot == 0 {
            return self.records.contains_key(&chunk).then_some(chunk);
        }
        let clone = self.records.range(chunk..=chunk.at(u32::MAX)).next();
        let (found, record) = clone.or_else(|| self.records.get_key_value(&chunk.now()))?;
        (record.since < chunk.snapshot).then_some(*found)
    }
}
