//! One heartbeat: what it says, how its answer renews the lease, and joining again when the cluster
//! forgot this process.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ff2_proto::{Code, NodeId, RoutingVersion, Status, pb};

use super::{
    Report,
    lease::{BootTime, Lease},
};
use crate::{Call, ClusterClient, clock, leader::LeaderFinder, level, routing::RoutingCache};

/// Bounds of what a metad may ask for, so that a bad answer cannot stop or flood the cluster.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
const INTERVAL_MAX: Duration = Duration::from_secs(10);
const ATTEMPT_MIN: Duration = Duration::from_millis(100);
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

pub(super) struct Beat {
    join: pb::JoinRequest,
    finder: LeaderFinder,
    routing: Arc<RoutingCache>,
    report: Box<dyn Fn() -> Report + Send + Sync>,
    pub(super) lease: Lease,
    lease_ms: AtomicU64,
    interval_ms: AtomicU64,
}

impl Beat {
    pub(super) fn new(
        join: pb::JoinRequest,
        reply: &pb::JoinReply,
        finder: LeaderFinder,
        routing: Arc<RoutingCache>,
        report: Box<dyn Fn() -> Report + Send + Sync>,
    ) -> Self {
        let attempt = Duration::from_millis(u64::from(reply.heartbeat_ms).max(1) * 2)
            .clamp(ATTEMPT_MIN, ATTEMPT_MAX);
        Self {
            join,
            finder: finder.attempt_timeout(attempt),
            routing,
            report,
            lease: Lease::new(),
            lease_ms: AtomicU64::new(reply.lease_ms.into()),
            interval_ms: AtomicU64::new(reply.heartbeat_ms.into()),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId(self.join.node_id)
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.join.cluster_id
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.join.incarnation
    }

    pub(super) fn interval(&self) -> Duration {
        let interval = Duration::from_millis(self.interval_ms.load(Ordering::Relaxed));
        interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    /// A heartbeat, and a new join if the cluster does not know this process (any more).
    pub(super) async fn once(&self) -> Result<(), Status> {
        let half_lease = Duration::from_millis(self.lease_ms.load(Ordering::Relaxed) / 2);
        let deadline = clock::now() + half_lease.max(self.interval());
        match self.send(deadline, false).await {
            Err(status) if forgotten(&status) => {
                tracing::warn!(%status, "the cluster does not know this process: joining again");
                let reply = super::join_once(&self.finder, &self.join).await?;
                if reply.node_id != self.join.node_id {
                    let detail = format!("joined again, but as node {}", reply.node_id);
                    return Err(Status::new(Code::WrongCluster, detail));
                }
                self.lease_ms.store(reply.lease_ms.into(), Ordering::Relaxed);
                self.interval_ms.store(reply.heartbeat_ms.into(), Ordering::Relaxed);
                reply.routing.into_iter().for_each(|delta| self.learn(delta));
                self.send(deadline, false).await
            }
            outcome => outcome,
        }
    }

    /// Sends one heartbeat; a `leaving` one renews nothing.
    pub(super) async fn send(&self, deadline: Instant, leaving: bool) -> Result<(), Status> {
        let ask = |channel, timeout| async move {
            // Taken for each attempt: the lease counts from the sending that was answered.
            let sent = BootTime::now();
            let call = Call { timeout, ..Call::default() };
            let request = self.request(leaving);
            let (reply, _) = ClusterClient::new(channel).heartbeat(&request, call).await?;
            Ok((sent, reply))
        };
        let (sent, reply) = self.finder.call(deadline, ask).await?;
        // The routing first: a node that was cut off must not serve, under the lease that this
        // answer renews, by chains that changed meanwhile.
        let told = reply.routing.as_ref().map_or(0, |delta| delta.version);
        reply.routing.into_iter().for_each(|delta| self.learn(delta));
        if !leaving && self.routing.version().0 >= told {
            self.lease_ms.store(reply.lease_ms.into(), Ordering::Relaxed);
            self.lease.renew(sent, Duration::from_millis(reply.lease_ms.into()));
        }
        Ok(())
    }

    pub(super) fn learn(&self, delta: pb::RoutingDelta) {
        let version = RoutingVersion(delta.version);
        if !self.routing.apply(delta) {
            self.routing.heard_of(version);
        }
    }

    fn request(&self, leaving: bool) -> pb::HeartbeatRequest {
        let report = (self.report)();
        pb::HeartbeatRequest {
            node_id: self.join.node_id,
            incarnation: self.join.incarnation,
            targets: report.targets,
            disks: report.disks,
            routing_version: self.routing.version().0,
            leaving,
            read_bytes: report.read_bytes,
            write_bytes: report.write_bytes,
            read_ops: report.read_ops,
            write_ops: report.write_ops,
            certificate_expires_s: report.certificate_expires_s,
            unreachable: report.unreachable,
            leaf: report.leaf,
            level: level::known(),
            release: level::RELEASE.into(),
        }
    }
}

/// NOT_FOUND to a heartbeat: the leader knows no such node, or knows it by an older incarnation.
fn forgotten(status: &Status) -> bool {
    matches!(status.code, Code::NotFound | Code::SessionExpired)
}

/// FORBIDDEN to a heartbeat or join: a newer incarnation of this node has joined.
pub(super) fn refuses_for_good(status: &Status) -> bool {
    matches!(
        status.code,
        Code::Forbidden | Code::Unauthenticated | Code::WrongCluster | Code::BadProtocolVersion
    )
}
