//! Making a pending version durable beside the committed one.

use std::{collections::BTreeMap, ops::Bound};

use ff2_daemon::fault_async;
use ff2_proto::{ChunkVersion, Status, limits::CHUNK_SIZE_MAX, status::Code};
use ff2_storage_core::{
    alloc::Block,
    format::{Key, PIECE_SIZE, SECTOR},
    plan::{self, Change, ChunkState, PieceState, Plan, Step},
};

use super::{
    LocalChunk, Pending, PendingChunk, PendingKind, Prepared, Which,
    chunk::{Chunk, PendingState, PieceView, Slot},
    core::{Core, Room, Use, count},
    gone,
    image::{Image, Source},
    index::Changes,
    limits,
};

/// What was decided under the locks, and is carried out without them.
struct Draft<'a> {
    plan: Plan,
    /// By piece: the new blocks of its rewrites.
    blocks: BTreeMap<u16, Block>,
    /// The pieces before the update, as far as their content is needed.
    old: BTreeMap<u16, PieceView>,
    /// While the old content is read.
    _use: Use<'a>,
    /// While the new content is written.
    _room: Room<'a>,
}

/// A plan, the pieces that it needs as they were, and the room that it takes.
type Planned<'a> = (Plan, BTreeMap<u16, PieceView>, Room<'a>);

impl Core {
    pub(super) async fn prepare(
        &self,
        of: LocalChunk,
        update: Pending,
    ) -> Result<Prepared, Status> {
        let change = change_of(&update)?;
        self.check_target(of.target)?;
        self.check_not_broken()?;
        let _permit = self.prepares.acquire().await.map_err(|_| gone())?;
        if matches!(update.kind, PendingKind::Write | PendingKind::Truncate) {
            self.wait_for_patch_room().await?;
        }
        let draft = self.draft(of, &update, change).await?;
        let length = draft.plan.length;
        let about = PendingChunk {
            version: update.version,
            chain_version: update.chain_version,
            kind: update.kind,
            length,
            chunk_size: update.chunk_size,
            tags: update.tags.clone(),
            keeping: update.keeping,
        };
        let blocks: Vec<Block> = draft.blocks.values().copied().collect();
        let outcome = match self.write_image(of, &draft, &update).await {
            Ok(image) => {
                let state = PendingState { about, pieces: image.pieces, patches: image.patches };
                self.record(of, state)
            }
            Err(error) => Err(error),
        };
        drop(draft);
        if let Err(error) = outcome {
            self.undo(of, blocks);
            return Err(error);
        }
        // Should this fail, the index is broken: the version stays pending in memory, nothing is
        // told to be durable, and the next start finds out.
        self.sync_index().await?;
        count(&self.counters.prepares);
        Ok(Prepared { version: update.version, length })
    }

    /// Only updates that may leave patches ask. While write-back fails there will be no room: they
    /// hear why, rather than wait for a disk that may never take it.
    async fn wait_for_patch_room(&self) -> Result<(), Status> {
        loop {
            let room = self.patches_room.notified();
            if self.ledger.lock().patches < limits::PATCHES_MAX {
                return Ok(());
            }
            if let Some(error) = self.write_back_failure.lock().clone() {
                return Err(error);
            }
            self.patches_kick.notify_one();
            room.await;
        }
    }

