//! A simulated storage node: its disks, and the process that comes and goes over them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use ff2_fabric::{
    BufPool, Identity, NamespaceServer, Owed, Peers, PeersConfig, Router, Server, ServerConfig,
    StorageServer,
};
use ff2_proto::{ChainId, TargetId, pb};
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Process, World,
    cluster::targets_of,
    driver::{self, Handle, Surroundings},
    service::Service,
};
use crate::{disk::Disk, rng::Rng};

/// Small, so that payloads wait for buffers; an eighth of it is the credit of one connection.
const POOL_BYTES: u64 = 1 << 20;
const READ_POOL_BYTES: u64 = 256 << 10;
/// A server that stops waits this long for what is in progress, and a little.
const STOP_MAX: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: Process,
    disks: BTreeMap<TargetId, Arc<Mutex<Disk>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    running: Option<Running>,
    /// When the process ended; the cluster finds out a while later.
    down: Option<Instant>,
    noticed_after: Duration,
    /// It ended since the cluster last looked.
    restarted: bool,
    fenced: bool,
    /// A process that was asked to stop has not ended yet.
    stopping: bool,
    /// Of every process that there was: all that they lent must come back.
    pools: Vec<Arc<BufPool>>,
}

#[derive(Debug)]
struct Running {
    targets: Arc<BTreeMap<ChainId, Handle>>,
    peers: Arc<Peers>,
    lease: Arc<AtomicBool>,
    alive: Arc<AtomicBool>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Node {
    pub(super) fn new(seed: u64, id: Process) -> Arc<Self> {
        let disks =
            targets_of(id).into_iter().map(|(target, _)| (target, Arc::default())).collect();
        let state = State {
            rng: Rng::new(seed, &format!("node {id}")),
            running: None,
            down: None,
            noticed_after: Duration::ZERO,
            restarted: false,
            fenced: false,
            stopping: false,
            pools: Vec::new(),
        };
        Arc::new(Self { id, disks, state: Mutex::new(state) })
    }

    /// Starts the process: its server, and its targets from what the disks hold.
    pub(super) async fn start(&self, world: &World) {
        let routing = world.cluster.join(self.id);
        let (pool, read_pool) = (BufPool::new(POOL_BYTES), BufPool::new(READ_POOL_BYTES));
        let peers = Peers::new(PeersConfig {
            cluster_id: world.net.clone(),
            identity: Identity::Daemon(world.key.clone()),
            pool: pool.clone(),
            routing: routing.clone(),
            tls: None,
            rdma: None,
            zone: String::new(),
        });
        let config =
            ServerConfig::new(&*world.net, world.key.clone(), pool.clone(), routing.clone());
        let address = format!("mem:{}.{}", world.net, self.id);
        let server = match Server::bind(&address, config).await {
            Ok(server) => server,
            Err(error) => {
                return world.chronicle.problem(format!("node {} cannot bind: {error}", self.id));
            }
        };
        let mut state = self.state.lock();
        let (lease, alive) =
            (Arc::new(AtomicBool::new(!state.fenced)), Arc::new(AtomicBool::new(true)));
        let around = Surroundings {
            peers: peers.clone(),
            routing,
            lease: lease.clone(),
            alive: alive.clone(),
            ledger: world.ledger.clone(),
        };
        let mut targets = BTreeMap::new();
        for (target, chain) in targets_of(self.id) {
            let rng = state.rng.next();
            let (disk, rng) = (self.disks[&target].clone(), Rng::new(rng, "target"));
            targets.insert(chain, driver::start(target, chain, disk, around.clone(), rng));
        }
        let targets = Arc::new(targets);
        state.pools.extend([pool, read_pool.clone()]);
        let service = Arc::new(Service {
            targets: targets.clone(),
            read_pool,
            ledger: world.ledger.clone(),
            chronicle: world.chronicle.clone(),
        });
        let router = Router::new()
            .add(StorageServer::new(service.clone()))
            .add(NamespaceServer::new(service));
        let stop = CancellationToken::new();
        let server = tokio::spawn(server.serve(router, stop.clone()));
        state.down = None;
        state.running = Some(Running { targets, peers, lease, alive, stop, server });
        world.chronicle.log(format!("node {} started", self.id));
    }

    /// Ends the process at once: its connections break, and the disks lose what was not synced.
    pub(super) fn crash(&self, world: &World) {
        let Some(running) = self.state.lock().running.take() else { return };
        let lines = world.sky.cut_lines_of(self.id);
        running.stop.cancel();
        running.end();
        self.ended();
        world.chronicle.log(format!("node {} crashed, {lines} connections broke", self.id));
    }

    /// Ends the process as SIGTERM does: what is in progress is answered first.
    pub(super) async fn stop(&self, world: &World) -> Duration {
        let taken = {
            let mut state = self.state.lock();
            state.stopping |= state.running.is_some();
            state.running.take()
        };
        let Some(mut running) = taken else { return Duration::ZERO };
        world.chronicle.log(format!("node {} stops", self.id));
        let began = Instant::now();
        running.stop.cancel();
        if timeout(STOP_MAX, &mut running.server).await.is_err() {
            world.chronicle.problem(format!("the server of node {} does not stop", self.id));
        }
        running.end();
        self.ended();
        self.state.lock().stopping = false;
        world.chronicle.log(format!("node {} stopped", self.id));
        began.elapsed()
    }

    fn ended(&self) {
        let mut state = self.state.lock();
        let State { rng, down, noticed_after, restarted, .. } = &mut *state;
        (*down, *restarted) = (Some(Instant::now()), true);
        *noticed_after = Duration::from_millis(rng.within(200..2_000));
        self.disks.values().for_each(|disk| disk.lock().crash(rng));
    }

    /// The cluster takes it for dead, though it lives: it has lost its lease, or has it back.
    pub(super) fn fence(&self, world: &World, fenced: bool) {
        let mut state = self.state.lock();
        state.fenced = fenced;
        let lease = state.running.as_ref().map(|running| running.lease.clone());
        drop(state);
        // It gets the newest routing before its lease is good again.
        world.cluster.cut_off(self.id, fenced);
        if let Some(lease) = lease {
            lease.store(!fenced, SeqCst);
        }
    }

    /// Nothing runs, and nothing is about to end.
    pub(super) fn is_down(&self) -> bool {
        let state = self.state.lock();
        state.running.is_none() && !state.stopping
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Whether the cluster sees it as gone; asked once at each look.
    pub(super) fn is_gone(&self) -> bool {
        let mut state = self.state.lock();
        let noticed = state.down.is_some_and(|down| down.elapsed() >= state.noticed_after);
        if state.running.is_none() {
            return noticed;
        }
        // A new process: the old one is gone, whether anybody noticed or not.
        std::mem::take(&mut state.restarted) || state.fenced
    }

    /// What a heartbeat says of a target. While nobody has noticed that the process is down, what it
    /// said last still counts.
    pub(super) fn report(&self, target: TargetId) -> Option<pb::TargetReport> {
        let state = self.state.lock();
        let Some(running) = &state.running else {
            let local_state = pb::LocalState::Online.into();
            return Some(pb::TargetReport { local_state, ..Default::default() });
        };
        let handle = running.targets.values().find(|handle| handle.id == target)?;
        let report = handle.seen().report;
        Some(pb::TargetReport {
            target: target.0,
            local_state: report.local_state.into(),
            chain_version: report.chain_version,
            ..Default::default()
        })
    }

    /// Nothing is being changed, and nobody owes anything.
    pub(super) fn is_quiet(&self) -> bool {
        self.explain().is_empty()
    }

    /// What is still going on.
    pub(super) fn explain(&self) -> Vec<String> {
        let state = self.state.lock();
        let Some(running) = &state.running else { return vec!["not running".into()] };
        let live = running.targets.values().map(Handle::seen).filter(|seen| seen.live_chunks > 0);
        let mut lines: Vec<String> = live.flat_map(|seen| seen.explanation).collect();
        let owed = running.peers.owed();
        if (Owed { connections: owed.connections, ..Owed::default() }) != owed {
            lines.push(format!("node {} is owed {owed:?}", self.id));
        }
        lines
    }

    /// Bytes that did not come back to any pool of its processes, once all have ended.
    pub(super) fn lent_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.pools.iter().map(|pool| pool.limit_bytes() - pool.free_bytes()).sum()
    }

    pub(super) fn disk(&self, target: TargetId) -> Option<&Mutex<Disk>> {
        self.disks.get(&target).map(|disk| &**disk)
    }
}

impl Running {
    fn end(&self) {
        self.alive.store(false, SeqCst);
        self.peers.stop();
        self.targets.values().for_each(Handle::end);
    }
}
