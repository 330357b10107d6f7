//! The stand-in for the metads: one place that sees all nodes, judges their chains by the real
//! [`next_chain`], and tells every process what it decided, each after a delay of its own.
//!
//! The lease is cut short: a node that is fenced loses it at the moment at which the cluster begins
//! to think of it as gone. (How leases run out is the other simulation's subject.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use ff2_fabric::RoutingCache;
use ff2_meta_core::cluster::{NEWBORN_VERSION, Observation, next_chain};
use ff2_proto::{ChainId, NodeId, Routing, TargetId, pb};
use parking_lot::Mutex;
use pb::{LocalState, PublicState};
use tokio::time::{Duration, Instant, sleep};

use super::{CHAINS, NODES, Process, REPLICAS, chronicle::Chronicle, node::Node};
use crate::rng::Rng;

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Cluster {
    chronicle: Arc<Chronicle>,
    /// Names of this run begin with it.
    net: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    version: u64,
    chains: BTreeMap<ChainId, pb::Chain>,
    gone: BTreeSet<Process>,
    processes: BTreeMap<Process, Told>,
}

/// A process that is told of changes.
#[derive(Debug)]
struct Told {
    cache: Weak<RoutingCache>,
    /// It is told late of what changes before this.
    late_until: Instant,
    /// It is told nothing.
    cut_off: bool,
}

impl Cluster {
    pub(super) fn new(seed: u64, net: &str, chronicle: Arc<Chronicle>) -> Arc<Self> {
        let chains = (1..=CHAINS).map(|id| (ChainId(id), newborn(id))).collect();
        let state = State {
            rng: Rng::new(seed, "cluster"),
            version: 1,
            chains,
            gone: BTreeSet::new(),
            processes: BTreeMap::new(),
        };
        Arc::new(Self { chronicle, net: net.into(), state: Mutex::new(state) })
    }

    /// A process starts: it learns all there is, and what changes from now on.
    pub(super) fn join(&self, process: Process) -> Arc<RoutingCache> {
        let cache = RoutingCache::new();
        let mut state = self.state.lock();
        cache.apply(self.delta(&state, process));
        let late_until = Instant::now();
        let told = Told { cache: Arc::downgrade(&cache), late_until, cut_off: false };
        state.processes.insert(process, told);
        cache
    }

    /// What changes until then is heard of late.
    pub(super) fn delay_news(&self, process: Process, until: Instant) {
        if let Some(told) = self.state.lock().processes.get_mut(&process) {
            told.late_until = until;
        }
    }

    /// The process hears nothing of the cluster any more, or all that it missed.
    pub(super) fn cut_off(&self, process: Process, cut_off: bool) {
        let mut state = self.state.lock();
        let delta = self.delta(&state, process);
        let Some(told) = state.processes.get_mut(&process) else { return };
        told.cut_off = cut_off;
        if let Some(cache) = told.cache.upgrade().filter(|_| !cut_off) {
            cache.apply(delta);
        }
    }

    /// Every member of every chain serves.
    pub(super) fn everything_serves(&self) -> bool {
        let state = self.state.lock();
        let mut members = state.chains.values().flat_map(|chain| &chain.members);
        members.all(|member| member.state() == PublicState::Serving)
    }

    pub(super) fn explain(&self) -> Vec<String> {
        self.state.lock().chains.values().map(describe).collect()
    }

    /// Looks at the nodes again and again.
    pub(super) async fn run(self: Arc<Self>, nodes: Arc<Vec<Arc<Node>>>) {
        loop {
            sleep(LOOK).await;
            if self.judge(&nodes) {
                self.publish();
            }
        }
    }

