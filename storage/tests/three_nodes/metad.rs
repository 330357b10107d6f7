//! A stand-in for metad: one chain over the nodes that join, leases, and the states of the chain by
//! the same rules as the cluster machine. In memory, answered at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_fabric::{
    Answer, Cluster, ClusterKey, ClusterServer, Context, Router, RoutingCache, Server,
    ServerConfig,
    buf::{Buf, BufPool},
};
use ff2_proto::{
    Code, NodeId, Routing, RoutingVersion, Status, TargetId,
    pb::{self, LocalState, PublicState},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const LEASE: Duration = Duration::from_millis(1_500);
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);
pub(crate) const CLUSTER: &str = "three";

#[derive(Debug)]
pub(crate) struct Metad {
    state: Mutex<State>,
    version: watch::Sender<u64>,
    members: usize,
}

#[derive(Debug, Default)]
struct State {
    routing: Routing,
    heard: BTreeMap<u32, Instant>,
    /// What each target last said: here, and complete as of which chain version.
    said: BTreeMap<u64, Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    generation: u64,
    complete_as_of: Option<u64>,
}

impl Metad {
    pub(crate) async fn start(
        address: &str,
        key: &ClusterKey,
        members: usize,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (version, _) = watch::channel(0);
        let metad = Arc::new(Self { state: Mutex::default(), version, members });
        metad.state.lock().routing.cluster_id = CLUSTER.into();
        let config =
            ServerConfig::new(CLUSTER, key.clone(), BufPool::new(1 << 20), RoutingCache::new());
        let server = Server::bind(address, config).await.unwrap();
        let router = Router::new().add(ClusterServer::new(metad.clone()));
        tokio::spawn(server.serve(router, stop.clone()));
        let judge = metad.clone();
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::time::sleep(HEARTBEAT).await;
                judge.judge_leases();
            }
        });
        metad
    }

    pub(crate) fn chain(&self) -> Option<pb::Chain> {
        self.state.lock().routing.chains.values().next().cloned()
    }

    pub(crate) fn routing(&self) -> pb::RoutingDelta {
        self.state.lock().delta()
    }

    /// A new target on its node's present disk takes the place of one that is offline.
    pub(crate) fn replace(&self, target: u64) -> u64 {
        let mut state = self.state.lock();
        let version = state.bump();
        let mut old = state.routing.targets[&TargetId(target)].clone();
        let mut chain = state.routing.chains[&old.chain.into()].clone();
        let member = chain.members.iter_mut().find(|member| member.target == target).unwrap();
        assert_eq!(member.state(), PublicState::Offline);
        let new = pb::Target {
            id: target + 1_000,
            disk_uuid: state.routing.nodes[&NodeId(old.node)].disks[0].uuid.clone(),
            changed_at: version,
            generation: 0,
            ..old.clone()
        };
        let id = new.id;
        member.target = id;
        chain.version += 1;
        chain.changed_at = version;
        (old.node, old.chain, old.changed_at) = (0, 0, version);
        state.routing.chains.insert(chain.id.into(), chain);
        state.routing.targets.insert(id.into(), new);
        state.routing.targets.insert(target.into(), old);
        self.publish(state);
        id
    }

    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&pb::Chain) -> bool) {
        let mut version = self.version.subscribe();
        let wait = async {
            while !self.chain().is_some_and(|chain| is_so(&chain)) {
                version.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.chain());
    }

    pub(crate) async fn until_all_serve(&self) {
        let serves = |m: &pb::ChainMember| m.state() == PublicState::Serving;
        self.until("all serve", |chain| chain.members.iter().all(serves)).await;
    }

    fn judge_leases(&self) {
        let mut state = self.state.lock();
        let silent = |(&node, heard): (&u32, &Instant)| (heard.elapsed() > LEASE).then_some(node);
        let dead: BTreeSet<u32> = state.heard.iter().filter_map(silent).collect();
        if !dead.is_empty() {
            state.kill(&dead);
            self.publish(state);
        }
    }

    fn publish(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        state.decide();
        let version = state.routing.version.0;
        drop(state);
        self.version.send_replace(version);
    }
}

impl State {
    fn delta(&self) -> pb::RoutingDelta {
        pb::RoutingDelta {
            since: 0,
            version: self.routing.version.0,
            nodes: self.routing.nodes.values().cloned().collect(),
            targets: self.routing.targets.values().cloned().collect(),
            chains: self.routing.chains.values().cloned().collect(),
            cluster_id: CLUSTER.into(),
            ..Default::default()
        }
    }

    fn bump(&mut self) -> u64 {
        self.routing.version = RoutingVersion(self.routing.version.0 + 1);
        self.routing.version.0
    }

    fn kill(&mut self, dead: &BTreeSet<u32>) {
        for node in dead {
            self.heard.remove(node);
        }
        let routing = &self.routing;
        self.said.retain(|target, _| !dead.contains(&routing.targets[&TargetId(*target)].node));
        self.bump();
    }

    fn create_chain(&mut self) {
        let version = self.bump();
        let nodes: Vec<pb::Node> = self.routing.nodes.values().cloned().collect();
        let mut members = Vec::new();
        for node in nodes {
            let id = u64::from(node.id) + 1_000;
            members.push(pb::ChainMember {
                target: id,
                state: PublicState::Lastsrv.into(),
                node: node.id,
            });
            let target = pb::Target {
                id,
                chain: 1,
                node: node.id,
                disk_uuid: node.disks[0].uuid.clone(),
                changed_at: version,
                ..Default::default()
            };
            self.routing.targets.insert(id.into(), target);
        }
        let chain =
            pb::Chain { id: 1, version: 1, members, changed_at: version, ..Default::default() };
        self.routing.chains.insert(1.into(), chain);
    }

