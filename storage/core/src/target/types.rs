//! The values that the target machine speaks of.

use std::{fmt, time::Duration};

use ff2_proto::{ChainVersion, ChunkId, ChunkVersion, TargetId, pb};

use crate::tags::Tags;

/// The moment of a step: a monotonic clock's reading, and whether the node's lease is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub at: Duration,
    /// False: the node may have been declared dead, so it must not answer for the cluster.
    pub lease: bool,
}

/// A caller that waits for a reply; the driver chooses the number and uses it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One try of something that the machine asked others to do; a late answer to an earlier try is
/// told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// The name of an update, for ever: no two updates of a chunk carry the same.
///
/// A chain version has one head, and a head never gives a version of a chunk twice; so the chain
/// version under which the update was made, with the version, is unique, and greater is later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateId {
    pub made_under: ChainVersion,
    pub version: ChunkVersion,
}

impl fmt::Debug for UpdateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.made_under, self.version)
    }
}

/// What an update does to a chunk. `P` is the driver's handle of the bytes; the machine only passes
/// it on.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<P> {
    /// `length` bytes at `offset`.
    Write {
        offset: u32,
        length: u32,
        payload: P,
    },
    /// The chunk becomes `length` bytes long; new bytes are zeros.
    Truncate {
        length: u32,
    },
    Remove,
    /// The chunk becomes the payload, then zeros up to `length`, whatever it was before.
    Replace {
        length: u32,
        payload: P,
    },
}

impl<P> Change<P> {
    /// Length of the chunk after this change, if it was `before` bytes long.
    pub fn length_after(&self, before: u32) -> u32 {
        match self {
            Self::Write { offset, length, .. } => before.max(offset.saturating_add(*length)),
            Self::Truncate { length } | Self::Replace { length, .. } => *length,
            Self::Remove => 0,
        }
    }

    pub fn removes(&self) -> bool {
        matches!(self, Self::Remove)
    }

    /// Bytes that it carries, at most.
    pub fn carries(&self) -> u32 {
        match self {
            Self::Write { length, .. } | Self::Replace { length, .. } => *length,
            Self::Truncate { .. } | Self::Remove => 0,
        }
    }

    /// Whether the result depends on what the chunk was.
    pub fn needs_base(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Truncate { .. })
    }
}

/// A client's update.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<P> {
    pub chain_version: ChainVersion,
    pub chunk: ChunkId,
    pub change: Change<P>,
    pub chunk_size: u32,
    /// None: not exactly-once (the caller's update has no effect when repeated).
    pub tag: Option<pb::UpdateTag>,
}

/// An update on its way down the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward<P> {
    pub chain_version: ChainVersion,
    pub from: TargetId,
    pub to: TargetId,
    pub chunk: ChunkId,
    pub id: UpdateId,
    /// The committed update that this one builds on; None: there is no chunk. Of a resync copy:
    /// what the syncing target showed.
    pub base: Option<UpdateId>,
    pub change: Change<P>,
    pub chunk_size: u32,
    pub tag: Option<pb::UpdateTag>,
    /// Of a replacement: all tags of the chunk.
    pub tags: Tags,
    pub keeping: Keeping,
    /// A copy of a committed version by the resync, not a live update.
    pub resync: bool,
}

/// What an update has to do with snapshots: see `clones`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// The newest snapshot when the head made the update: what it makes is in none up to that.
    pub since: u32,
    /// What the chunk was before is kept as the clone of this number; 0: it is not.
    pub keep: u32,
}

/// The snapshots as the routing has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// In their order.
    pub ids: Vec<u32>,
    /// One is being made: no update begins.
    pub frozen: bool,
}

/// A full copy whose bytes the driver reads from the store before it sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct FullCopy {
    pub chain_version: ChainVersion,
    pub from: TargetId,
    pub to: TargetId,
    pub chunk: ChunkId,
    pub id: UpdateId,
    pub base: Option<UpdateId>,
    pub length: u32,
    pub chunk_size: u32,
    pub tag: Option<pb::UpdateTag>,
    pub tags: Tags,
    pub keeping: Keeping,
    /// Of a resync copy the committed version is read, of a live update the pending one.
    pub resync: bool,
}

impl FullCopy {
    /// The forward that carries the bytes read from the store.
    pub fn with_payload<P>(self, payload: P) -> Forward<P> {
        Forward {
            chain_version: self.chain_version,
            from: self.from,
            to: self.to,
            chunk: self.chunk,
            id: self.id,
            base: self.base,
            change: Change::Replace { length: self.length, payload },
            chunk_size: self.chunk_size,
            tag: self.tag,
            tags: self.tags,
            keeping: self.keeping,
            resync: self.resync,
        }
    }
}

/// The outcome of an update, from the head down the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub chunk: ChunkId,
    pub id: UpdateId,
    pub committed: bool,
}

/// Where a chunk stands at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub committed: Option<UpdateId>,
    pub pending: Option<UpdateId>,
}

/// An update that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub version: ChunkVersion,
    pub chunk_length: u32,
}

/// What a read may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// There is no such chunk: zeros.
    Absent,
    /// What the disk read found.
    Data,
}

/// A page of a target's chunks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page<T> {
    pub chunks: Vec<T>,
    pub end: bool,
}

/// What a target remembers of a committed chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub id: UpdateId,
    pub length: u32,
    pub chunk_size: u32,
    pub tags: Tags,
    /// Snapshots up to this one do not show it.
    pub since: u32,
    /// The chain version under which the syncing successor was seen to hold exactly this.
    pub synced_under: ChainVersion,
}

/// A chunk as the store found it at start.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub chunk: ChunkId,
    pub committed: Option<Record>,
    pub pending: Option<LoadedPending>,
}

/// An update that was durable but neither committed nor dropped when the process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedPending {
    pub id: UpdateId,
    pub removes: bool,
    pub length: u32,
    pub chunk_size: u32,
    pub tags: Tags,
    /// As far as this store goes by it.
    pub keeping: Keeping,
}

impl LoadedPending {
    /// As it is once it is committed.
    pub fn into_record(self) -> Record {
        let Self { id, length, chunk_size, tags, keeping, .. } = self;
        let since = keeping.since;
        Record { id, length, chunk_size, tags, since, synced_under: ChainVersion(0) }
    }
}

/// What the machine says of itself to the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub local_state: pb::LocalState,
    /// The chain version that the target runs at; 0: it runs at none that it may serve under.
    pub chain_version: u64,
    pub sync_done_chunks: u64,
    pub sync_total_chunks: u64,
    pub waiting_for: String,
    /// The number of the retirement that it keeps to; 0: none.
    pub retired: u64,
    /// The target behind it that has not answered an update for [`limits::SUCCESSOR_SILENT`]; 0: none.
    ///
    /// [`limits::SUCCESSOR_SILENT`]: crate::limits::SUCCESSOR_SILENT
    pub silent_successor: u64,
}

/// The part of a target in its chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes no updates and serves nothing.
    #[default]
    Out,
    /// Takes updates, serves no reads.
    Syncing,
    /// Serves reads; the head commits.
    Serving { head: bool },
}

impl Role {
    pub fn is_head(self) -> bool {
        self == Self::Serving { head: true }
    }

    pub fn serves(self) -> bool {
        matches!(self, Self::Serving { .. })
    }

    pub fn takes_updates(self) -> bool {
        self != Self::Out
    }
}
