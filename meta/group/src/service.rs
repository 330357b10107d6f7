//! The service `Raft`: what replicas say to each other, handed to the group that it is for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ff2_daemon::Operations;
use ff2_fabric::{Answer, Buf, Context, Raft};
use ff2_meta_core::StateMachine;
use ff2_proto::{Code, Status, pb};

use crate::{Group, hosted::Hosted, link::Pending};

/// Whether a node may join a group here.
pub type Admit = Box<dyn Fn(u32) -> Pending<()> + Send + Sync>;

/// See the module.
pub struct RaftService {
    groups: BTreeMap<u32, Arc<dyn Hosted>>,
    admit: Admit,
    operations: Operations,
}

impl fmt::Debug for RaftService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftService").field("groups", &self.groups.keys()).finish_non_exhaustive()
    }
}

impl RaftService {
    pub fn new(operations: Operations, admit: Admit) -> Self {
        Self { groups: BTreeMap::new(), admit, operations }
    }

    /// Serves this group too.
    #[must_use]
    pub fn host<S: StateMachine>(mut self, group: &Group<S>) -> Self {
        self.groups.insert(group.id().0, Arc::new(group.clone()));
        self
    }

    fn group(&self, number: u32) -> Result<&Arc<dyn Hosted>, Status> {
        let none = || Status::new(Code::NotFound, format!("there is no group {number} here"));
        self.groups.get(&number).ok_or_else(none)
    }
}

impl Raft for RaftService {
    async fn step(
        &self,
        cx: Context,
        request: pb::RaftBatch,
        _bulk: Buf,
    ) -> Result<Answer<pb::RaftStepReply>, Status> {
        cx.require_daemon()?;
        self.group(request.group)?.step(request);
        Ok(pb::RaftStepReply {}.into())
    }

    async fn fetch_snapshot(
        &self,
        cx: Context,
        request: pb::FetchSnapshotRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::FetchSnapshotReply>, Status> {
        cx.require_daemon()?;
        let operation = self.operations.begin("fetch_snapshot", format!("group {}", request.group));
        let group = self.group(request.group)?;
        operation.end(group.fetch_snapshot(request).await.map(Answer::from))
    }

    async fn join_group(
        &self,
        cx: Context,
        request: pb::JoinGroupRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::JoinGroupReply>, Status> {
        cx.require_daemon()?;
        (self.admit)(request.node).await?;
        let detail = format!("node {} to group {}", request.node, request.group);
        let operation = self.operations.begin("join_group", detail);
        let group = self.group(request.group)?;
        operation.end(group.join(request).await.map(Answer::from))
    }

    async fn leave_group(
        &self,
        cx: Context,
        request: pb::LeaveGroupRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::LeaveGroupReply>, Status> {
        cx.require_daemon()?;
        let detail = format!("node {} from group {}", request.node, request.group);
        let operation = self.operations.begin("leave_group", detail);
        let group = self.group(request.group)?;
        let status = group.remove(request.node).await.err().map(Into::into);
        operation.end(Ok(pb::LeaveGroupReply { status }.into()))
    }
}
