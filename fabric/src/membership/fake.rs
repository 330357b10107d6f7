//! A metad's Cluster service as tests need it: over TCP, with a switch for each thing that goes wrong.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_proto::{Code, Status, pb};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Answer, Buf, BufPool, Cluster, ClusterKey, ClusterServer, Context, Identity, Peers,
    PeersConfig, Router, RoutingCache, Server, ServerConfig,
};

pub(crate) const CLUSTER: &str = "fake";

/// What the fake does and saw.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) lease_ms: u32,
    pub(crate) heartbeat_ms: u32,
    /// Where the leader is, when it is not this one.
    pub(crate) leader: Option<String>,
    /// Every call is refused with this.
    pub(crate) refuse: Option<Status>,
    /// Calls are held and never answered.
    pub(crate) hang: bool,
    pub(crate) incarnation: Option<u64>,
    pub(crate) routing: pb::RoutingDelta,
    pub(crate) joins: Vec<pb::JoinRequest>,
    pub(crate) heartbeats: Vec<pb::HeartbeatRequest>,
    pub(crate) polls: Vec<pb::WatchRoutingRequest>,
}

pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Notify,
    pub(crate) address: String,
    stop: CancellationToken,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A fake that listens, as handed to tests; the service holds the state with it.
#[derive(Clone)]
struct Service(Arc<Fake>);

impl Fake {
    pub(crate) async fn start(key: &ClusterKey) -> Arc<Self> {
        let routing = RoutingCache::new();
        let config = ServerConfig::new(CLUSTER, key.clone(), BufPool::new(1 << 20), routing);
        let server = Server::bind("127.0.0.1:0", config).await.unwrap();
        let state = State { lease_ms: 60_000, heartbeat_ms: 20, ..State::default() };
        let fake = Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            address: server.local_addr().to_string(),
            stop: CancellationToken::new(),
        });
        let router = Router::new().add(ClusterServer::new(Arc::new(Service(fake.clone()))));
        tokio::spawn(server.serve(router, fake.stop.clone()));
        fake
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_waiters();
    }

    pub(crate) fn publish(&self, version: u64) {
        self.set(|state| state.routing = pb::RoutingDelta { version, ..Default::default() });
    }

    async fn admit(&self) -> Result<(), Status> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state.lock();
                if let Some(refusal) = &state.refuse {
                    return Err(refusal.clone());
                }
                if let Some(leader) = &state.leader {
                    return Err(Status::not_leader(Some(leader.clone())));
                }
                if !state.hang {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    fn delta(&self, since: u64) -> Option<pb::RoutingDelta> {
        let routing = self.state.lock().routing.clone();
        (routing.version > since).then_some(routing)
    }
}

impl Cluster for Service {
    async fn join(
        &self,
        _cx: Context,
        request: pb::JoinRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::JoinReply>, Status> {
        self.0.admit().await?;
        let mut state = self.0.state.lock();
        state.incarnation = Some(request.incarnation);
        let node_id = if request.node_id == 0 { 7 } else { request.node_id };
        state.joins.push(request);
        let reply = pb::JoinReply {
            node_id,
            cluster_id: CLUSTER.into(),
            lease_ms: state.lease_ms,
            heartbeat_ms: state.heartbeat_ms,
            routing: Some(state.routing.clone()),
        };
        drop(state);
        self.0.changed.notify_waiters();
        Ok(reply.into())
    }

    async fn heartbeat(
        &self,
        _cx: Context,
        request: pb::HeartbeatRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::HeartbeatReply>, Status> {
        self.0.admit().await?;
        let routing = self.0.delta(request.routing_version);
        let mut state = self.0.state.lock();
        if state.incarnation != Some(request.incarnation) {
            return Err(Status::new(Code::NotFound, "unknown incarnation"));
        }
        state.heartbeats.push(request);
        let lease_ms = state.lease_ms;
        drop(state);
        self.0.changed.notify_waiters();
        Ok(pb::HeartbeatReply { lease_ms, routing }.into())
    }

    async fn watch_routing(
        &self,
        _cx: Context,
        request: pb::WatchRoutingRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::RoutingDelta>, Status> {
        self.0.set(|state| state.polls.push(request));
        let until = Instant::now() + Duration::from_millis(request.wait_ms.into());
        loop {
            let changed = self.0.changed.notified();
            if let Some(delta) = self.0.delta(request.since) {
                return Ok(delta.into());
            }
            if tokio::time::timeout_at(until.into(), changed).await.is_err() {
                let unchanged = pb::RoutingDelta {
                    since: request.since,
                    version: request.since,
                    ..Default::default()
                };
                return Ok(unchanged.into());
            }
        }
    }

    async fn publish_snapshots(
        &self,
        _cx: Context,
        _request: pb::PublishSnapshotsRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::PublishSnapshotsReply>, Status> {
        Ok(pb::PublishSnapshotsReply { known: true }.into())
    }

    async fn leaders(
        &self,
        _cx: Context,
        _request: pb::LeadersRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::LeadersReply>, Status> {
        let leader = self.0.state.lock().leader.clone();
        let address = leader.unwrap_or_else(|| self.0.address.clone());
        let groups = vec![pb::GroupLeader { group: 0, address, term: 1 }];
        Ok(pb::LeadersReply { groups }.into())
    }
}

pub(crate) fn peers(key: &ClusterKey) -> (Arc<Peers>, Arc<RoutingCache>) {
    let routing = RoutingCache::new();
    let config = PeersConfig {
        cluster_id: CLUSTER.into(),
        identity: Identity::Daemon(key.clone()),
        pool: BufPool::new(1 << 20),
        routing: routing.clone(),
        tls: None,
        rdma: None,
        zone: String::new(),
    };
    (Peers::new(config), routing)
}

/// Waits until `holds`, or fails the test after a time that no working code needs.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
