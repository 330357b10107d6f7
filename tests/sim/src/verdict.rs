//! Whether a run ended as promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use ff2_meta_core::namespace;
use ff2_proto::{ChunkId, ROOT_INODE, TargetId, marks, pb};

use crate::{
    history::{Operation, linearizable},
    locking::{self, Held},
    metad::Metad,
    seen::Seen,
    snapshots::Snapshots,
    storaged::Storaged,
    world::{LOAD_END, METADS, World},
};

/// The end of a run.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub seed: u64,
    /// Empty: everything held.
    pub problems: Vec<String>,
    /// A run of the same seed has the same.
    pub hash: u64,
    pub simulated: Duration,
    pub events: u64,
    pub operations: usize,
    /// The faults, in order.
    pub log: Vec<String>,
    /// The rare paths that it took.
    pub marks: marks::Reached,
    /// Duties that were done.
    pub seen: BTreeSet<Seen>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed={} {} after {:.1} s simulated, {} events, {} operations, hash {:016x}",
            self.seed,
            if self.problems.is_empty() { "held" } else { "FAILED" },
            self.simulated.as_secs_f64(),
            self.events,
            self.operations,
            self.hash,
        )
    }
}

/// Nothing is left to do: everybody has their answers, every chain is complete, every log applied.
pub(crate) fn converged(world: &World) -> bool {
    world.chunk_clients.iter().all(|client| client.is_idle())
        && world.name_clients.iter().all(|client| client.is_idle())
        && world.lock_clients.iter().all(|client| client.is_idle())
        && world.members().all(Metad::has_replicas)
        && world.all_vote()
        && present(world).all(Storaged::is_quiet)
        && (!world.duties.scrubs || present(world).all(Storaged::reads_well))
        && world.everything_serves()
        && nothing_is_left(world)
        && same_index(world)
}

/// No disk keeps what the cluster gave up.
fn nothing_is_left(world: &World) -> bool {
    let Some(routing) = world.routing() else { return false };
    let is_in_use = |id: &TargetId| routing.targets.get(id).is_some_and(|target| target.chain != 0);
    present(world).flat_map(|storaged| storaged.disks.keys()).all(is_in_use)
}

fn present(world: &World) -> impl Iterator<Item = &Storaged> {
    world.storageds.iter().filter(|storaged| world.lost != Some(storaged.place))
}

fn same_index(world: &World) -> bool {
    let indexes: Vec<[u64; 2]> =
        world.members().map(|metad| metad.states().map(|(index, _)| index)).collect();
    indexes.windows(2).all(|pair| pair[0] == pair[1])
}

fn first(world: &World) -> &Metad {
    world.members().next().expect("a cluster has metads")
}

pub(crate) fn judge(
    seed: u64,
    world: &World,
    converged: Option<Duration>,
    hash: u64,
    panics: Vec<String>,
) -> Verdict {
    let panicked = !panics.is_empty();
    let mut problems = panics;
    if panicked {
        // The world is as it was in the middle of a step.
    } else if converged.is_none() {
        problems.push(format!("not converged at {:.0} s", world.now.as_secs_f64()));
        explain(world, &mut problems);
    } else {
        replicas_are_equal(world, &mut problems);
        metads_are_equal(world, &mut problems);
        names_are_there(world, &mut problems);
    }
    let mut operations = 0;
    for (chunk, history) in &chunk_histories(world) {
        operations += history.len();
        if !linearizable(history) {
            problems.push(format!("{chunk}: the reads have no order: {history:#?}"));
        }
    }
    let shared = shared_history(world);
    operations += shared.len();
    if !linearizable(&shared) {
        problems.push(format!("the shared file's times have no order: {shared:#?}"));
    }
    problems.extend(world.name_clients.iter().flat_map(|client| client.problems.clone()));
    removed_is_kept(world, &mut problems);
    let locks_passed_on = locks_exclude(world, &mut problems);
    if operations < 50 && !panicked {
        problems.push(format!("only {operations} operations were made: the run proves little"));
    }
    let (simulated, events, log) = (world.now, world.handled, world.log.clone());
    let mut seen = world.seen.clone();
    if world.lost.is_some() && problems.is_empty() {
        seen.insert(Seen::MadeWhole);
    }
    if locks_passed_on {
        seen.insert(Seen::LockPassedOn);
    }
    let marks = marks::take();
    Verdict { seed, problems, hash, simulated, events, operations, log, marks, seen }
}

/// What was done to each chunk. Reads count only if the clocks let them: a server whose clock has left
/// the bound may serve what is no longer so, and if it is a metad's, its leases are not worth anything.
fn chunk_histories(world: &World) -> BTreeMap<ChunkId, Vec<Operation>> {
    let mut chunks: BTreeMap<ChunkId, Vec<Operation>> = BTreeMap::new();
    let windows = Snapshots::windows(world.metads.iter().map(|metad| &metad.snapshots));
    for done in world.chunk_clients.iter().flat_map(|client| &client.history) {
        let doubtful = world.clocks.stray.is_some_and(|p| p == done.by || METADS.contains(&p));
        let mut operation = done.operation.clone();
        if done.chunk.snapshot != 0 {
            // What a clock beyond its bound lets begin may be in a snapshot or not.
            let window = windows.get(&done.chunk.snapshot).filter(|_| world.clocks.stray.is_none());
            let Some((window, _)) = window.zip(operation.returned) else { continue };
            (operation.called, operation.returned) = (window.ordered, window.cut);
        } else if doubtful && !counts(&operation) {
            continue;
        }
        chunks.entry(done.chunk.now()).or_default().push(operation);
    }
    chunks
}

