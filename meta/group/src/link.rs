//! How a group reaches its peers. [`crate::Link`] does over the data plane, tests in memory.

use std::{future::Future, pin::Pin};

use ff2_proto::{Status, pb};

/// An answer that is on its way.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// Calls to the metad at an address (`host:port`).
pub trait PeerLink: Send + Sync + 'static {
    /// Sends without waiting. May drop the batch: raft sends again. Batches to one address should
    /// arrive in order; a connection that lost one may go on with the next.
    fn send(&self, address: &str, batch: pb::RaftBatch);

    fn fetch_snapshot(
        &self,
        address: &str,
        request: pb::FetchSnapshotRequest,
    ) -> Pending<pb::FetchSnapshotReply>;

    /// Asks for a raft id. A peer that does not lead answers NOT_LEADER, with the leader if it knows.
    fn join(&self, address: &str, request: pb::JoinGroupRequest) -> Pending<pb::JoinGroupReply>;
}
