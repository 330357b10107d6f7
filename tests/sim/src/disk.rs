//! The simulated chunk store of one target: what is decided is visible at once, and durable from the
//! next sync on. A crash keeps a prefix of what was not synced.

use std::collections::BTreeMap;

use ff2_proto::{ChainVersion, ChunkId};
use ff2_storage_core::{
    tags::Tags,
    target::{Change, Loaded, LoadedPending, Record, StoreOp, UpdateId},
};

/// Bytes of a chunk as cells of eight; cell `i` is what a register of the history holds.
pub(crate) type Content = Vec<u64>;

/// Bytes of a cell.
pub(crate) const CELL: u32 = 8;

#[derive(Clone, Debug, Default)]
struct Image {
    chunks: BTreeMap<ChunkId, Stored>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    committed: Option<(Record, Content)>,
    pending: Option<(LoadedPending, Content)>,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    now: Image,
    durable: Image,
    unsynced: Vec<(ChunkId, StoreOp<Content>)>,
}

impl Disk {
    /// Takes an operation in; it may survive a crash from now on, and surely does after [`Disk::sync`].
    pub(crate) fn take(&mut self, chunk: ChunkId, op: StoreOp<Content>) {
        self.now.apply(chunk, &op);
        self.unsynced.push((chunk, op));
    }

    pub(crate) fn sync(&mut self) {
        for (chunk, op) in self.unsynced.drain(..) {
            self.durable.apply(chunk, &op);
        }
    }

    pub(crate) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Loses power; the first `kept` unsynced operations happen to have reached the platter.
    pub(crate) fn crash(&mut self, kept: usize) {
        for (chunk, op) in self.unsynced.drain(..).take(kept) {
            self.durable.apply(chunk, &op);
        }
        self.now = self.durable.clone();
    }

    /// What a starting process finds.
    pub(crate) fn load(&self) -> Vec<Loaded> {
        let chunks = self.now.chunks.iter();
        chunks
            .map(|(&chunk, stored)| Loaded {
                chunk,
                committed: stored.committed.as_ref().map(|(record, _)| record.clone()),
                pending: stored.pending.as_ref().map(|(pending, _)| pending.clone()),
            })
            .collect()
    }

    pub(crate) fn committed(&self, chunk: ChunkId) -> Option<(UpdateId, &Content)> {
        let (record, content) = self.now.chunks.get(&chunk)?.committed.as_ref()?;
        Some((record.id, content))
    }

    pub(crate) fn pending(&self, chunk: ChunkId) -> Option<(UpdateId, &Content)> {
        let (pending, content) = self.now.chunks.get(&chunk)?.pending.as_ref()?;
        Some((pending.id, content))
    }

    /// Every committed chunk with its update and content.
    pub(crate) fn contents(&self) -> BTreeMap<ChunkId, (UpdateId, Content)> {
        let committed = |stored: &Stored| {
            stored.committed.as_ref().map(|(record, content)| (record.id, content.clone()))
        };
        let chunks = self.now.chunks.iter();
        chunks.filter_map(|(&chunk, stored)| Some((chunk, committed(stored)?))).collect()
    }
}

impl Image {
    fn apply(&mut self, chunk: ChunkId, op: &StoreOp<Content>) {
        let stored = self.chunks.entry(chunk).or_default();
        match op {
            StoreOp::Prepare { id, change, chunk_size, tags } => {
                let before = stored.committed.as_ref().map_or(&[][..], |(_, content)| content);
                let content = changed(before, change);
                let pending = LoadedPending {
                    id: *id,
                    removes: change.removes(),
                    length: content.len() as u32 * CELL,
                    chunk_size: *chunk_size,
                    tags: tags.clone(),
                };
                stored.pending = Some((pending, content));
            }
            StoreOp::Commit { id } => {
                let (pending, content) = stored.pending.take().expect("a commit has its pending");
                assert_eq!(pending.id, *id, "the pending update is the one that is committed");
                stored.committed = (!pending.removes).then(|| (record(pending), content));
            }
            StoreOp::Abort { id } => {
                // A prepare that failed left nothing to drop.
                stored.pending.take_if(|(pending, _)| pending.id == *id);
            }
        }
        if stored.committed.is_none() && stored.pending.is_none() {
            self.chunks.remove(&chunk);
        }
    }
}

fn record(pending: LoadedPending) -> Record {
    let LoadedPending { id, length, chunk_size, tags, .. } = pending;
    let tags: Tags = tags;
    Record { id, length, chunk_size, tags, synced_under: ChainVersion(0) }
}

fn changed(before: &[u64], change: &Change<Content>) -> Content {
    let mut content = before.to_vec();
    match change {
        Change::Write { offset, length, payload } => {
            let (first, count) = ((offset / CELL) as usize, (length / CELL) as usize);
            assert_eq!(payload.len(), count, "the payload is as long as it says");
            content.resize(content.len().max(first + count), 0);
            content[first..first + count].copy_from_slice(payload);
        }
        Change::Truncate { length } => content.resize((length / CELL) as usize, 0),
        Change::Remove => content.clear(),
        Change::Replace { length, payload } => {
            content.clone_from(payload);
            content.resize((length / CELL) as usize, 0);
        }
    }
    content
}