fn shared_history(world: &World) -> Vec<Operation> {
    let all = world.name_clients.iter().flat_map(|client| &client.history);
    let doubtful = world.clocks.stray.is_some_and(|place| METADS.contains(&place));
    all.filter(|operation| !doubtful || counts(operation)).cloned().collect()
}

/// Changes always do, and so does what was read when no clock had been outside of the bound for long.
fn counts(operation: &Operation) -> bool {
    !operation.is_read() || operation.called >= LOAD_END
}

fn explain(world: &World, problems: &mut Vec<String>) {
    if let Some(routing) = world.routing() {
        for chain in routing.chains.values() {
            let states: Vec<_> =
                chain.members.iter().map(|m| (m.target, m.node, m.state())).collect();
            problems.push(format!("chain {} version {}: {states:?}", chain.id, chain.version));
        }
    }
    for metad in &world.metads {
        problems.push(format!("metad at {}: {:#?}", metad.place, metad.explain()));
    }
    for storaged in &world.storageds {
        problems.push(format!("storaged at {}: {:#?}", storaged.place, storaged.explain()));
    }
    for client in &world.name_clients {
        problems.push(format!("client at {} idle: {}", client.place, client.is_idle()));
    }
    for client in &world.lock_clients {
        problems.push(format!("client at {} idle: {}", client.place, client.is_idle()));
    }
    for client in &world.chunk_clients {
        problems.push(format!("client at {} idle: {}", client.place, client.is_idle()));
    }
}

/// All members of a chain hold the same updates with the same content.
fn replicas_are_equal(world: &World, problems: &mut Vec<String>) {
    let routing = world.routing().expect("a converged cluster has a routing");
    for chain in routing.chains.values() {
        let contents: Vec<_> = chain
            .members
            .iter()
            .filter_map(|member| {
                let target = TargetId(member.target);
                world.storageds.iter().find_map(|s| s.disks.get(&target)).map(|d| d.contents())
            })
            .collect();
        if contents.len() != chain.members.len()
            || contents.windows(2).any(|p| p[0] != p[1])
            || contents.iter().any(Result::is_err)
        {
            problems.push(format!("chain {}: the replicas differ: {contents:#?}", chain.id));
        }
    }
}

fn metads_are_equal(world: &World, problems: &mut Vec<String>) {
    for group in 0..2 {
        let hashes: Vec<u64> =
            world.members().map(|metad| metad.states()[group].1.hash()).collect();
        if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
            problems.push(format!("group {group}: the replicas differ: {hashes:x?}"));
        }
    }
    let [_, (_, names)] = first(world).states();
    problems.extend(namespace::fsck(names).into_iter().map(|problem| format!("fsck: {problem}")));
}

/// What was removed a moment ago was in the trash, while no metad's clock let it show what is no longer so.
fn removed_is_kept(world: &World, problems: &mut Vec<String>) {
    if world.clocks.stray.is_some_and(|place| METADS.contains(&place)) {
        return;
    }
    let missed = world.name_clients.iter().flat_map(|client| &client.missed);
    problems.extend(missed.map(|name| format!("{name:?} is not in the trash before its time")));
}

/// No two sessions held what excludes each other, and none was over before its time, while no metad's clock let it
/// end too early. Says whether somebody got what a session that ended had held.
fn locks_exclude(world: &World, problems: &mut Vec<String>) -> bool {
    if world.clocks.stray.is_some_and(|place| METADS.contains(&place)) {
        return false;
    }
    problems.extend(world.lock_clients.iter().flat_map(|client| client.problems.clone()));
    let all: Vec<&Held> = world.lock_clients.iter().flat_map(|client| &client.history).collect();
    if let Some((one, other)) = locking::conflict(&all) {
        problems.push(format!("two held what excludes each other: {one:?} and {other:?}"));
    }
    locking::is_passed_on(&all)
}

/// Each client's folder holds exactly what its answers said.
fn names_are_there(world: &World, problems: &mut Vec<String>) {
    let [_, (_, kv)] = first(world).states();
    let ask = |op| {
        let cred = Some(pb::Credentials::default());
        let request = pb::NsRequest { volume: 1, cred, op: Some(op), ..Default::default() };
        namespace::query(kv, &request)
    };
    for client in &world.name_clients {
        let name = client.folder_name();
        let op = pb::ns_request::Op::Lookup(pb::LookupOp {
            parent: ROOT_INODE.0,
            name,
            ..Default::default()
        });
        let reply = ask(op);
        let Some(folder) = reply.attr else {
            let status = reply.status;
            problems.push(format!("client {}: its folder is gone: {status:?}", client.place));
            continue;
        };
        let mut found = Vec::new();
        let mut after_cookie = 0;
        loop {
            let read = pb::ReadDirOp { inode: folder.inode, after_cookie, limit: 100, plus: false };
            let page = ask(pb::ns_request::Op::ReadDir(read));
            after_cookie = page.entries.last().map_or(after_cookie, |entry| entry.cookie);
            found.extend(page.entries.into_iter().map(|entry| entry.name));
            if page.end {
                break;
            }
        }
        found.sort();
        let expected: Vec<_> = client.names.iter().cloned().collect();
        if found != expected {
            problems.push(format!("client {}: {found:?} instead of {expected:?}", client.place));
        }
    }
}
