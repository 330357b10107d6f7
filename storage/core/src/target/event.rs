//! What goes into the target machine and what comes out of it.

use ff2_proto::{ChainVersion, ChunkId, Status, TargetId, pb};

use super::types::{
    Attempt, CallId, Change, Done, Forward, FullCopy, Keeping, Outcome, Page, ReadAnswer,
    Snapshots, Standing, Update, UpdateId,
};
use crate::tags::Tags;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input<P> {
    /// The chain, as the routing has it. Older ones are ignored.
    Chain(pb::Chain),

    // Calls; each gets one reply.
    Update {
        call: CallId,
        update: Update<P>,
    },
    Forward {
        call: CallId,
        forward: Forward<P>,
    },
    Read {
        call: CallId,
        chunk: ChunkId,
    },
    Query {
        call: CallId,
        chain_version: ChainVersion,
        chunk: ChunkId,
    },
    /// Of the chunks from one to another.
    List {
        call: CallId,
        from: ChunkId,
        last: ChunkId,
        limit: u32,
        /// Clones too.
        clones: bool,
    },
    /// The predecessor pages through this syncing target's chunks.
    SyncPage {
        call: CallId,
        request: PageRequest,
    },
    /// The predecessor says that this syncing target has everything.
    SyncDone {
        call: CallId,
        chain_version: ChainVersion,
    },
    /// Outcomes from the predecessor. No reply.
    Settle {
        chain_version: ChainVersion,
        from: TargetId,
        outcomes: Vec<Outcome>,
    },

    // What the outputs came to.
    Stored {
        chunk: ChunkId,
        result: Result<(), Status>,
    },
    Forwarded {
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<(), Status>,
    },
    Queried {
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<Standing, Status>,
    },
    /// The disk read that [`Output::Read`] asked for ended; the reply says whether it still counts.
    ReadDone {
        call: CallId,
        result: Result<(), Status>,
    },
    Paged {
        attempt: Attempt,
        result: Result<Page<pb::SyncChunk>, Status>,
    },
    Copied {
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<(), Status>,
    },
    SyncEnded {
        attempt: Attempt,
        result: Result<(), Status>,
    },

    /// How fast this target may send resync copies.
    SyncRate {
        bytes_per_s: u64,
    },
    /// The chain is to do without this member: it answers no reads while the number is not 0, which the
    /// report repeats. It goes on taking updates, and with 0 it answers again.
    Retire(u64),
    /// The snapshots, and whether one is being made.
    Snapshots(Snapshots),
    /// The disk is gone: the target stops serving until the process starts again.
    Failed(Status),
}

/// A page of chunks that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub chain_version: ChainVersion,
    pub after: Option<ChunkId>,
    pub limit: u32,
    pub done_chunks: u64,
    pub total_chunks: u64,
    /// The syncing target is to leave its sync: see [`crate::resync`].
    pub gives_way: bool,
}

/// Something to do. Every output but `Settle`, `Reply` and `Changed` is answered by one input.
#[derive(Clone, Debug)]
pub enum Output<P> {
    /// Never two in progress for one chunk. Answered by `Stored`.
    Store {
        chunk: ChunkId,
        op: StoreOp<P>,
    },
    Forward {
        to: pb::ChainMember,
        attempt: Attempt,
        forward: Forward<P>,
    },
    /// Read the pending version and send it whole. Answered by `Forwarded`.
    ForwardFull {
        to: pb::ChainMember,
        attempt: Attempt,
        copy: FullCopy,
    },
    /// Read the committed version, which must be the named one, and send it whole. Answered by
    /// `Copied`, as is a removal (a `Forward` with `resync`, see [`Output::CopyRemoval`]).
    Copy {
        to: pb::ChainMember,
        attempt: Attempt,
        copy: FullCopy,
    },
    CopyRemoval {
        to: pb::ChainMember,
        attempt: Attempt,
        forward: Forward<P>,
    },
    /// May be lost; the receiver asks if it misses it.
    Settle {
        to: pb::ChainMember,
        outcome: Outcome,
    },
    Query {
        to: pb::ChainMember,
        attempt: Attempt,
        chunk: ChunkId,
    },
    /// Read the committed version from the disk, then say `ReadDone`.
    Read {
        call: CallId,
        chunk: ChunkId,
    },
    SyncPage {
        to: pb::ChainMember,
        attempt: Attempt,
        request: PageRequest,
    },
    SyncDone {
        to: pb::ChainMember,
        attempt: Attempt,
    },
    Reply {
        call: CallId,
        reply: Reply,
    },
    /// The report changed: a heartbeat now saves time.
    Changed,
}

/// What the store does for one chunk.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp<P> {
    /// Durable when it is answered.
    Prepare { id: UpdateId, change: Change<P>, chunk_size: u32, tags: Tags, keeping: Keeping },
    /// With a prepare that keeps what was before, makes that a clone, unless there is one.
    ///
    /// Needs no sync: the pending version is durable, and whoever starts without the commit is told
    /// the outcome by the chain.
    Commit { id: UpdateId },
    /// Durable when it is answered: whoever started without it would, as the first of its chain to
    /// come back, commit what the chain had dropped.
    Abort { id: UpdateId },
}

impl<P> StoreOp<P> {
    pub fn id(&self) -> UpdateId {
        match self {
            Self::Prepare { id, .. } | Self::Commit { id } | Self::Abort { id } => *id,
        }
    }
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Update` and `Forward`.
    Update(Result<Done, Status>),
    Read(Result<ReadAnswer, Status>),
    Query(Result<Standing, Status>),
    List(Result<Page<pb::ChunkInfo>, Status>),
    SyncPage(Result<Page<pb::SyncChunk>, Status>),
    SyncDone(Result<(), Status>),
}