    fn report(&mut self, reports: &[pb::TargetReport]) {
        for report in reports {
            let is_here = matches!(report.local_state(), LocalState::Online | LocalState::UpToDate);
            if !is_here {
                self.said.remove(&report.target);
                continue;
            }
            let complete = report.local_state() == LocalState::UpToDate;
            let said = Said {
                generation: report.generation,
                complete_as_of: complete.then_some(report.chain_version),
            };
            self.said.insert(report.target, said);
        }
    }

    fn decide(&mut self) {
        let Some(mut chain) = self.routing.chains.get(&1.into()).cloned() else { return };
        if chain.version == 1 && self.said.len() < chain.members.len() {
            return;
        }
        while self.decide_once(&mut chain) {
            chain.version += 1;
            chain.changed_at = self.bump();
        }
        self.routing.chains.insert(1.into(), chain);
    }

    fn decide_once(&self, chain: &mut pb::Chain) -> bool {
        use PublicState::{Lastsrv, Offline, PublicUnknown, Serving, Syncing, Waiting};
        let before = chain.members.clone();
        let newborn = chain.version == 1;
        let here = |m: &pb::ChainMember| self.said.contains_key(&m.target);
        let complete = |m: &pb::ChainMember| {
            self.said.get(&m.target).and_then(|said| said.complete_as_of) == Some(chain.version)
        };
        let goes_on = |m: &pb::ChainMember| match m.state() {
            Serving => here(m),
            Syncing => here(m) && complete(m),
            Lastsrv => newborn && here(m),
            Waiting | Offline | PublicUnknown => false,
        };
        let mut serving: BTreeSet<u64> =
            before.iter().filter(|m| goes_on(m)).map(|m| m.target).collect();
        if serving.is_empty() {
            let last = before.iter().find(|m| m.state() == Lastsrv && here(m));
            serving.extend(last.map(|m| m.target));
        }
        for member in &mut chain.members {
            let present = self.said.contains_key(&member.target);
            let state = match member.state() {
                _ if serving.contains(&member.target) => Serving,
                Serving | Lastsrv if serving.is_empty() => Lastsrv,
                _ if !present => Offline,
                Syncing if !serving.is_empty() => Syncing,
                Serving | Lastsrv | Syncing | Waiting | Offline | PublicUnknown => Waiting,
            };
            member.set_state(state);
        }
        let is_free = !chain.members.iter().any(|m| m.state() == Syncing);
        if !serving.is_empty()
            && is_free
            && let Some(member) = chain.members.iter_mut().find(|m| m.state() == Waiting)
        {
            member.set_state(Syncing);
        }
        chain.members.sort_by_key(|m| match m.state() {
            Serving => 0,
            Lastsrv => 1,
            Syncing => 2,
            Waiting => 3,
            Offline | PublicUnknown => 4,
        });
        chain.members != before
    }
}

impl Cluster for Metad {
    async fn join(
        &self,
        _cx: Context,
        request: pb::JoinRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::JoinReply>, Status> {
        let mut state = self.state.lock();
        let id = match request.node_id {
            0 => 101 + state.routing.nodes.len() as u32,
            id => id,
        };
        let known = state.routing.nodes.get(&NodeId(id)).cloned();
        if known.is_some_and(|known| known.incarnation != request.incarnation) {
            state.kill(&BTreeSet::from([id]));
        }
        let changed_at = state.bump();
        let node = pb::Node {
            id,
            role: request.role,
            address: request.address,
            disks: request.disks,
            incarnation: request.incarnation,
            alive: true,
            changed_at,
            ..Default::default()
        };
        state.routing.nodes.insert(id.into(), node);
        state.heard.insert(id, Instant::now());
        if state.routing.nodes.len() == self.members && state.routing.chains.is_empty() {
            state.create_chain();
        }
        state.decide();
        let reply = pb::JoinReply {
            node_id: id,
            cluster_id: CLUSTER.into(),
            lease_ms: LEASE.as_millis() as u32,
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
            routing: Some(state.delta()),
        };
        self.publish(state);
        Ok(reply.into())
    }

    async fn heartbeat(
        &self,
        _cx: Context,
        request: pb::HeartbeatRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::HeartbeatReply>, Status> {
        let mut state = self.state.lock();
        let known = state.routing.nodes.get(&NodeId(request.node_id));
        if known.is_none_or(|node| node.incarnation != request.incarnation) {
            return Err(Status::new(Code::NotFound, "not this incarnation"));
        }
        if request.leaving {
            state.kill(&BTreeSet::from([request.node_id]));
        } else {
            state.heard.insert(request.node_id, Instant::now());
            state.report(&request.targets);
        }
        state.decide();
        let newer = state.routing.version.0 > request.routing_version;
        let reply = pb::HeartbeatReply {
            lease_ms: LEASE.as_millis() as u32,
            routing: newer.then(|| state.delta()),
        };
        self.publish(state);
        Ok(reply.into())
    }

    async fn watch_routing(
        &self,
        _cx: Context,
        request: pb::WatchRoutingRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::RoutingDelta>, Status> {
        let mut version = self.version.subscribe();
        let wait = Duration::from_millis(request.wait_ms.into());
        let _ = tokio::time::timeout(wait, version.wait_for(|now| *now > request.since)).await;
        Ok(self.routing().into())
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
        Ok(pb::LeadersReply::default().into())
    }
}

/// Generations never change in these tests: a node that came back has its data.
pub(crate) fn generations(metad: &Metad) -> BTreeMap<u64, u64> {
    metad.state.lock().said.iter().map(|(&target, said)| (target, said.generation)).collect()
}
