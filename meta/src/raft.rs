//! The service `Raft`: what metads say to each other, handed to the group that it is for.

use ff2_daemon::Operations;
use ff2_fabric::{Answer, Buf, Context, Raft};
use ff2_group::Group;
use ff2_meta_core::{StateMachine, cluster::ClusterMachine, namespace::Namespace};
use ff2_proto::{CLUSTER_GROUP, Code, NodeId, Status, pb};

use crate::NAMESPACE_GROUP;

pub(crate) struct RaftService {
    pub(crate) cluster: Group<ClusterMachine>,
    pub(crate) namespace: Group<Namespace>,
    pub(crate) operations: Operations,
}

/// Calls `$call` on the group with this number, whichever its machine is.
macro_rules! on_group {
    ($self:ident, $number:expr, |$group:ident| $call:expr) => {
        match $number {
            number if number == CLUSTER_GROUP.0 => {
                let $group = &$self.cluster;
                $call
            }
            number if number == NAMESPACE_GROUP.0 => {
                let $group = &$self.namespace;
                $call
            }
            number => Err(Status::new(Code::NotFound, format!("there is no group {number} here"))),
        }
    };
}

impl Raft for RaftService {
    async fn step(
        &self,
        cx: Context,
        request: pb::RaftBatch,
        _bulk: Buf,
    ) -> Result<Answer<pb::RaftStepReply>, Status> {
        cx.require_daemon()?;
        on_group!(self, request.group, |group| {
            group.step(request);
            Ok(pb::RaftStepReply {}.into())
        })
    }

    async fn fetch_snapshot(
        &self,
        cx: Context,
        request: pb::FetchSnapshotRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::FetchSnapshotReply>, Status> {
        cx.require_daemon()?;
        let operation = self.operations.begin("fetch_snapshot", format!("group {}", request.group));
        operation.end(on_group!(self, request.group, |group| serve(group, request).await))
    }

    async fn join_group(
        &self,
        cx: Context,
        request: pb::JoinGroupRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::JoinGroupReply>, Status> {
        cx.require_daemon()?;
        self.refuse_removed(request.node).await?;
        let detail = format!("node {} to group {}", request.node, request.group);
        let operation = self.operations.begin("join_group", detail);
        operation.end(on_group!(self, request.group, |group| join(group, request).await))
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
        operation.end(on_group!(self, request.group, |group| remove(group, request.node).await))
    }
}

impl RaftService {
    /// A metad that was removed does not let itself back in by starting with an empty folder.
    async fn refuse_removed(&self, node: u32) -> Result<(), Status> {
        // This replica may not have heard of the removal yet.
        self.cluster.read_index().await?;
        let routing = self.cluster.view();
        let removed = |node: &pb::Node| node.role() == pb::NodeRole::RoleUnknown;
        if routing.nodes.get(&NodeId(node)).is_some_and(removed) {
            let detail = format!("metad {node} was removed: add it (`AddMember`) first");
            return Err(Status::new(Code::Forbidden, detail));
        }
        Ok(())
    }
}

async fn serve<S: StateMachine>(
    group: &Group<S>,
    request: pb::FetchSnapshotRequest,
) -> Result<Answer<pb::FetchSnapshotReply>, Status> {
    Ok(group.serve_snapshot(request).await.into())
}

async fn join<S: StateMachine>(
    group: &Group<S>,
    request: pb::JoinGroupRequest,
) -> Result<Answer<pb::JoinGroupReply>, Status> {
    Ok(group.join(request).await?.into())
}

async fn remove<S: StateMachine>(
    group: &Group<S>,
    node: u32,
) -> Result<Answer<pb::LeaveGroupReply>, Status> {
    let status = group.remove(node).await.err().map(Into::into);
    Ok(pb::LeaveGroupReply { status }.into())
}
