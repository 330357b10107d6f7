//! What can happen in the network.

use bytes::Bytes;
use ff2_proto::{ChainVersion, ChunkId, Status, TargetId, pb};

use crate::target::{
    Attempt, CallId, Forward, Input, Outcome, PageRequest, Reply, Report, StoreOp, Update,
};

#[derive(Clone, Debug)]
pub(super) enum Event {
    Local { node: u64, life: u64, input: Input<Bytes> },
    Store { node: u64, life: u64, chunk: ChunkId, op: StoreOp<Bytes> },
    DiskRead { node: u64, life: u64, call: CallId, chunk: ChunkId },
    Request { to: u64, origin: Origin, request: Request },
    Answer { origin: Origin, reply: Reply, value: u64 },
    Chain { node: u64, chain: pb::Chain },
    Heartbeat { node: u64 },
    Beat { node: u64, life: u64, sent: u64, chain: pb::Chain },
    Report { node: u64, life: u64, number: u64, sent: u64, report: Report },
    JudgeLeases,
    Tick,
    Fault,
    Restart { node: u64 },
    Mend { node: u64 },
    NextOp { client: usize },
    TryOp { client: usize, op: u64 },
    GiveUp { client: usize, op: u64, attempt: u64 },
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Client { client: usize, op: u64 },
    Node { node: u64, life: u64, what: What },
    Nobody,
}

/// What a node asked another.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Forward { chunk: ChunkId, attempt: Attempt },
    Copy { chunk: ChunkId, attempt: Attempt },
    Query { chunk: ChunkId, attempt: Attempt },
    Page { attempt: Attempt },
    SyncDone { attempt: Attempt },
}

impl What {
    pub(super) fn into_input(self, reply: Reply) -> Input<Bytes> {
        match (self, reply) {
            (Self::Forward { chunk, attempt }, Reply::Update(result)) => {
                Input::Forwarded { chunk, attempt, result: result.map(|_| ()) }
            }
            (Self::Copy { chunk, attempt }, Reply::Update(result)) => {
                Input::Copied { chunk, attempt, result: result.map(|_| ()) }
            }
            (Self::Query { chunk, attempt }, Reply::Query(result)) => {
                Input::Queried { chunk, attempt, result }
            }
            (Self::Page { attempt }, Reply::SyncPage(result)) => Input::Paged { attempt, result },
            (Self::SyncDone { attempt }, Reply::SyncDone(result)) => {
                Input::SyncEnded { attempt, result }
            }
            (what, reply) => panic!("{what:?} was answered with {reply:?}"),
        }
    }

    /// As if nobody had answered.
    pub(super) fn failed(self, status: Status) -> Input<Bytes> {
        match self {
            Self::Forward { chunk, attempt } => {
                Input::Forwarded { chunk, attempt, result: Err(status) }
            }
            Self::Copy { chunk, attempt } => Input::Copied { chunk, attempt, result: Err(status) },
            Self::Query { chunk, attempt } => {
                Input::Queried { chunk, attempt, result: Err(status) }
            }
            Self::Page { attempt } => Input::Paged { attempt, result: Err(status) },
            Self::SyncDone { attempt } => Input::SyncEnded { attempt, result: Err(status) },
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    Update(Update<Bytes>),
    Forward(Forward<Bytes>),
    Read(ChunkId),
    Query(ChainVersion, ChunkId),
    Page(PageRequest),
    SyncDone(ChainVersion),
    Settle(ChainVersion, TargetId, Outcome),
}
