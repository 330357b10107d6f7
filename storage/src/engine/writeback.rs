//! Work behind the updates: patches are brought to their place, freed groups are given up.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ff2_daemon::fault_async;
use ff2_fabric::pace;
use ff2_proto::Status;
use ff2_storage_core::format::SECTOR;
use tokio_util::sync::CancellationToken;

use super::{
    LocalChunk,
    chunk::Patch,
    core::{Core, Use},
    index::Changes,
    limits,
};
use crate::disk::WritePart;

const SECTOR_BYTES: usize = SECTOR as usize;

/// A patch and the place it goes to.
struct Move {
    of: LocalChunk,
    piece: u16,
    sector: u8,
    patch: Patch,
    /// Of the block that held the piece when the round began.
    block: u64,
}

impl Move {
    fn position(&self) -> u64 {
        self.block + u64::from(self.sector) * u64::from(SECTOR)
    }
}

pub(super) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let age = Duration::from_millis(limits::PATCH_AGE_MS);
    let mut failed = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            // What failed just now fails again at once: no kick cuts the pause short.
            () = core.patches_kick.notified(), if !failed => {}
            () = pace::pause(age) => {}
        }
        let outcome = core.write_back_all(&stop).await;
        failed = outcome.is_err();
        if let Err(error) = &outcome {
            // The patches stay in the index, where reads find them.
            tracing::warn!(%error, "patches were not written back");
        }
        *core.write_back_failure.lock() = outcome.err();
        core.patches_room.notify_waiters();
        core.punch_regions().await;
    }
}

impl Core {
    /// Rounds until nothing is left that can be written back now.
    async fn write_back_all(&self, stop: &CancellationToken) -> Result<(), Status> {
        while self.write_back().await? > 0 && !stop.is_cancelled() {}
        Ok(())
    }

    /// One round; how many patches found their place.
    pub(super) async fn write_back(&self) -> Result<usize, Status> {
        if self.ledger.lock().dirty.is_empty() {
            return Ok(0);
        }
        // Only patches whose commit is durable may go over the old content.
        self.sync_index().await?;
        let Some((mut moves, in_use)) = self.moves()? else { return Ok(0) };
        moves.sort_by_key(Move::position);
        fault_async!("storage.engine.write_back")?;
        let mut staging = self.staging.get(moves.len() * SECTOR_BYTES).await;
        for (moved, bytes) in moves.iter().zip(staging.chunks_exact_mut(SECTOR_BYTES)) {
            bytes.copy_from_slice(&moved.patch.bytes);
        }
        let staging = staging.freeze();
        let mut runs: Vec<(u64, usize, usize)> = Vec::new();
        for (number, moved) in moves.iter().enumerate() {
            match runs.last_mut() {
                Some((position, _, length)) if *position + *length as u64 == moved.position() => {
                    *length += SECTOR_BYTES;
                }
                _ => runs.push((moved.position(), number * SECTOR_BYTES, SECTOR_BYTES)),
            }
        }
        let part = |(position, at, length): (u64, usize, usize)| WritePart {
            position,
            bytes: staging.slice(at..at + length),
        };
        self.disk.write(runs.into_iter().map(part).collect()).await?;
        // Without this a power cut could take the patch's row and not bring the sector.
        if self.sync_data {
            self.disk.sync().await?;
        }
        fault_async!("storage.engine.write_back_index")?;
        moves.sort_by_key(|moved| (moved.of, moved.piece, moved.sector));
        for of_chunk in moves.chunk_by(|one, next| one.of == next.of) {
            self.settle(of_chunk)?;
        }
        drop(in_use);
        self.counters.patches_written_back.fetch_add(moves.len() as u64, Ordering::Relaxed);
        self.patches_room.notify_waiters();
        Ok(moves.len())
    }

    /// Committed patches that nothing hinders, and the use that keeps their blocks.
    fn moves(&self) -> Result<Option<(Vec<Move>, Use<'_>)>, Status> {
        let dirty: Vec<LocalChunk> = {
            let ledger = self.ledger.lock();
            ledger.dirty.iter().take(limits::PATCHES_PER_ROUND).copied().collect()
        };
        // The use begins first: a block that is freed from now on is not used again before its end.
        let in_use = Use::begin(self, &mut self.ledger.lock());
        let mut moves: Vec<Move> = Vec::new();
        for of in dirty {
            let mut shard = self.shards.lock(of);
            let Some(chunk) = shard.known(of) else { continue };
            let patches: Vec<_> = {
                let ledger = self.ledger.lock();
                let settled = chunk.patches.iter().filter(|(_, p)| ledger.is_settled(p.batch));
                settled.map(|(place, patch)| (*place, patch.clone())).collect()
            };
            for ((piece, sector), patch) in patches {
                if moves.len() == limits::PATCHES_PER_ROUND {
                    return Ok(Some((moves, in_use)));
                }
                let Some(known) = chunk.piece(of, piece, &self.index)? else { continue };
                moves.push(Move { of, piece, sector, patch, block: known.block.position });
            }
        }
        Ok((!moves.is_empty()).then_some((moves, in_use)))
    }

    /// The sectors of one chunk are in place, durably: their records say so, and the patches go.
    fn settle(&self, moves: &[Move]) -> Result<(), Status> {
        let of = moves[0].of;
        let mut shard = self.shards.lock(of);
        let Some(chunk) = shard.known(of) else { return Ok(()) };
        let mut changes = Changes::default();
        let mut pieces = Vec::new();
        let mut places = Vec::new();
        for of_piece in moves.chunk_by(|one, next| one.piece == next.piece) {
            let number = of_piece[0].piece;
            let Some(old) = chunk.piece(of, number, &self.index)? else { continue };
            let mut piece = old.as_ref().clone();
            let before = places.len();
            for moved in of_piece {
                let place = (number, moved.sector);
                let same = chunk.patches.get(&place).is_some_and(|p| p.batch == moved.patch.batch);
                // A later update hid the patch, or gave the piece another block: what was written
                // lies where nobody looks.
                if same && piece.block.position == moved.block {
                    piece.set(moved.sector.into(), moved.patch.crc);
                    changes.delete_patch(of, number, moved.sector, moved.patch.version);
                    places.push(place);
                }
            }
            if places.len() > before {
                changes.put_piece(of, number, &piece);
                pieces.push((number, Arc::new(piece)));
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let mut ledger = self.ledger.lock();
        self.write(&mut ledger, changes)?;
        for (number, piece) in pieces {
            chunk.set_piece(number, Some(piece));
        }
        for place in &places {
            chunk.patches.remove(place);
        }
        ledger.patches -= places.len();
        if chunk.patches.is_empty() {
            ledger.dirty.remove(&of);
        }
        Ok(())
    }

    /// Gives space back to the file system that was free for a while: at once where there is little.
    async fn punch_regions(&self) {
        if !self.ledger.lock().has_freed() {
            return;
        }
        let after = if self.is_tight() { Duration::ZERO } else { limits::PUNCH_AFTER };
        if let Some(by) = Instant::now().checked_sub(after) {
            self.punch_freed(by).await;
        }
    }

    pub(super) async fn punch_freed(&self, by: Instant) {
        loop {
            let Some(region) = self.ledger.lock().region_to_punch(by) else { return };
            if let Err(error) = self.disk.punch(region.position, region.length).await {
                tracing::debug!(%error, "this disk has no holes");
            }
            self.ledger.lock().punched(region);
        }
    }
}
