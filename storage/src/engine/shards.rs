//! The memory index: chunks in independent parts, each behind its lock.
//!
//! A bounded cache over the rows of RocksDB. What must not be forgotten (patches, pending versions,
//! holes that are still young) stays whatever the bound says; how much that can be is bounded by
//! the engine's own limits.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use ff2_proto::{Status, TargetId};
use parking_lot::{Mutex, MutexGuard};

use super::{
    LocalChunk,
    chunk::Chunk,
    index::Index,
    ledger::Ledger,
    limits::{SHARD_PIECES_MAX, SHARDS},
};

#[derive(Debug)]
pub(super) struct Shards {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    chunks: HashMap<LocalChunk, Chunk>,
    /// In order of arrival: who may have to go next.
    order: VecDeque<LocalChunk>,
    /// Uses since the bound was last looked at.
    uses: u32,
}

/// Uses of a shard between two looks at its bound.
const USES_PER_TRIM: u32 = 128;

impl Shards {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn lock(&self, of: LocalChunk) -> MutexGuard<'_, Shard> {
        // A chunk and its clones lie together: a commit that makes one changes both.
        let of = LocalChunk { chunk: of.chunk.now(), ..of };
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of);
        self.shards[hash as usize % SHARDS].lock()
    }

    /// Forgets everything of a target that is going; how many committed patches that was.
    pub(super) fn forget(&self, target: TargetId) -> usize {
        let mut patches = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.chunks.retain(|of, chunk| {
                let stays = of.target != target;
                patches += if stays { 0 } else { chunk.patches.len() };
                stays
            });
            shard.order.retain(|of| of.target != target);
        }
        patches
    }
}

impl Shard {
    /// The chunk, from memory or from the index; `None` if it does not exist.
    pub(super) fn find(
        &mut self,
        of: LocalChunk,
        index: &Index,
    ) -> Result<Option<&mut Chunk>, Status> {
        if !self.chunks.contains_key(&of) {
            match Chunk::load(of, index)? {
                Some(chunk) => self.insert(of, chunk),
                None => return Ok(None),
            }
        }
        Ok(self.chunks.get_mut(&of))
    }

    /// As [`Shard::find`]; a chunk that does not exist begins to.
    pub(super) fn find_or_new(
        &mut self,
        of: LocalChunk,
        index: &Index,
    ) -> Result<&mut Chunk, Status> {
        if !self.chunks.contains_key(&of) {
            let chunk = Chunk::load(of, index)?.unwrap_or_default();
            self.insert(of, chunk);
        }
        Ok(self.chunks.get_mut(&of).expect("it was just inserted"))
    }

    /// The chunk if it is in memory.
    pub(super) fn known(&mut self, of: LocalChunk) -> Option<&mut Chunk> {
        self.chunks.get_mut(&of)
    }

    pub(super) fn insert(&mut self, of: LocalChunk, chunk: Chunk) {
        if let Entry::Vacant(vacant) = self.chunks.entry(of) {
            vacant.insert(chunk);
            self.order.push_back(of);
        }
    }

    /// Forgets a chunk that does not exist any more.
    pub(super) fn remove(&mut self, of: LocalChunk) {
        if self.chunks.remove(&of).is_some() {
            self.order.retain(|other| *other != of);
        }
    }

    /// Now and then forgets chunks until the bound is kept, as far as they may be forgotten. Called
    /// with the ledger locked after the shard, as everywhere.
    pub(super) fn trim(&mut self, ledger: &Ledger) {
        self.uses += 1;
        if self.uses < USES_PER_TRIM {
            return;
        }
        self.uses = 0;
        let mut weight: usize = self.chunks.values().map(Chunk::weight).sum();
        if weight <= SHARD_PIECES_MAX {
            return;
        }
        for _ in 0..self.order.len() {
            if weight <= SHARD_PIECES_MAX / 2 {
                return;
            }
            let Some(of) = self.order.pop_front() else { return };
            let stays = self
                .chunks
                .get(&of)
                .is_some_and(|chunk| chunk.must_stay() || !ledger.is_settled(chunk.holes_batch));
            if stays {
                self.order.push_back(of);
            } else if let Some(chunk) = self.chunks.remove(&of) {
                weight -= chunk.weight();
            }
        }
    }
}