    /// Decides each chain anew. Returns whether anything changed.
    fn judge(&self, nodes: &[Arc<Node>]) -> bool {
        let mut state = self.state.lock();
        let State { version, chains, gone, .. } = &mut *state;
        let seen: BTreeMap<Process, bool> =
            nodes.iter().map(|node| (node.id, node.is_gone())).collect();
        let gone_now: BTreeSet<Process> =
            seen.iter().filter(|(_, gone)| **gone).map(|(id, _)| *id).collect();
        let mut changed = gone_now != *gone;
        *gone = gone_now;
        for chain in chains.values_mut() {
            let observe = |member: &pb::ChainMember| {
                let node = nodes.iter().find(|node| node.id == member.node);
                let node = node.filter(|node| !gone.contains(&node.id));
                node.map_or(Observation::Gone, |node| {
                    observation(node.report(TargetId(member.target)), chain.version)
                })
            };
            let observations: Vec<Observation> = chain.members.iter().map(observe).collect();
            if chain.version == NEWBORN_VERSION && observations.contains(&Observation::Gone) {
                continue;
            }
            let next = next_chain(chain, &observations);
            if next == *chain {
                continue;
            }
            changed = true;
            *chain = pb::Chain { changed_at: *version + 1, ..next };
            self.chronicle.log(format!("chain {}", describe(chain)));
        }
        *version += u64::from(changed);
        changed
    }

    /// Tells everybody, each in its own time.
    fn publish(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let State { rng, processes, .. } = &mut *state;
        for (&process, told) in processes.iter().filter(|(_, told)| !told.cut_off) {
            let late = told.late_until > Instant::now();
            let delay = rng.within(if late { 500..4_000 } else { 1..25 });
            let cluster = self.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                cluster.tell(process);
            });
        }
    }

    fn tell(&self, process: Process) {
        let state = self.state.lock();
        let told = state.processes.get(&process).filter(|told| !told.cut_off);
        if let Some(cache) = told.and_then(|told| told.cache.upgrade()) {
            cache.apply(self.delta(&state, process));
        }
    }

    /// Everything, with the addresses that this process uses.
    fn delta(&self, state: &State, process: Process) -> pb::RoutingDelta {
        let node = |id: &Process| pb::Node {
            id: *id,
            role: pb::NodeRole::Storaged.into(),
            address: format!("mem:{}.{id}#{process}", self.net),
            alive: !state.gone.contains(id),
            ..Default::default()
        };
        pb::RoutingDelta {
            version: state.version,
            nodes: NODES.iter().map(node).collect(),
            chains: state.chains.values().cloned().collect(),
            ..Default::default()
        }
    }

    /// The address of a node as a process uses it.
    pub(super) fn address(routing: &Routing, node: Process) -> String {
        routing.address(NodeId(node)).expect("every node has an address").to_owned()
    }
}

/// Never served; its members are spread over the nodes.
fn newborn(id: u32) -> pb::Chain {
    let members = (0..REPLICAS).map(|place| {
        let node = NODES[(id as usize - 1 + place) % NODES.len()];
        pb::ChainMember {
            target: u64::from(id * 100 + node),
            state: PublicState::Lastsrv.into(),
            node,
        }
    });
    pb::Chain {
        id,
        version: NEWBORN_VERSION,
        members: members.collect(),
        changed_at: 1,
        ..Default::default()
    }
}

/// The targets that a node has, with their chains.
pub(super) fn targets_of(node: Process) -> Vec<(TargetId, ChainId)> {
    let chains = (1..=CHAINS).map(newborn);
    let members = chains.flat_map(|chain| {
        let id = ChainId(chain.id);
        chain.members.into_iter().map(move |member| (member, id))
    });
    let here = members.filter(|(member, _)| member.node == node);
    here.map(|(member, chain)| (TargetId(member.target), chain)).collect()
}

fn observation(report: Option<pb::TargetReport>, chain_version: u64) -> Observation {
    match report.map(|report| (report.local_state(), report.chain_version)) {
        None | Some((LocalState::LocalUnknown | LocalState::LocalOffline, _)) => Observation::Gone,
        Some((LocalState::UpToDate, version)) if version == chain_version => Observation::Complete,
        Some((LocalState::UpToDate | LocalState::Online, _)) => Observation::Online,
    }
}

fn describe(chain: &pb::Chain) -> String {
    let members: Vec<String> =
        chain.members.iter().map(|m| format!("{} {:?}", m.node, m.state())).collect();
    format!("{} version {}: {}", chain.id, chain.version, members.join(", "))
}
