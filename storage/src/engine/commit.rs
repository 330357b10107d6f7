//! The end of a pending version: it becomes the committed one, or is forgotten.

use std::{collections::BTreeMap, sync::Arc};

use ff2_proto::{ChainVersion, ChunkVersion, Status, status::Code};
use ff2_storage_core::{
    alloc::Block,
    format::{Key, Piece},
};

use super::{
    CommittedChunk, LocalChunk, PendingKind,
    chunk::{
        Chunk, Patches, PendingState, PieceChange, Slot, adjusted, committed_record, no_pending,
    },
    core::{Core, count},
    index::{Changes, Index},
    ledger::Ledger,
    limits,
};

/// What a commit does: a batch, and the same for the memory.
#[derive(Default)]
struct Flip {
    changes: Changes,
    pieces: Vec<(u16, Option<Arc<Piece>>)>,
    freed: Vec<Block>,
    gone_patches: Vec<(u16, u8)>,
    makes_holes: bool,
    clone: Option<Kept>,
}

/// What a chunk was: its rows go to a name of their own, its blocks stay where they are.
struct Kept {
    of: LocalChunk,
    committed: CommittedChunk,
    pieces: BTreeMap<u16, Arc<Piece>>,
    patches: Patches,
}

impl Core {
    pub(super) fn commit(
        &self,
        of: LocalChunk,
        version: ChunkVersion,
        chain_version: ChainVersion,
    ) -> Result<(), Status> {
        let mut shard = self.shards.lock(of);
        let Some(chunk) = shard.find(of, &self.index)? else { return Err(no_pending(of)) };
        let Some(pending) = chunk.prepared() else {
            let done = chunk.committed.as_ref().is_some_and(|known| known.version >= version);
            return if done { Ok(()) } else { Err(no_pending(of)) };
        };
        if pending.about.version != version {
            let detail =
                format!("{of} has pending version {}, not {version}", pending.about.version);
            return Err(Status::new(Code::MissingUpdate, detail));
        }
        let about = pending.about.clone();
        let clone = LocalChunk { chunk: of.chunk.at(about.keeping.keep), ..of };
        // One that is there stays; one that is on its way from another replica comes.
        let keeps = about.keeping.keep != 0 && shard.find(clone, &self.index)?.is_none();
        let Some(chunk) = shard.find(of, &self.index)? else { return Err(no_pending(of)) };
        let mut flip = Flip::new(of, chunk, keeps.then_some(clone), &self.index)?;
        let removed = about.kind == PendingKind::Remove;
        let committed = CommittedChunk {
            version,
            chain_version,
            length: about.length,
            chunk_size: about.chunk_size,
            tags: about.tags,
            since: about.keeping.since,
        };
        flip.changes.delete(&Key::Pending(of.target, of.chunk));
        let key = Key::Chunk(of.target, of.chunk);
        if removed {
            flip.changes.delete(&key);
        } else {
            flip.changes.put_record(&key, &committed_record(&committed));
        }
        let mut ledger = self.ledger.lock();
        let batch = self.write(&mut ledger, std::mem::take(&mut flip.changes))?;
        let clone = flip.clone.take();
        flip.apply(of, chunk, &mut ledger, batch);
        chunk.committed = Some(committed);
        if removed {
            assert!(chunk.patches.is_empty(), "the patches went with their pieces");
            shard.remove(of);
        }
        if let Some(Kept { of, committed, pieces, patches }) = clone {
            ledger.patches += patches.len();
            if !patches.is_empty() {
                ledger.dirty.insert(of);
            }
            shard.insert(of, Chunk::cloned(committed, pieces, patches));
        }
        let kick = ledger.patches >= limits::PATCHES_KICK;
        drop(ledger);
        drop(shard);
        if kick {
            self.patches_kick.notify_one();
        }
        count(&self.counters.commits);
        Ok(())
    }

    /// Returns whether there was a version to forget. The next sync of the index makes it durable.
    pub(super) fn abort(&self, of: LocalChunk) -> Result<bool, Status> {
        let mut shard = self.shards.lock(of);
        let Some(chunk) = shard.known(of) else { return Ok(false) };
        let pending = match &chunk.slot {
            Slot::Free => return Ok(false),
            Slot::Preparing => {
                return Err(Status::new(Code::Busy, format!("{of} has an update in progress")));
            }
            Slot::Prepared(pending) => pending,
        };
        let mut changes = Changes::default();
        changes.delete(&Key::Pending(of.target, of.chunk));
        for ((piece, sector), patch) in &pending.patches {
            changes.delete_patch(of, *piece, *sector, patch.version);
        }
        let mut ledger = self.ledger.lock();
        let batch = self.write(&mut ledger, changes)?;
        ledger.retire(pending.new_blocks());
        let filled = pending.pieces.values().any(
            |change| matches!(change, PieceChange::Adjusted { filled, .. } if !filled.is_empty()),
        );
        if filled {
            chunk.holes_batch = batch;
        }
        chunk.slot = Slot::Free;
        if chunk.committed.is_none() {
            shard.remove(of);
        }
        drop(ledger);
        drop(shard);
        count(&self.counters.aborts);
        Ok(true)
    }
}

