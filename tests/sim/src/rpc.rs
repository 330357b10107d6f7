//! The second simulation: the real RPC layer and the real chain client, in virtual time.
//!
//! The first one (`world`) moves messages of its own between the machines. This one runs what the
//! processes run: [`ff2_fabric::Server`], [`Peers`](ff2_fabric::Peers), their connections, credits and
//! deadlines, the [`ChainClient`](ff2_fabric::chain::ChainClient) with its retries, over the in-memory
//! transport. The servers are the CRAQ machines over the simulated disks; their forwards and
//! questions ride the same connections. Time is tokio's clock, which stands still while anybody has
//! something to do and then goes on to the next timer, so that a minute takes a fraction of a second.
//!
//! Under a weather that delays frames, tears them, loses them and breaks connections (`sky`), and with
//! processes that crash, stop, fall silent or are fenced (`chaos`), several clients work (`session`,
//! `caller`). When all is well again, everything must come to rest, and `verdict` looks at what was
//! promised. All runs in one thread and draws from the seed, so that a run can be repeated.

mod caller;
mod cells;
mod chaos;
mod chronicle;
mod cluster;
mod driver;
mod ledger;
mod node;
mod peer;
mod service;
mod session;
mod sky;
mod verdict;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use caller::Caller;
use chaos::Chaos;
use chronicle::Chronicle;
use cluster::Cluster;
use ff2_fabric::{ClusterKey, Identity, mem};
use ff2_proto::{marks, pb};
use ledger::Ledger;
use node::Node;
use session::Session;
use sky::Sky;
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{panics, rng::Rng, verdict::Verdict};

/// A process of the run: a storage node, or a client.
type Process = u32;

const NODES: [Process; 4] = [1, 2, 3, 4];
const CHAINS: u32 = 2;
const REPLICAS: usize = 3;
const SESSIONS: [Process; 3] = [11, 12, 13];
const CALLERS: [Process; 2] = [21, 22];
/// Tasks of each client process.
const TASKS: usize = 3;

const CHAOS: Duration = Duration::from_secs(25);
/// Until connections that nobody knows to be broken are found out and made again.
const RECOVERY: Duration = Duration::from_secs(10);
/// Load without any trouble, behind that.
const CALM: Duration = Duration::from_secs(4);
/// The longest that a client may be busy with what it began, and the cluster with healing.
const REST_MAX: Duration = Duration::from_secs(90);

/// What everybody in a run shares.
#[derive(Debug)]
struct World {
    /// The first part of all names and the id of the cluster: runs side by side must not meet.
    net: String,
    key: ClusterKey,
    chronicle: Arc<Chronicle>,
    ledger: Arc<Ledger>,
    sky: Arc<Sky>,
    cluster: Arc<Cluster>,
    /// No call that begins now has a reason to fail.
    calm: AtomicBool,
    stopping: AtomicBool,
}

/// All processes of a run.
#[derive(Debug)]
struct Cast {
    nodes: Arc<Vec<Arc<Node>>>,
    sessions: Vec<Arc<Session>>,
    callers: Vec<Arc<Caller>>,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        // Of one length: it is a part of what is sent.
        let net = format!("run{:08}", RUNS.fetch_add(1, SeqCst) % 100_000_000);
        let chronicle = Arc::new(Chronicle::new());
        Arc::new(Self {
            key: ClusterKey::generate().expect("the system gives random numbers"),
            ledger: Arc::default(),
            sky: Sky::new(seed, chronicle.clone()),
            cluster: Cluster::new(seed, &net, chronicle.clone()),
            calm: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            chronicle,
            net,
        })
    }

    fn is_calm(&self) -> bool {
        self.calm.load(SeqCst)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// As whom a client connects: some are daemons, as metad's collector, and some are users.
    fn identity(&self, process: Process) -> Identity {
        if process.is_multiple_of(2) {
            return Identity::Daemon(self.key.clone());
        }
        let name = format!("user {process}");
        let claims = pb::UserClaims { uid: process, name, token_id: 1, ..Default::default() };
        Identity::User(self.key.issue(claims))
    }
}

