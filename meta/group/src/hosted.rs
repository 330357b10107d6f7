//! Groups of different machines side by side.

use ff2_meta_core::StateMachine;
use ff2_proto::pb;

use crate::{Group, link::Pending};

/// What peers ask of a group, whatever its machine is.
pub(crate) trait Hosted: Send + Sync {
    fn step(&self, batch: pb::RaftBatch);
    fn fetch_snapshot(&self, request: pb::FetchSnapshotRequest) -> Pending<pb::FetchSnapshotReply>;
    fn join(&self, request: pb::JoinGroupRequest) -> Pending<pb::JoinGroupReply>;
    fn remove(&self, node: u32) -> Pending<()>;
}

impl<S: StateMachine> Hosted for Group<S> {
    fn step(&self, batch: pb::RaftBatch) {
        Self::step(self, batch);
    }

    fn fetch_snapshot(&self, request: pb::FetchSnapshotRequest) -> Pending<pb::FetchSnapshotReply> {
        let group = self.clone();
        Box::pin(async move { Ok(group.serve_snapshot(request).await) })
    }

    fn join(&self, request: pb::JoinGroupRequest) -> Pending<pb::JoinGroupReply> {
        let group = self.clone();
        Box::pin(async move { Self::join(&group, request).await })
    }

    fn remove(&self, node: u32) -> Pending<()> {
        let group = self.clone();
        Box::pin(async move { Self::remove(&group, node).await })
    }
}
