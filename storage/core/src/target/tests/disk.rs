//! A store in memory that can lose what it did not sync.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_proto::ChunkId;

use super::Dice;
use crate::{
    tags::Tags,
    target::{Change, Keeping, Loaded, LoadedPending, Record, StoreOp, UpdateId},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Disk {
    chunks: BTreeMap<ChunkId, Stored>,
    /// Chunks before commits that no later sync has covered, newest last, with the clones that these made.
    unsynced: Vec<(ChunkId, Stored, Option<ChunkId>)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Stored {
    committed: Option<Content>,
    pending: Option<(Content, bool)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Content {
    pub(super) id: UpdateId,
    pub(super) bytes: Vec<u8>,
    chunk_size: u32,
    tags: Tags,
    keeping: Keeping,
}

impl Disk {
    pub(super) fn perform(&mut self, chunk: ChunkId, op: &StoreOp<Bytes>) {
        let has = |clone| self.chunks.contains_key(&clone);
        let kept = self.pending(chunk).map_or(0, |content| content.keeping.keep);
        let clone = Some(chunk.at(kept)).filter(|clone| kept != 0 && !has(*clone));
        let stored = self.chunks.entry(chunk).or_default();
        match op {
            StoreOp::Prepare { id, change, chunk_size, tags, keeping } => {
                let before = stored.committed.as_ref().map(|c| c.bytes.clone()).unwrap_or_default();
                let bytes = changed(before, change);
                let (chunk_size, tags, keeping) = (*chunk_size, tags.clone(), *keeping);
                let content = Content { id: *id, bytes, chunk_size, tags, keeping };
                stored.pending = Some((content, change.removes()));
                self.unsynced.clear();
            }
            StoreOp::Commit { id } => {
                self.unsynced.push((chunk, stored.clone(), clone));
                let before = stored.committed.take();
                let (content, removes) = stored.pending.take().expect("a pending version");
                assert_eq!(content.id, *id, "the version that is pending is committed");
                stored.committed = (!removes).then_some(content);
                if let Some((clone, before)) = clone.zip(before) {
                    let committed = Some(Content { tags: Tags::default(), ..before });
                    self.chunks.insert(clone, Stored { committed, pending: None });
                }
            }
            StoreOp::Abort { .. } => {
                stored.pending = None;
                self.unsynced.clear();
            }
        }
    }

    /// Power goes: some of what was not synced is undone, latest first.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        while let Some((chunk, before, clone)) = self.unsynced.pop() {
            if dice.chance(50) {
                self.unsynced.clear();
                return;
            }
            self.chunks.insert(chunk, before);
            clone.map(|clone| self.chunks.remove(&clone));
        }
    }

    pub(super) fn committed(&self, chunk: ChunkId) -> Option<&Content> {
        self.chunks.get(&chunk)?.committed.as_ref()
    }

    pub(super) fn pending(&self, chunk: ChunkId) -> Option<&Content> {
        self.chunks.get(&chunk)?.pending.as_ref().map(|(content, _)| content)
    }

    pub(super) fn all(&self) -> BTreeMap<ChunkId, (UpdateId, Vec<u8>)> {
        let committed = self.chunks.iter().filter_map(|(&chunk, stored)| {
            let content = stored.committed.as_ref()?;
            Some((chunk, (content.id, content.bytes.clone())))
        });
        committed.collect()
    }

    pub(super) fn load(&self) -> Vec<Loaded> {
        let loaded = self.chunks.iter().map(|(&chunk, stored)| Loaded {
            chunk,
            committed: stored.committed.as_ref().map(|content| Record {
                id: content.id,
                length: content.bytes.len() as u32,
                chunk_size: content.chunk_size,
                tags: content.tags.clone(),
                since: content.keeping.since,
                synced_under: 0.into(),
            }),
            pending: stored.pending.as_ref().map(|(content, removes)| LoadedPending {
                id: content.id,
                removes: *removes,
                length: content.bytes.len() as u32,
                chunk_size: content.chunk_size,
                tags: content.tags.clone(),
                keeping: content.keeping,
            }),
        });
        loaded.filter(|loaded| loaded.committed.is_some() || loaded.pending.is_some()).collect()
    }
}

fn changed(mut bytes: Vec<u8>, change: &Change<Bytes>) -> Vec<u8> {
    match change {
        Change::Write { offset, length, payload } => {
            assert_eq!(payload.len(), *length as usize);
            let end = (*offset + *length) as usize;
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(payload);
        }
        Change::Truncate { length } => bytes.resize(*length as usize, 0),
        Change::Remove => bytes.clear(),
        Change::Replace { length, payload } => {
            bytes = payload.to_vec();
            bytes.resize(*length as usize, 0);
        }
    }
    bytes
}
