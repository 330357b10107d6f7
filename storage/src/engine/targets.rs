//! Targets of the disk: their records, their start and their end.

use std::ops::ControlFlow;

use ff2_proto::{ChainId, ChainVersion, ChunkId, Status, TargetId, pb, status::Code};
use ff2_storage_core::{
    alloc::Block,
    format::{Key, target_bounds},
};

use super::{
    LoadedChunk, LocalChunk, TargetMeta,
    chunk::{committed, pending},
    core::Core,
    index::{Changes, no_such_target, parse, to_piece},
    limits,
};

impl Core {
    pub(super) fn targets(&self) -> Vec<TargetMeta> {
        self.targets.lock().values().cloned().collect()
    }

    pub(super) fn check_target(&self, target: TargetId) -> Result<(), Status> {
        let known = self.targets.lock().contains_key(&target);
        if known { Ok(()) } else { Err(no_such_target(target)) }
    }

    pub(super) async fn create_target(&self, meta: TargetMeta) -> Result<(), Status> {
        if self.targets.lock().contains_key(&meta.id) {
            return Err(Status::new(Code::Exists, format!("target {} is on this disk", meta.id)));
        }
        self.put_target(meta).await
    }

    pub(super) async fn update_target(&self, meta: TargetMeta) -> Result<(), Status> {
        self.check_target(meta.id)?;
        self.put_target(meta).await
    }

    async fn put_target(&self, meta: TargetMeta) -> Result<(), Status> {
        {
            let mut targets = self.targets.lock();
            let mut changes = Changes::default();
            changes.put_record(&Key::Target(meta.id), &record(&meta));
            self.write(&mut self.ledger.lock(), changes)?;
            targets.insert(meta.id, meta);
        }
        self.sync_index().await
    }

    pub(super) fn load(&self, target: TargetId) -> Result<Vec<LoadedChunk>, Status> {
        self.check_target(target)?;
        let mut chunks: Vec<LoadedChunk> = Vec::new();
        self.index.scan(target_bounds(Some(target)), |key, value| {
            match key {
                Key::Chunk(_, chunk) => {
                    let found = committed(&parse::<pb::ChunkRecord>(&key, value)?);
                    chunks.push(LoadedChunk { chunk, committed: Some(found), pending: None });
                }
                Key::Pending(_, chunk) => {
                    let found = pending(&parse::<pb::PendingRecord>(&key, value)?);
                    // The record, if there is one, came just before.
                    match chunks.last_mut().filter(|last| last.chunk == chunk) {
                        Some(last) => last.pending = found,
                        None => chunks.push(LoadedChunk { chunk, committed: None, pending: found }),
                    }
                }
                Key::Superblock | Key::Target(_) | Key::Piece(..) | Key::Patch(..) => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(chunks)
    }

    pub(super) async fn remove_target(&self, target: TargetId) -> Result<(), Status> {
        self.check_target(target)?;
        // The patches are not written back any more: their rows just go.
        let patches = self.shards.forget(target);
        {
            let mut ledger = self.ledger.lock();
            ledger.patches -= patches;
            ledger.dirty.retain(|of| of.target != target);
        }
        loop {
            // No update or read of the target is in progress: its rows are ours.
            let (changes, blocks, last) = self.rows_to_remove(target)?;
            {
                let mut ledger = self.ledger.lock();
                self.write(&mut ledger, changes)?;
                ledger.retire(blocks);
            }
            self.sync_index().await?;
            if last {
                break;
            }
        }
        {
            let mut targets = self.targets.lock();
            let mut changes = Changes::default();
            changes.delete(&Key::Target(target));
            self.write(&mut self.ledger.lock(), changes)?;
            targets.remove(&target);
        }
        self.sync_index().await
    }

    /// The next chunks to go: their rows, their blocks, and whether it was all.
    fn rows_to_remove(&self, target: TargetId) -> Result<(Changes, Vec<Block>, bool), Status> {
        let mut changes = Changes::default();
        let (mut blocks, mut chunks, mut all) = (Vec::new(), 0, true);
        let mut current: Option<ChunkId> = None;
        self.index.scan(target_bounds(Some(target)), |key, value| {
            let chunk = match key {
                Key::Superblock | Key::Target(_) => return Ok(ControlFlow::Continue(())),
                Key::Chunk(_, chunk)
                | Key::Piece(_, chunk, _)
                | Key::Patch(_, chunk, _, _, _)
                | Key::Pending(_, chunk) => chunk,
            };
            if current.replace(chunk) != Some(chunk) {
                chunks += 1;
                if chunks > limits::REMOVE_BATCH_CHUNKS {
                    all = false;
                    return Ok(ControlFlow::Break(()));
                }
            }
            match key {
                Key::Piece(..) => blocks.push(to_piece(&key, &parse(&key, value)?)?.block),
                Key::Pending(..) => {
                    for piece in parse::<pb::PendingRecord>(&key, value)?.pieces {
                        if let Some(replaced) = piece.replaced {
                            blocks.push(to_piece(&key, &replaced)?.block);
                        }
                    }
                }
                Key::Superblock | Key::Target(_) | Key::Chunk(..) | Key::Patch(..) => {}
            }
            if let Key::Patch(_, chunk, piece, sector, version) = key {
                changes.delete_patch(LocalChunk { target, chunk }, piece, sector, version);
            } else {
                changes.delete(&key);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((changes, blocks, all))
    }
}

fn record(meta: &TargetMeta) -> pb::TargetRecord {
    pb::TargetRecord {
        target: meta.id.0,
        chain: meta.chain.0,
        generation: meta.generation,
        chain_version: meta.chain_version.0,
        served_under: meta.served_under.0,
        served_with: meta.served_with.clone(),
    }
}

pub(super) fn from_record(record: &pb::TargetRecord) -> TargetMeta {
    TargetMeta {
        id: TargetId(record.target),
        chain: ChainId(record.chain),
        generation: record.generation,
        chain_version: ChainVersion(record.chain_version),
        served_under: ChainVersion(record.served_under),
        served_with: record.served_with.clone(),
    }
}
