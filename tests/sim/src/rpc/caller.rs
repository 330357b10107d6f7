//! A process that makes plain calls: with payloads on both kinds of connection, short and long
//! deadlines, answers that are refusals, and callers that lose interest. It holds the RPC layer to its
//! word, which a chain client's retries would hide.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ff2_fabric::{
    Buf, BufPool, Call, Identity, NamespaceClient, Peers, PeersConfig, RoutingCache, SharedBuf,
};
use ff2_proto::{Code, Status, pb};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{NODES, Process, World, cluster::Cluster, service::FAILS};
use crate::rng::Rng;

/// One of the largest answers and a few others: more have to wait.
const POOL_BYTES: u64 = 768 << 10;
/// How long after its deadline a call may still answer: timers count in milliseconds.
const SLACK: Duration = Duration::from_millis(5);
/// Above the waits for memory of all answers that one may stand behind.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Caller {
    process: Process,
    pub(super) peers: Arc<Peers>,
    pub(super) pool: Arc<BufPool>,
    routing: Arc<RoutingCache>,
    calls: AtomicU64,
    /// What came of each call.
    outcomes: Mutex<Vec<(u64, Outcome)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The caller went away before there was one.
    Dropped,
    Failed(Code),
}

impl Caller {
    pub(super) fn new(world: &World, process: Process, identity: Identity) -> Arc<Self> {
        let routing = world.cluster.join(process);
        let pool = BufPool::new(POOL_BYTES);
        let peers = Peers::new(PeersConfig {
            cluster_id: world.net.clone(),
            identity,
            pool: pool.clone(),
            routing: routing.clone(),
            tls: None,
            rdma: None,
            zone: String::new(),
        });
        let (calls, outcomes) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { process, peers, pool, routing, calls, outcomes })
    }

    /// One call after the other, until the world stops.
    pub(super) async fn work(self: Arc<Self>, world: Arc<World>, mut rng: Rng) {
        while !world.is_stopping() {
            let number = u64::from(self.process) << 32 | (self.calls.fetch_add(1, Relaxed) + 1);
            let dropped_after = rng.chance(5).then(|| Duration::from_millis(rng.within(0..80)));
            let call = self.call(&world, number, &mut rng);
            let outcome = match dropped_after {
                Some(after) => timeout(after, call).await.unwrap_or(Outcome::Dropped),
                None => call.await,
            };
            world.chronicle.note("called", &[number, outcome_number(outcome)]);
            self.outcomes.lock().push((number, outcome));
            sleep(Duration::from_millis(rng.within(0..80))).await;
        }
    }

    async fn call(&self, world: &World, number: u64, rng: &mut Rng) -> Outcome {
        let fails = rng.chance(15);
        let answer_bytes = random_bytes(rng);
        let request = pb::NsRequest {
            volume: if fails { FAILS } else { 0 },
            seq: number,
            session: if rng.chance(4) { rng.within(500..7_000) } else { rng.within(0..20) },
            ack_below: answer_bytes as u64,
            ..Default::default()
        };
        let limit = Duration::from_millis(match rng.within(0..10) {
            0 => rng.within(1..60),
            1..4 => rng.within(100..1_500),
            _ => rng.within(2_000..9_000),
        });
        let payload = SharedBuf::from(vec![number as u8; random_bytes(rng)]);
        // A place for the answer, or the pool's business.
        let into = match rng.chance(50) {
            true => timeout(limit, self.pool.get(answer_bytes)).await.ok(),
            false => None,
        };
        let node = *rng.pick(&NODES).expect("there are nodes");
        let address = Cluster::address(&self.routing.get(), node);
        let client = NamespaceClient::new(self.peers.channel(&address));
        let (deadline, calm) = (Instant::now() + limit, world.is_calm());
        let small = payload.len() + answer_bytes < 10_000;
        let prompt = small && request.session < 100 && limit >= PATIENCE;
        let call = Call { timeout: limit, bulk: vec![payload], into };
        let outcome = client.execute(&request, call).await;
        let late = Instant::now().saturating_duration_since(deadline);
        if late > SLACK {
            world.chronicle.problem(format!("call {number:#x} outlived its deadline by {late:?}"));
        }
        match outcome {
            Ok((reply, bytes)) => {
                check_answer(world, &request, &reply, &bytes);
                // Whoever has an answer works with it for a while.
                let long = rng.chance(3);
                let pause = rng.within(if long { 500..3_000 } else { 0..40 });
                sleep(Duration::from_millis(pause)).await;
                Outcome::Answered
            }
            Err(status) => {
                check_failure(world, number, Excuses { fails, calm, prompt }, &status);
                Outcome::Failed(status.code)
            }
        }
    }

    /// What each outcome says of the server is true.
    pub(super) fn outcomes_are_true(&self, world: &World) -> Vec<String> {
        let mut problems = Vec::new();
        for &(number, outcome) in &*self.outcomes.lock() {
            let times = world.ledger.times_executed(number);
            let may = match outcome {
                Outcome::Answered | Outcome::Failed(Code::NotFound) => 1..=1,
                // Nothing was sent, or the server said so before it looked at the call.
                Outcome::Failed(Code::Unreachable | Code::ShuttingDown) => 0..=0,
                Outcome::Dropped | Outcome::Failed(_) => 0..=1,
            };
            if !may.contains(&times) {
                let told = format!("the caller was told {outcome:?}");
                problems.push(format!("call {number:#x} was carried out {times} times; {told}"));
            }
        }
        problems
    }

    pub(super) fn count(&self) -> usize {
        self.outcomes.lock().len()
    }

    /// How often each outcome came.
    pub(super) fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for (_, outcome) in &*self.outcomes.lock() {
            *tally.entry(format!("{outcome:?}")).or_default() += 1;
        }
        tally
    }
}

