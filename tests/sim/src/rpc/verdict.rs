//! Whether a run kept what the RPC layer and the chain client promise.

use ff2_fabric::{Owed, Peers};
use ff2_proto::marks;
use tokio::{
    runtime::Handle,
    time::{Duration, sleep},
};

use super::{Cast, World, cluster::targets_of, session::histories};
use crate::{history::linearizable, verdict::Verdict};

/// A server without anything in progress stops at once.
const STOP_MAX: Duration = Duration::from_secs(1);
/// Until every task that saw the end has gone.
const FAREWELL: Duration = Duration::from_secs(15);

pub(super) async fn judge(seed: u64, world: &World, cast: &Cast) -> Verdict {
    cast.sessions[0].read_all(world).await;
    let simulated = world.chronicle.now();
    for problem in world.ledger.updates_are_applied_once() {
        world.chronicle.problem(problem);
    }
    for problem in cast.callers.iter().flat_map(|caller| caller.outcomes_are_true(world)) {
        world.chronicle.problem(problem);
    }
    let operations = reads_have_an_order(world, cast);
    for caller in &cast.callers {
        world.chronicle.log(format!("calls ended as {:?}", caller.tally()));
    }
    let retries: u64 = cast.sessions.iter().map(|session| session.retries()).sum();
    world.chronicle.log(format!("{retries} retries of sessions"));
    members_are_equal(world, cast);
    everything_ends(world, cast).await;
    everything_comes_back(world, cast);
    let summary = world.chronicle.summary();
    let mut problems = summary.problems;
    let calls: usize = cast.callers.iter().map(|caller| caller.count()).sum();
    let (acknowledged, executed) = world.ledger.counts();
    if acknowledged < 20 || executed < 50 || calls < 50 {
        problems.push(format!(
            "only {acknowledged} writes and {executed} of {calls} calls: the run proves little"
        ));
    }
    Verdict {
        seed,
        problems,
        hash: summary.hash,
        simulated,
        events: summary.events,
        operations: operations + calls,
        log: summary.log,
        marks: marks::take(),
        seen: Default::default(),
    }
}

/// No call holds a slot, credit or a place for its answer.
pub(super) fn owes_nothing(peers: &Peers) -> bool {
    let owed = peers.owed();
    owed == Owed { connections: owed.connections, ..Owed::default() }
}

/// What is still going on, where nothing should be.
pub(super) fn explain(world: &World, cast: &Cast) {
    for line in world.cluster.explain() {
        world.chronicle.problem(format!("chain {line}"));
    }
    for node in &*cast.nodes {
        for line in node.explain() {
            world.chronicle.problem(format!("node {}: {line}", node.id));
        }
    }
    for peers in cast.clients().filter(|peers| !owes_nothing(peers)) {
        world.chronicle.problem(format!("a client is owed {:?}", peers.owed()));
    }
}

fn reads_have_an_order(world: &World, cast: &Cast) -> usize {
    let mut operations = 0;
    for ((chunk, cell), history) in histories(&cast.sessions) {
        operations += history.len();
        if !linearizable(&history) {
            let problem = format!("{chunk}, cell {cell}: the reads have no order: {history:#?}");
            world.chronicle.problem(problem);
        }
    }
    operations
}

/// All members of a chain hold the same updates with the same content.
fn members_are_equal(world: &World, cast: &Cast) {
    let mut first = std::collections::BTreeMap::new();
    for node in &*cast.nodes {
        for (target, chain) in targets_of(node.id) {
            let disk = node.disk(target).expect("a node has the disks of its targets");
            let contents = disk.lock().contents().expect("no block is damaged in this simulation");
            let expected = first.entry(chain).or_insert_with(|| contents.clone());
            if *expected != contents {
                let problem = format!("chain {chain}: {contents:?} instead of {expected:?}");
                world.chronicle.problem(problem);
            }
        }
    }
}

/// Servers stop at once when nothing is in progress, and leave no task behind.
async fn everything_ends(world: &World, cast: &Cast) {
    for node in &*cast.nodes {
        let took = node.stop(world).await;
        if took > STOP_MAX {
            let problem = format!("node {} took {took:?} to stop with nothing to do", node.id);
            world.chronicle.problem(problem);
        }
    }
    for peers in cast.clients() {
        peers.stop();
    }
    sleep(FAREWELL).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    if tasks > 0 {
        world.chronicle.problem(format!("{tasks} tasks are left when everything has ended"));
    }
    for peers in cast.clients() {
        let open = peers.counters().connections.load(std::sync::atomic::Ordering::SeqCst);
        if open > 0 {
            world.chronicle.problem(format!("{open} connections count as open after the end"));
        }
    }
}

/// Every buffer is back in its pool.
fn everything_comes_back(world: &World, cast: &Cast) {
    for node in &*cast.nodes {
        let lent = node.lent_bytes();
        if lent > 0 {
            world.chronicle.problem(format!("node {}: {lent} bytes are still lent", node.id));
        }
    }
    for pool in cast.pools().filter(|pool| pool.free_bytes() < pool.limit_bytes()) {
        world.chronicle.problem(format!("a client's buffers did not come back: {pool:?}"));
    }
}