    /// Plans and takes blocks. Space that only waits for a sync, or for reads to end, is waited for.
    async fn draft(
        &self,
        of: LocalChunk,
        update: &Pending,
        change: Change,
    ) -> Result<Draft<'_>, Status> {
        for look in 0..limits::RETIRED_LOOKS {
            if let Some(draft) = self.try_draft(of, update, change)? {
                return Ok(draft);
            }
            if !self.ledger.lock().has_retired() {
                break;
            }
            self.sync_index().await?;
            if look > 0 {
                tokio::time::sleep(limits::RETIRED_WAIT).await;
            }
        }
        self.try_draft(of, update, change)?.ok_or_else(|| self.no_space("all blocks are in use"))
    }

    /// `None`: there are not enough blocks now.
    fn try_draft(
        &self,
        of: LocalChunk,
        update: &Pending,
        change: Change,
    ) -> Result<Option<Draft<'_>>, Status> {
        let mut shard = self.shards.lock(of);
        let chunk = shard.find_or_new(of, &self.index)?;
        let planned = self.plan(of, chunk, update, change);
        let (plan, old, _room) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                if chunk.committed.is_none() && matches!(chunk.slot, Slot::Free) {
                    shard.remove(of);
                }
                return Err(error);
            }
        };
        let mut ledger = self.ledger.lock();
        let sizes: Vec<u32> = plan.blocks().collect();
        let near = plan.steps.first_key_value().and_then(|(piece, _)| chunk.end_before(*piece));
        let reserve = match update.kind {
            PendingKind::Replace => 0,
            PendingKind::Write | PendingKind::Truncate | PendingKind::Remove => {
                ledger.capacity() / limits::RESERVE_DIVISOR
            }
        };
        let blocks = if sizes.is_empty() {
            Vec::new()
        } else {
            match ledger.allocate(&sizes, near, reserve) {
                Some(blocks) => blocks,
                None if chunk.committed.is_none() => {
                    shard.remove(of);
                    return Ok(None);
                }
                None => return Ok(None),
            }
        };
        let rewritten = plan.steps.iter().filter(|(_, step)| matches!(step, Step::Rewrite { .. }));
        let blocks = rewritten.map(|(piece, _)| *piece).zip(blocks).collect();
        chunk.slot = Slot::Preparing;
        let _use = Use::begin(self, &mut ledger);
        shard.trim(&ledger);
        Ok(Some(Draft { plan, blocks, old, _use, _room }))
    }

    fn plan(
        &self,
        of: LocalChunk,
        chunk: &mut Chunk,
        update: &Pending,
        change: Change,
    ) -> Result<Planned<'_>, Status> {
        match &chunk.slot {
            Slot::Free => {}
            Slot::Preparing => return Err(occupied(of, "an update in progress")),
            Slot::Prepared(pending) => {
                return Err(occupied(of, &format!("pending version {}", pending.about.version)));
            }
        }
        let committed = chunk.committed.as_ref().map_or(ChunkVersion(0), |known| known.version);
        // A syncing target may hold a chunk that was removed and made anew elsewhere, where versions
        // began again: what does not build on the chunk's content takes its place.
        let builds_on = matches!(update.kind, PendingKind::Write | PendingKind::Truncate);
        if builds_on && update.version <= committed {
            let detail = format!("{of} has version {committed}, so {} is old", update.version);
            return Err(Status::new(Code::StaleUpdate, detail));
        }
        let keeps = update.keeping.keep != 0 && chunk.committed.is_some();
        let (first, end) = change.pieces_of(keeps);
        if end == u32::MAX {
            chunk.know_all_pieces(of, &self.index)?;
        } else {
            for number in first..end {
                chunk.piece(of, number as u16, &self.index)?;
            }
        }
        // One piece before them tells where the next block would best lie.
        if first > 0 && end != u32::MAX {
            chunk.piece(of, (first - 1) as u16, &self.index)?;
        }
        let range = (Bound::Included(first), Bound::Excluded(end));
        let mut pieces = BTreeMap::new();
        for (number, piece) in chunk.known_pieces() {
            if std::ops::RangeBounds::contains(&range, &u32::from(number)) {
                let patched =
                    chunk.patches_of(number).fold(0, |mask, (sector, _)| mask | 1 << sector);
                let written = piece.written | patched;
                pieces.insert(number, PieceState { block_size: piece.block.size, written });
            }
        }
        let state = ChunkState {
            length: chunk.length(),
            chunk_size: update.chunk_size,
            may_fill: self.ledger.lock().is_settled(chunk.holes_batch),
            grows: of.chunk.index > 0 || chunk.length() >= PIECE_SIZE,
            keeps,
            pieces: &pieces,
        };
        let plan = plan::plan(&state, change)
            .map_err(|refused| Status::new(Code::InvalidArgument, format!("{of}: {refused}")))?;
        let room = self
            .room_for(update.kind, u64::from(plan.placed_sectors()) * u64::from(SECTOR))
            .ok_or_else(|| self.no_space("the file system has little space left"))?;
        let mut old = BTreeMap::new();
        for number in plan.steps.keys() {
            old.insert(*number, chunk.view(of, *number, Which::Committed, &self.index)?);
        }
        Ok((plan, old, room))
    }

    /// A write that grows leaves the file system's reserve alone. A replacement may use some of it,
    /// so that a repair still fits, but not all: without room for the index nothing works.
    fn room_for(&self, kind: PendingKind, bytes: u64) -> Option<Room<'_>> {
        match kind {
            PendingKind::Write if bytes > 0 => self.file_system_room(bytes, 1),
            PendingKind::Write | PendingKind::Replace => {
                self.file_system_room(bytes, limits::LAST_RESERVE_DIVISOR)
            }
            PendingKind::Truncate | PendingKind::Remove => Some(Room::none(self)),
        }
    }

    /// Builds the new sectors and brings those that go to blocks to the disk, durably.
    async fn write_image(
        &self,
        of: LocalChunk,
        draft: &Draft<'_>,
        update: &Pending,
    ) -> Result<Image, Status> {
        let source = Source {
            of,
            plan: &draft.plan,
            blocks: &draft.blocks,
            old: &draft.old,
            payload: &update.payload,
            offset: if update.kind == PendingKind::Write { update.offset } else { 0 },
            version: update.version.0,
        };
        let mut image = Image::build(self, &source).await?;
        let writes = std::mem::take(&mut image.writes);
        if !writes.is_empty() {
            fault_async!("storage.engine.write")?;
            self.disk.write(writes).await?;
            if self.sync_data {
                self.disk.sync().await?;
            }
        }
        fault_async!("storage.engine.index")?;
        Ok(image)
    }

    /// Puts the pending version into the index; durable with the next sync.
    fn record(&self, of: LocalChunk, state: PendingState) -> Result<(), Status> {
        let mut changes = Changes::default();
        changes.put_record(&Key::Pending(of.target, of.chunk), &state.to_record());
        for ((piece, sector), patch) in &state.patches {
            let key = Key::Patch(of.target, of.chunk, *piece, *sector, patch.version);
            changes.put(&key, &patch.bytes);
        }
        let mut shard = self.shards.lock(of);
        let chunk = shard.known(of).expect("a chunk with an occupied slot stays in memory");
        assert!(matches!(chunk.slot, Slot::Preparing), "only this update is in progress");
        let mut ledger = self.ledger.lock();
        self.write(&mut ledger, changes)?;
        chunk.slot = Slot::Prepared(Box::new(state));
        Ok(())
    }

    /// Nothing durable refers to the blocks, and nothing reads or writes them any more.
    fn undo(&self, of: LocalChunk, blocks: Vec<Block>) {
        let mut shard = self.shards.lock(of);
        let chunk = shard.known(of).expect("a chunk with an occupied slot stays in memory");
        assert!(matches!(chunk.slot, Slot::Preparing), "only this update is in progress");
        chunk.slot = Slot::Free;
        if chunk.committed.is_none() {
            shard.remove(of);
        }
        self.ledger.lock().release(blocks);
    }
}

fn change_of(update: &Pending) -> Result<Change, Status> {
    let bad = |why: &str| Err(Status::new(Code::InvalidArgument, why));
    if update.chunk_size == 0 || update.chunk_size > CHUNK_SIZE_MAX {
        return bad("a chunk size must be above 0 and within the largest");
    }
    let Ok(payload) = u32::try_from(update.payload.len()) else {
        return bad("a payload is at most one chunk");
    };
    Ok(match update.kind {
        PendingKind::Write => Change::Write { offset: update.offset, length: payload },
        PendingKind::Truncate => Change::Truncate { length: update.length },
        PendingKind::Remove => Change::Remove,
        PendingKind::Replace => Change::Replace { length: update.length, payload },
    })
}

fn occupied(of: LocalChunk, by: &str) -> Status {
    Status::new(Code::Busy, format!("{of} has {by}"))
}