fn check_answer(world: &World, request: &pb::NsRequest, reply: &pb::NsReply, bytes: &Buf) {
    let value = request.seq as u8;
    let whole = bytes.len() as u64 == request.ack_below && bytes.iter().all(|&byte| byte == value);
    if reply.session != request.seq || !whole {
        let (number, session, len) = (request.seq, reply.session, bytes.len());
        world
            .chronicle
            .problem(format!("call {number:#x} was answered with {session:#x}, {len} bytes"));
    }
}

/// Why a call may fail.
#[derive(Clone, Copy, Debug)]
struct Excuses {
    /// It was asked to.
    fails: bool,
    /// Else there may be trouble.
    calm: bool,
    /// It waits for nobody long: not for the service, nor for memory, but that of others' answers.
    prompt: bool,
}

/// Failures that a network or a restart, a short deadline or a full pool explain, and the one that was
/// asked for.
fn check_failure(world: &World, number: u64, excuses: Excuses, status: &Status) {
    let explained = match status.code {
        Code::Unreachable | Code::UnknownOutcome | Code::ShuttingDown => !excuses.calm,
        Code::Timeout => !(excuses.calm && excuses.prompt),
        Code::Busy => true,
        code => excuses.fails && code == Code::NotFound,
    };
    if !explained {
        world.chronicle.problem(format!("call {number:#x} failed: {status}"));
    }
}

/// Nothing, little, a page, and what rides a bulk connection: with and without company in the credit.
fn random_bytes(rng: &mut Rng) -> usize {
    let bytes = match rng.within(0..10) {
        0..3 => 0,
        3..5 => rng.within(1..200),
        5..7 => rng.within(1_000..9_000),
        7..9 => rng.within(65_000..140_000),
        _ => rng.within(200_000..400_000),
    };
    bytes as usize
}

fn outcome_number(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Answered => 0,
        Outcome::Dropped => 1,
        Outcome::Failed(code) => 2 + code as u64,
    }
}
