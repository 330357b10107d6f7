//! The service `Cluster`: who is in the cluster, and what everyone must know of it.
//!
//! Joins and heartbeats are the group-0 leader's, which keeps the lease book ([`leader`]). Routing and
//! who leads what, any metad tells.

pub(crate) mod leader;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ff2_daemon::{Operation, Operations};
use ff2_fabric::{Answer, Buf, Cluster, Context};
use ff2_group::Group;
use ff2_meta_core::{
    cluster::{ClusterMachine, Heard, JoinTurn, delta},
    namespace::Namespace,
};
use ff2_proto::{
    CLUSTER_GROUP, Code, NodeId, Routing, RoutingVersion, Status, VolumeId, level_of, pb,
    status::check,
};
use pb::cluster_command::Fact;
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::{NAMESPACE_GROUP, limits};
use leader::{ClusterLead, Lead};

/// How often a held call looks whether its time has come.
const HOLD_STEP: Duration = Duration::from_millis(20);

/// The cluster group with the times that its leader goes by.
#[derive(Clone, Debug)]
pub(crate) struct ClusterGroup {
    pub(crate) group: Group<ClusterMachine>,
    pub(crate) lead: Lead,
    pub(crate) lease: ff2_daemon::config::LeaseConfig,
    /// After which a target that stays away is made anew elsewhere; zero: never.
    pub(crate) replace_after: Duration,
    pub(crate) cluster_id: String,
}

impl ClusterGroup {
    /// A metad that was removed does not let itself back in by starting with an empty folder.
    pub(crate) async fn refuse_removed(&self, node: u32) -> Result<(), Status> {
        // This replica may not have heard of the removal yet.
        self.group.read_index().await?;
        let removed = |node: &pb::Node| node.role() == pb::NodeRole::RoleUnknown;
        if self.routing().nodes.get(&NodeId(node)).is_some_and(removed) {
            let detail = format!("metad {node} was removed: add it (`AddMember`) first");
            return Err(Status::new(Code::Forbidden, detail));
        }
        Ok(())
    }

    /// Logs a fact and answers what it brought about. A refusal of the machine is an error.
    pub(crate) async fn propose(&self, fact: Fact) -> Result<pb::ClusterReply, Status> {
        let level = self.routing().level;
        let command = pb::ClusterCommand { now_ms: wall_ms(), fact: Some(fact), level };
        let reply = self.group.propose(Bytes::from(command.encode_to_vec())).await?;
        let reply = pb::ClusterReply::decode(reply)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        check(reply.status.clone())?;
        Ok(reply)
    }

    /// As [`ClusterGroup::propose`], with an end to the wait.
    pub(crate) async fn propose_within(
        &self,
        fact: Fact,
        patience: Duration,
    ) -> Result<pb::ClusterReply, Status> {
        within(patience, self.propose(fact)).await
    }

    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.group.view()
    }

    pub(crate) fn not_leader(&self) -> Status {
        let leader = self.group.leadership().borrow().leader.clone();
        Status::not_leader(leader.map(|leader| leader.address))
    }

    fn leading(&self) -> Result<Arc<ClusterLead>, Status> {
        self.lead.get().ok_or_else(|| self.not_leader())
    }

    /// Has the routing say which snapshots a volume has. True: all storage nodes that may serve know it,
    /// and no update is under way that began before they were frozen.
    pub(crate) async fn publish_snapshots(
        &self,
        wanted: &pb::PublishSnapshotsRequest,
    ) -> Result<bool, Status> {
        let lead = self.leading()?;
        let of = VolumeId(wanted.volume);
        let is_said = |routing: &Routing| {
            let volume = routing.volumes.get(&of);
            volume.is_some_and(|v| v.snapshots == wanted.snapshots && v.frozen == wanted.frozen)
        };
        if !is_said(&self.routing()) {
            let fact = Fact::PublishSnapshots(wanted.clone());
            self.propose_within(fact, limits::OWN_COMMAND).await?;
        }
        let routing = self.routing();
        let changed_at = routing.volumes.get(&of).map_or(u64::MAX, |volume| volume.changed_at);
        let known = is_said(&routing)
            && lead.is_known(&routing, changed_at)
            && (!wanted.frozen || lead.are_held(&routing, changed_at));
        // What a leader heard that was replaced meanwhile is no word about now.
        lead.check()?;
        Ok(known)
    }

    fn full_routing(&self) -> pb::RoutingDelta {
        delta(&self.routing(), RoutingVersion(0))
    }
}

