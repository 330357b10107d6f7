//! What goes into the engine and what comes out of it.
//!
//! Plain values, shared by the engine and by whoever drives a target. Nothing here does I/O.
//!
//! The calls, all on a cheaply cloned [`Engine`](super::Engine), one for each disk:
//! ```text
//! Engine::format(dir, &FormatOptions) -> Result<(), Status>          blocking
//! Engine::open(dir, EngineOptions) -> Result<Engine, Status>         blocking, inside a tokio runtime
//! engine.targets() -> Vec<TargetMeta>
//! engine.create_target(TargetMeta).await -> Result<(), Status>       durable; Exists if it is there
//! engine.update_target(TargetMeta).await -> Result<(), Status>       durable (generation, what it took part in)
//! engine.remove_target(TargetId).await -> Result<(), Status>         durable, with all its chunks
//! engine.load(TargetId).await -> Result<Vec<LoadedChunk>, Status>    every chunk, in key order
//! engine.prepare(TargetId, ChunkId, Pending).await -> Result<Prepared, Status>   durable when it returns
//! engine.commit(TargetId, ChunkId, ChunkVersion, ChainVersion).await -> Result<(), Status>
//! engine.abort(TargetId, ChunkId).await -> Result<(), Status>        durable; no pending: nothing happens
//! engine.read(TargetId, ChunkId, Which, offset, len, Check, Buf).await -> Result<(Buf, Readout), Status>
//! engine.space() -> Space
//! engine.stats() -> EngineStats
//! engine.shutdown().await                                            flushes; drop alone is as a crash
//! ```
//! The caller has at most one prepare, commit or abort in progress for a chunk at any time; reads
//! may overlap with them and see the version that was current when they began.

use ff2_proto::{ChainId, ChainVersion, ChunkId, ChunkVersion, TargetId, pb};
use ff2_storage_core::target::Keeping;

use crate::payload::Payload;

/// A target of this disk.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetMeta {
    pub id: TargetId,
    pub chain: ChainId,
    /// Which incarnation of the target this store is: a store that was wiped gets a new one.
    pub generation: u64,
    /// Highest chain version under which the target took part.
    pub chain_version: ChainVersion,
    /// Highest chain version under which it served; 0: none.
    pub served_under: ChainVersion,
    /// The chain's members under that version. Restored metadata, which is older than the store, finds out by it who
    /// else may hold what this one does not.
    pub served_with: Vec<pb::ChainMember>,
}

impl TargetMeta {
    /// A store that was just made.
    pub fn new(id: TargetId, chain: ChainId, generation: u64) -> Self {
        let (chain_version, served_under) = (ChainVersion(0), ChainVersion(0));
        Self { id, chain, generation, chain_version, served_under, served_with: Vec::new() }
    }
}

/// A chunk as found at start.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedChunk {
    pub chunk: ChunkId,
    /// None: only a pending version exists.
    pub committed: Option<CommittedChunk>,
    /// The caller decides: commit it, or abort it and take a replacement.
    pub pending: Option<PendingChunk>,
}

/// What is known of a committed version without reading its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct CommittedChunk {
    pub version: ChunkVersion,
    pub chain_version: ChainVersion,
    pub length: u32,
    pub chunk_size: u32,
    pub tags: Vec<pb::AppliedTag>,
    /// Snapshots up to this one do not show it.
    pub since: u32,
}

/// What is known of a prepared version that was neither committed nor aborted.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingChunk {
    pub version: ChunkVersion,
    pub chain_version: ChainVersion,
    pub kind: PendingKind,
    pub length: u32,
    pub chunk_size: u32,
    pub tags: Vec<pb::AppliedTag>,
    pub keeping: Keeping,
}

/// What an update does to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingKind {
    /// The payload's bytes at `offset`; the chunk grows when they end beyond it.
    Write,
    /// The chunk becomes `length` bytes long; new bytes are zeros.
    Truncate,
    /// The chunk goes away with its record.
    Remove,
    /// The chunk becomes the payload, then zeros up to `length`, whatever it was before.
    Replace,
}

/// An update to make durable beside the committed version.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Above the committed version, except for a replacement or removal, which may have any.
    pub version: ChunkVersion,
    pub chain_version: ChainVersion,
    pub kind: PendingKind,
    /// Of a write: where the payload goes.
    pub offset: u32,
    /// Of a write or replacement. Slices that start on 4 KiB in memory for file offsets that do
    /// are written without a copy.
    pub payload: Payload,
    /// No byte of the chunk lies at or above it.
    pub chunk_size: u32,
    /// The chunk's recent tags once this version is committed: all of them, not only the new one.
    pub tags: Vec<pb::AppliedTag>,
    /// Of a truncation or replacement: the new length. Unused otherwise.
    pub length: u32,
    /// With `keep`, the commit makes what the chunk was the clone of that number, unless there is one. This costs
    /// a copy of all that the chunk keeps.
    pub keeping: Keeping,
}

/// A prepared version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub version: ChunkVersion,
    /// The chunk's length once it is committed.
    pub length: u32,
}

/// Which version to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Committed,
    /// The pending version, for the owner of the chain's decision and for forwarding again.
    /// Without one: `NOT_FOUND`.
    Pending,
}

/// Who finds out whether the bytes of a read are those that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The engine: `CORRUPT` if they are not.
    Here,
    /// Whoever uses them, by [`Readout::crc32c`]: so the check covers their whole way, and bytes that
    /// a disk puts into memory are touched once. Who finds a difference asks again with a check here.
    ByReader,
}

/// What a read found. The buffer holds all the bytes asked for: those at and beyond
/// `chunk_length`, and holes, are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout {
    pub version: ChunkVersion,
    pub chain_version: ChainVersion,
    pub chunk_length: u32,
    /// Bytes from `offset` that lie within the chunk; the rest of the buffer is zero.
    pub valid: u32,
    /// Of all bytes in the buffer, as they were written; `None` for parts of sectors.
    pub crc32c: Option<u32>,
}

/// Space of one disk, in bytes of whole blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub capacity_bytes: u64,
    /// In blocks of committed, pending and not yet reusable pieces.
    pub used_bytes: u64,
    /// What writes can still take: capacity less used less the reserve.
    pub available_bytes: u64,
}

/// How to lay out a new disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatOptions {
    /// Size of the data file; a raw device says its own.
    pub size_bytes: Option<u64>,
}