impl Flip {
    fn new(
        of: LocalChunk,
        chunk: &mut Chunk,
        clone: Option<LocalChunk>,
        index: &Index,
    ) -> Result<Self, Status> {
        let clone = clone.zip(chunk.committed.clone()).map(|(of, committed)| {
            // Tags are of whom writes, and nobody writes a clone.
            let committed = CommittedChunk { tags: Vec::new(), ..committed };
            Kept { of, committed, pieces: BTreeMap::new(), patches: chunk.patches.clone() }
        });
        let mut flip = Self { clone, ..Self::default() };
        let Slot::Prepared(pending) = std::mem::take(&mut chunk.slot) else {
            unreachable!("the caller looked");
        };
        let filled = flip.fill(of, chunk, &pending, index);
        // The slot is given up by `apply` alone, once the index has taken the batch.
        chunk.slot = Slot::Prepared(pending);
        filled.map(|()| flip)
    }

    fn fill(
        &mut self,
        of: LocalChunk,
        chunk: &mut Chunk,
        pending: &PendingState,
        index: &Index,
    ) -> Result<(), Status> {
        for (number, change) in &pending.pieces {
            let old = chunk.piece(of, *number, index)?;
            let (new, hidden) = match change {
                PieceChange::Dropped => (None, u64::MAX),
                PieceChange::Replaced(piece) => (Some(piece.clone()), u64::MAX),
                PieceChange::Adjusted { filled, cleared } => {
                    let old = old.as_ref().ok_or_else(|| {
                        Status::new(Code::Corrupt, format!("{of} has lost piece {number}"))
                    })?;
                    self.makes_holes |= *cleared != 0;
                    (Some(Arc::new(adjusted(old, filled, *cleared))), *cleared)
                }
            };
            let hidden_patches = chunk.patches_of(*number).filter(|(s, _)| hidden >> s & 1 == 1);
            for (sector, patch) in hidden_patches {
                self.changes.delete_patch(of, *number, sector, patch.version);
                self.gone_patches.push((*number, sector));
            }
            match (&mut self.clone, old) {
                (Some(clone), Some(old)) => {
                    assert!(
                        !matches!(change, PieceChange::Adjusted { .. }),
                        "it has its own block"
                    );
                    clone.pieces.insert(*number, old);
                }
                (None, Some(old)) if !matches!(change, PieceChange::Adjusted { .. }) => {
                    self.freed.push(old.block);
                }
                (_, None) | (None, Some(_)) => {}
            }
            match &new {
                Some(piece) => self.changes.put_piece(of, *number, piece),
                None => self.changes.delete(&Key::Piece(of.target, of.chunk, *number)),
            }
            self.pieces.push((*number, new));
        }
        for place in pending.patches.keys() {
            let replaced = chunk.patches.get(place).filter(|_| !self.gone_patches.contains(place));
            if let Some(old) = replaced {
                self.changes.delete_patch(of, place.0, place.1, old.version);
                self.gone_patches.push(*place);
            }
        }
        if let Some(Kept { of, committed, pieces, patches }) = &self.clone {
            for (number, piece) in pieces {
                self.changes.put_piece(*of, *number, piece);
            }
            for ((piece, sector), patch) in patches {
                let key = Key::Patch(of.target, of.chunk, *piece, *sector, patch.version);
                self.changes.put(&key, &patch.bytes);
            }
            self.changes.put_record(&Key::Chunk(of.target, of.chunk), &committed_record(committed));
        }
        Ok(())
    }

    /// After the index took the batch.
    fn apply(self, of: LocalChunk, chunk: &mut Chunk, ledger: &mut Ledger, batch: u64) {
        let Slot::Prepared(pending) = std::mem::take(&mut chunk.slot) else {
            unreachable!("`new` put it back");
        };
        for (number, piece) in self.pieces {
            chunk.set_piece(number, piece);
        }
        for place in &self.gone_patches {
            let gone = chunk.patches.remove(place);
            assert!(gone.is_some(), "a patch goes once");
        }
        ledger.patches += pending.patches.len();
        ledger.patches -= self.gone_patches.len();
        for (place, mut patch) in pending.patches {
            patch.batch = batch;
            chunk.patches.insert(place, patch);
        }
        ledger.retire(self.freed);
        if self.makes_holes {
            chunk.holes_batch = batch;
        }
        if chunk.patches.is_empty() {
            ledger.dirty.remove(&of);
        } else {
            ledger.dirty.insert(of);
        }
    }
}
