//! How a daemon belongs to the cluster: it joins, sends heartbeats to the group-0 leader, keeps the
//! routing fresh, fences itself when nobody answers, and says goodbye when it stops.
//!
//! One task owns the heartbeat; [`Lease`] is what the rest of the process asks before it serves.
//! What the node reports is the caller's: `report` is called for each attempt, so that the newest
//! state travels. This module never persists anything: the caller stores [`Membership::node_id`]
//! and [`Membership::cluster_id`] and passes them in the next [`pb::JoinRequest`].

mod beat;
#[cfg(test)]
pub(crate) mod fake;
mod lease;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use beat::Beat;
use ff2_proto::{CLUSTER_GROUP, Code, NodeId, Retry, Status, pb};
pub use lease::Lease;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use crate::routing::RoutingWatch;
use crate::{
    Call, ClusterClient, Peers, clock, leader::LeaderFinder, level, pace, routing::RoutingCache,
};

/// One round of a join; rounds repeat until the cluster answers.
const JOIN_ROUND: Duration = Duration::from_secs(5);
/// A clean stop waits this long for the cluster to hear of it; the lease covers the rest.
const LEAVE: Duration = Duration::from_secs(2);

/// Who joins, and whom it asks.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// Data-plane addresses of the metads.
    pub metads: Vec<String>,
    /// `node_id` 0 and an empty `cluster_id` ask for new ones. An `incarnation` of 0 is replaced by a
    /// random one.
    pub request: pb::JoinRequest,
}

/// What a heartbeat tells about this node.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub targets: Vec<pb::TargetReport>,
    pub disks: Vec<pb::Disk>,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
    /// Unix time; 0: it has no certificate.
    pub certificate_expires_s: u64,
    /// Nodes that do not answer this one, although the routing says that they live.
    pub unreachable: Vec<u32>,
    /// The switch that it hangs at; empty: nobody said.
    pub leaf: String,
}

/// This process's place in the cluster. Dropping it stops the heartbeats without a goodbye.
pub struct Membership {
    beat: Arc<Beat>,
    wake: Arc<Notify>,
    refused: watch::Receiver<Option<Status>>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    watch: RoutingWatch,
}

impl Membership {
    /// Joins: asks until the cluster answers, so a daemon may start before the metads do. Fails only
    /// on a final refusal (wrong cluster, wrong key). Dropping the future gives up without a trace.
    pub async fn join(
        config: MembershipConfig,
        peers: Arc<Peers>,
        routing: Arc<RoutingCache>,
        report: impl Fn() -> Report + Send + Sync + 'static,
    ) -> Result<Self, Status> {
        let mut request = config.request;
        if request.incarnation == 0 {
            request.incarnation = crate::leader::backoff::random();
        }
        request.level = level::known();
        let metads = config.metads;
        let finder =
            LeaderFinder::new(CLUSTER_GROUP, metads.clone(), peers.clone(), routing.clone());
        let reply = join_until_answered(&finder, &request).await?;
        request.node_id = reply.node_id;
        request.cluster_id.clone_from(&reply.cluster_id);
        tracing::info!(node = reply.node_id, cluster = %reply.cluster_id, "joined the cluster");

        let beat = Arc::new(Beat::new(request, &reply, finder, routing.clone(), Box::new(report)));
        if let Some(delta) = reply.routing {
            beat.learn(delta);
        }
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let (refuse, refused) = watch::channel(None);
        let loop_ = heartbeats(beat.clone(), wake.clone(), refuse, stop.clone());
        let task = Some(tokio::spawn(loop_));
        let watch = RoutingWatch::start(metads, peers, routing);
        Ok(Self { beat, wake, refused, stop, task, watch })
    }

    pub fn node_id(&self) -> NodeId {
        self.beat.node()
    }

    pub fn cluster_id(&self) -> &str {
        self.beat.cluster_id()
    }

    pub fn incarnation(&self) -> u64 {
        self.beat.incarnation()
    }

    /// Whether this node may serve.
    pub fn lease(&self) -> Lease {
        self.beat.lease.clone()
    }

    /// Sends a heartbeat at once (after the one in flight): the state of a target changed.
    pub fn heartbeat_now(&self) {
        self.wake.notify_one();
    }

    /// A handle for others who have something to report.
    pub fn heartbeat_trigger(&self) -> impl Fn() + Send + Sync + Clone + 'static {
        let wake = self.wake.clone();
        move || wake.notify_one()
    }

    /// Resolves when the cluster refuses this node for good: another process runs under its id, or the
    /// key is no longer valid. The lease is over; the process should stop.
    pub async fn refused(&self) -> Status {
        let mut refused = self.refused.clone();
        loop {
            if let Some(status) = refused.borrow_and_update().clone() {
                return status;
            }
            if refused.changed().await.is_err() {
                // The heartbeat ended without a refusal: a clean stop, nothing will ever come.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A clean stop: serves no more, tells the cluster at once, so that nobody waits for the lease.
    pub async fn leave(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the heartbeat task failed");
        }
        self.watch.stop();
        // Only now, so that no late answer can renew it.
        self.beat.lease.revoke();
        match self.beat.send(clock::now() + LEAVE, true).await {
            Ok(_) => tracing::info!(node = %self.node_id(), "left the cluster"),
            Err(error) => tracing::warn!(%error, "left without an answer; the lease will run out"),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
            self.beat.lease.revoke();
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("node", &self.node_id())
            .field("lease", &self.beat.lease)
            .finish_non_exhaustive()
    }
}

async fn join_until_answered(
    finder: &LeaderFinder,
    request: &pb::JoinRequest,
) -> Result<pb::JoinReply, Status> {
    loop {
        match join_once(finder, request).await {
            Ok(reply) => return Ok(reply),
            Err(status) if is_final(&status) => return Err(status),
            Err(status) => tracing::warn!(%status, "cannot join yet, asking again"),
        }
    }
}

async fn join_once(
    finder: &LeaderFinder,
    request: &pb::JoinRequest,
) -> Result<pb::JoinReply, Status> {
    let started = clock::now();
    let ask = |channel, timeout| async move {
        let call = Call { timeout, ..Call::default() };
        ClusterClient::new(channel).join(request, call).await.map(|(reply, _)| reply)
    };
    let outcome = finder.call(started + JOIN_ROUND, ask).await;
    if outcome.is_err() {
        // A failure that came at once must not become a tight loop.
        let pause = crate::leader::backoff::jittered(Duration::from_millis(200));
        tokio::time::sleep_until((started + pause).into()).await;
    }
    outcome
}

/// Failures that asking again cannot heal.
fn is_final(status: &Status) -> bool {
    status.retry() == Retry::Never && status.code != Code::Timeout
}

async fn heartbeats(
    beat: Arc<Beat>,
    wake: Arc<Notify>,
    refuse: watch::Sender<Option<Status>>,
    stop: CancellationToken,
) {
    let mut failing = false;
    loop {
        let next = pace::next(pace::rounded(beat.interval()));
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = beat.once() => outcome,
        };
        match outcome {
            Ok(()) if failing => {
                tracing::info!("heartbeats are answered again");
                failing = false;
            }
            Ok(()) => {}
            Err(status) if beat::refuses_for_good(&status) => {
                tracing::error!(%status, "the cluster refuses this node: it stops serving");
                beat.lease.revoke();
                refuse.send_replace(Some(status));
                return;
            }
            Err(status) if !failing => {
                tracing::warn!(%status, left = ?beat.lease.remaining(), "a heartbeat failed");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
