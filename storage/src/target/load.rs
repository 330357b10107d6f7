//! From what the engine found at start to what the machine begins with.

use ff2_proto::ChainVersion;
use ff2_storage_core::{
    tags::Tags,
    target::{Loaded, LoadedPending, Record, UpdateId},
};

use crate::engine::{LoadedChunk, PendingKind};

pub(super) fn loaded(chunk: LoadedChunk) -> Loaded {
    let committed = chunk.committed.map(|committed| Record {
        id: UpdateId { made_under: committed.chain_version, version: committed.version },
        length: committed.length,
        chunk_size: committed.chunk_size,
        tags: Tags::from_entries(committed.tags),
        synced_under: ChainVersion(0),
    });
    let pending = chunk.pending.map(|pending| LoadedPending {
        id: UpdateId { made_under: pending.chain_version, version: pending.version },
        removes: pending.kind == PendingKind::Remove,
        length: pending.length,
        chunk_size: pending.chunk_size,
        tags: Tags::from_entries(pending.tags),
    });
    Loaded { chunk: chunk.chunk, committed, pending }
}