/// Simulates one seed.
pub fn run_rpc(seed: u64) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    panics::watch();
    marks::take();
    let mut verdict = runtime.block_on(simulate(seed));
    verdict.problems.extend(panics::seen());
    verdict
}

async fn simulate(seed: u64) -> Verdict {
    let world = World::new(seed);
    let _weather: Vec<_> = NODES
        .iter()
        .map(|node| mem::set_weather(&format!("{}.{node}", world.net), world.sky.clone()))
        .collect();
    let cast = Cast {
        nodes: Arc::new(NODES.iter().map(|&id| Node::new(seed, id)).collect()),
        sessions: SESSIONS.map(|id| Session::new(&world, id, world.identity(id))).into(),
        callers: CALLERS.map(|id| Caller::new(&world, id, world.identity(id))).into(),
    };
    for node in &*cast.nodes {
        node.start(&world).await;
    }
    let judging = tokio::spawn(world.cluster.clone().run(cast.nodes.clone()));
    while !world.cluster.everything_serves() {
        sleep(Duration::from_millis(100)).await;
    }
    let clients = start_clients(seed, &world, &cast);
    let processes = [&NODES[..], &SESSIONS, &CALLERS].concat();
    let end = Instant::now() + CHAOS;
    Chaos::new(seed, processes).reign(world.clone(), cast.nodes.clone(), end).await;
    chaos::heal(&world, &cast.nodes).await;
    sleep(RECOVERY).await;
    world.calm.store(true, SeqCst);
    sleep(CALM).await;
    world.stopping.store(true, SeqCst);
    come_to_rest(&world, &cast, clients).await;
    judging.abort();
    verdict::judge(seed, &world, &cast).await
}

fn start_clients(seed: u64, world: &Arc<World>, cast: &Cast) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for task in 0..TASKS {
        for (session, process) in cast.sessions.iter().zip(SESSIONS) {
            let rng = Rng::new(seed, &format!("session {process} task {task}"));
            clients.spawn(session.clone().work(world.clone(), rng));
        }
        for (caller, process) in cast.callers.iter().zip(CALLERS) {
            let rng = Rng::new(seed, &format!("caller {process} task {task}"));
            clients.spawn(caller.clone().work(world.clone(), rng));
        }
    }
    clients
}

/// Waits until every client has its last answer, every chain is whole, and nobody owes anything.
async fn come_to_rest(world: &World, cast: &Cast, mut clients: JoinSet<()>) {
    let finished = async { while clients.join_next().await.is_some() {} };
    if timeout(REST_MAX, finished).await.is_err() {
        world.chronicle.problem(format!("{} tasks of clients hang", clients.len()));
    }
    let began = Instant::now();
    while !is_at_rest(world, cast) {
        if began.elapsed() > REST_MAX {
            world.chronicle.problem("the cluster does not come to rest");
            verdict::explain(world, cast);
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn is_at_rest(world: &World, cast: &Cast) -> bool {
    world.cluster.everything_serves()
        && cast.nodes.iter().all(|node| node.is_quiet())
        && cast.clients().all(|peers| verdict::owes_nothing(peers))
}

impl Cast {
    fn clients(&self) -> impl Iterator<Item = &Arc<ff2_fabric::Peers>> {
        let sessions = self.sessions.iter().map(|session| &session.peers);
        sessions.chain(self.callers.iter().map(|caller| &caller.peers))
    }

    /// The buffers of the clients.
    fn pools(&self) -> impl Iterator<Item = &Arc<ff2_fabric::BufPool>> {
        let sessions = self.sessions.iter().map(|session| &session.pool);
        sessions.chain(self.callers.iter().map(|caller| &caller.pool))
    }
}
