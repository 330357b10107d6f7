//! What travels between simulated processes.

use ff2_proto::{ChainVersion, ChunkId, Status, TargetId, pb};
use ff2_storage_core::target::{Forward, Outcome, PageRequest, Reply, Update};

use crate::{disk::Content, net::Place};

/// Names one call for its caller.
pub(crate) type RpcId = u64;

#[expect(clippy::large_enum_variant, reason = "short-lived values of a simulation")]
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Raft {
        group: u32,
        batch: pb::RaftBatch,
    },
    FetchSnapshot {
        group: u32,
        request: pb::FetchSnapshotRequest,
    },
    /// A metad with a new disk asks for a raft id.
    JoinGroup {
        request: pb::JoinGroupRequest,
    },
    LetIn {
        group: u32,
        reply: Result<pb::JoinGroupReply, Status>,
    },
    SnapshotPage {
        group: u32,
        snapshot: u64,
        page: pb::FetchSnapshotReply,
    },
    Call {
        rpc: RpcId,
        from: Place,
        call: Call,
    },
    Answer {
        rpc: RpcId,
        answer: Answer,
    },
    Settle {
        target: TargetId,
        chain_version: ChainVersion,
        from: TargetId,
        outcome: Outcome,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Join(pb::JoinRequest),
    Heartbeat(pb::HeartbeatRequest),
    Routing {
        since: u64,
    },
    /// Whether a node votes in a group, as its leader sees it.
    Votes {
        group: u32,
        node: Place,
    },
    /// A metad is to leave a group.
    Remove {
        group: u32,
        node: Place,
    },
    Namespace(pb::NsRequest),
    Chunk {
        target: TargetId,
        call: ChunkCall,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum ChunkCall {
    Update(Update<Content>),
    Forward(Forward<Content>),
    Read(ChunkId),
    Query { chain_version: ChainVersion, chunk: ChunkId },
    SyncPage(PageRequest),
    SyncDone { chain_version: ChainVersion },
}

#[expect(clippy::large_enum_variant, reason = "short-lived values of a simulation")]
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Joined(Result<pb::JoinReply, Status>),
    Heartbeat(Result<pb::HeartbeatReply, Status>),
    Routing(Result<pb::RoutingDelta, Status>),
    Votes(Result<bool, Status>),
    Removed(Result<(), Status>),
    Namespace(Result<pb::NsReply, Status>),
    /// With what the disk read found.
    Chunk(Reply, Content),
    /// No answer in time, or nobody there.
    Silence,
}