/// Waits for a command, but no longer; then nobody knows whether it was applied.
pub(crate) async fn within<T>(
    patience: Duration,
    command: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(patience, command).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let detail = format!("the group did not commit within {patience:?}");
            Err(Status::new(Code::UnknownOutcome, detail))
        }
    }
}

/// Milliseconds since 1970, for records only.
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) struct ClusterService {
    pub(crate) cluster: ClusterGroup,
    pub(crate) namespace: Group<Namespace>,
    pub(crate) operations: Operations,
    /// Calls that are held end with it.
    pub(crate) stop: CancellationToken,
}

/// A watch is held until there is news: its latencies tell how often the routing changes, not how
/// fast it is told.
impl Cluster for ClusterService {
    async fn join(
        &self,
        cx: Context,
        request: pb::JoinRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::JoinReply>, Status> {
        let detail = format!("node {} at {}", request.node_id, request.address);
        let operation = self.operations.begin("join", detail);
        operation.end(self.admit(&cx, request).await.map(Answer::from))
    }

    async fn heartbeat(
        &self,
        cx: Context,
        request: pb::HeartbeatRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::HeartbeatReply>, Status> {
        let operation = self.operations.begin("heartbeat", format!("node {}", request.node_id));
        operation.end(self.renew(&cx, request).await.map(Answer::from))
    }

    async fn watch_routing(
        &self,
        cx: Context,
        request: pb::WatchRoutingRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::RoutingDelta>, Status> {
        let detail = format!("since version {}", request.since);
        let operation = self.operations.begin("watch_routing", detail);
        let news = self.news(&cx, &request, &operation).await;
        operation.end(news.map(Answer::from))
    }

    async fn publish_snapshots(
        &self,
        cx: Context,
        request: pb::PublishSnapshotsRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::PublishSnapshotsReply>, Status> {
        cx.require_daemon()?;
        let detail = format!("volume {}", request.volume);
        let operation = self.operations.begin("publish_snapshots", detail);
        let known = self.cluster.publish_snapshots(&request).await;
        operation.end(known.map(|known| pb::PublishSnapshotsReply { known }.into()))
    }

    async fn leaders(
        &self,
        _cx: Context,
        _request: pb::LeadersRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::LeadersReply>, Status> {
        let operation = self.operations.begin("leaders", "");
        operation.end(self.known_leaders().map(Answer::from))
    }
}

impl ClusterService {
    async fn admit(
        &self,
        cx: &Context,
        mut request: pb::JoinRequest,
    ) -> Result<pb::JoinReply, Status> {
        cx.require_daemon()?;
        let (known, level) = (level_of(request.level), self.cluster.routing().level);
        if known < level {
            let detail = format!(
                "the cluster is at level {level}, and the program at {} knows no more than {known}: install a newer \
                 release there",
                request.address
            );
            return Err(Status::new(Code::BadProtocolVersion, detail));
        }
        self.take_turn(cx, &request).await?;
        if request.cluster_id.is_empty() {
            request.cluster_id.clone_from(&self.cluster.cluster_id);
        }
        let (role, address) = (request.role(), request.address.clone());
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN);
        let reply = self.cluster.propose_within(Fact::Join(request), patience).await?;
        tracing::info!(node = reply.node_id, ?role, %address, "a node joined");
        let lease = &self.cluster.lease;
        let reply = pb::JoinReply {
            node_id: reply.node_id,
            cluster_id: self.cluster.cluster_id.clone(),
            lease_ms: lease.lease_ms,
            heartbeat_ms: lease.heartbeat_ms,
            routing: Some(self.cluster.full_routing()),
        };
        Ok(reply)
    }

    async fn renew(
        &self,
        cx: &Context,
        request: pb::HeartbeatRequest,
    ) -> Result<pb::HeartbeatReply, Status> {
        cx.require_daemon()?;
        let lead = self.cluster.leading()?;
        let (node, known) = (NodeId(request.node_id), RoutingVersion(request.routing_version));
        let leaving = request.leaving;
        match lead.heartbeat(&self.cluster.routing(), request) {
            Heard::Renewed => {}
            Heard::Dying => {
                return Err(Status::new(Code::Busy, "its lease ended; its death is being logged"));
            }
            Heard::MustJoin if self.is_taken(node) => {
                let detail = format!("another process runs as node {node}");
                return Err(Status::new(Code::Forbidden, detail));
            }
            Heard::MustJoin => {
                return Err(Status::new(Code::NotFound, format!("node {node} must join")));
            }
        }
        if leaving {
            self.await_death(cx, &lead, node).await;
        }
        // A leader that was replaced while it heard this must not extend a lease.
        // Its lease over, it asks the others here, and learns of its successor.
        self.cluster.group.query(|_| ()).await?;
        lead.check()?;
        let reply = pb::HeartbeatReply {
            lease_ms: self.cluster.lease.lease_ms,
            routing: Some(delta(&self.cluster.routing(), known)),
        };
        Ok(reply)
    }

    /// Whether a process is on record under this id. After a restore none is, until it joins again.
    fn is_taken(&self, node: NodeId) -> bool {
        let routing = self.cluster.routing();
        routing.nodes.get(&node).is_some_and(|known| known.incarnation != 0)
    }

    async fn news(
        &self,
        cx: &Context,
        request: &pb::WatchRoutingRequest,
        operation: &Operation,
    ) -> Result<pb::RoutingDelta, Status> {
        let since = RoutingVersion(request.since);
        let wait = Duration::from_millis(request.wait_ms.into()).min(limits::WATCH_MAX);
        let wait = wait.min(cx.remaining().saturating_sub(limits::ANSWER_MARGIN));
        let mut views = self.cluster.group.watch_view();
        // A version of another history is answered at once, with everything.
        let newer = |view: &Arc<Routing>| view.version != since;
        operation.waits_for("a change");
        tokio::select! {
            _ = tokio::time::timeout(wait, views.wait_for(newer)) => {}
            () = self.stop.cancelled() => {
                return Err(Status::new(Code::ShuttingDown, "this metad is stopping"));
            }
        }
        Ok(delta(&self.cluster.routing(), since))
    }

    fn known_leaders(&self) -> Result<pb::LeadersReply, Status> {
        let known = [
            (CLUSTER_GROUP, self.cluster.group.leadership()),
            (NAMESPACE_GROUP, self.namespace.leadership()),
        ];
        let groups = known.map(|(group, leadership)| {
            let now = leadership.borrow();
            let address = now.leader.as_ref().map(|leader| leader.address.clone());
            pb::GroupLeader { group: group.0, address: address.unwrap_or_default(), term: now.term }
        });
        Ok(pb::LeadersReply { groups: groups.into() })
    }

    /// Waits until the end of the node's former incarnation is on record.
    async fn take_turn(&self, cx: &Context, request: &pb::JoinRequest) -> Result<(), Status> {
        let until = cx.deadline.checked_sub(2 * limits::ANSWER_MARGIN).unwrap_or(cx.deadline);
        loop {
            let lead = self.cluster.leading()?;
            match lead.join(&self.cluster.routing(), request) {
                JoinTurn::Now => return Ok(()),
                JoinTurn::Taken => {
                    let detail = format!("node {} lives at another address", request.node_id);
                    return Err(Status::new(Code::Busy, detail));
                }
                JoinTurn::AfterJudgement if Instant::now() >= until => {
                    let detail = "the end of its former process is being judged";
                    return Err(Status::new(Code::Busy, detail));
                }
                JoinTurn::AfterJudgement => tokio::time::sleep(HOLD_STEP).await,
            }
        }
    }

    /// Gives a node that leaves the answer when the others go on without it.
    async fn await_death(&self, cx: &Context, lead: &ClusterLead, node: NodeId) {
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN);
        let until = Instant::now() + patience.min(limits::LEAVE_WAIT);
        while lead.is_leaving(&self.cluster.routing(), node) && Instant::now() < until {
            tokio::time::sleep(HOLD_STEP).await;
        }
    }
}
