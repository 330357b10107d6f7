//! Chains that change in all ways while writes are acknowledged, a backup of the past, and the loss of group 0: a
//! restored chain never serves from a store that lacks anything acknowledged.

use std::collections::BTreeMap;

use super::*;

const NODES: [u32; 5] = [101, 102, 103, 104, 105];

/// What a target has on its disk, and what its process does.
#[derive(Clone, Debug, Default)]
struct Store {
    node: u32,
    generation: u64,
    past: pb::TargetPast,
    /// Acknowledged writes that are here.
    holds: BTreeSet<u64>,
    /// The chain version that it goes by; 0: none.
    acts_under: u64,
}

struct World {
    cluster: Cluster,
    backup: Option<MemKv>,
    history: BTreeMap<u64, pb::Chain>,
    stores: BTreeMap<u64, Store>,
    /// Processes that run.
    running: BTreeSet<u32>,
    acked: u64,
    generations: u64,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::serving(5, 3, 1);
        let mut world = Self {
            cluster,
            backup: None,
            history: BTreeMap::new(),
            stores: BTreeMap::new(),
            running: NODES.into(),
            acked: 0,
            generations: 0,
        };
        // The generations that the record has.
        for target in world.cluster.routing().targets.values() {
            let store =
                Store { node: target.node, generation: target.generation, ..Store::default() };
            world.stores.insert(target.id, store);
        }
        world.remember();
        NODES.iter().for_each(|node| world.hear(*node));
        world
    }

    fn chain(&self) -> pb::Chain {
        self.cluster.routing().chains[&CHAIN].clone()
    }

    fn remember(&mut self) {
        let chain = self.chain();
        self.history.insert(chain.version, chain);
    }

    fn apply(&mut self, fact: Fact) {
        let _ = self.cluster.apply(fact);
        self.remember();
    }

    /// The node learns of the routing: makes and removes stores, and notes what it takes part in.
    fn hear(&mut self, node: u32) {
        if !self.running.contains(&node) {
            return;
        }
        let routing = self.cluster.routing();
        for target in routing.targets.values() {
            if target.chain == 0 && self.stores.get(&target.id).is_some_and(|s| s.node == node) {
                self.stores.remove(&target.id);
            }
        }
        for target in routing.targets.values().filter(|t| t.node == node && t.chain != 0) {
            self.make(target.id, node);
        }
        let chain = self.chain();
        for (id, store) in self.stores.iter_mut().filter(|(_, store)| store.node == node) {
            let member = chain.members.iter().find(|member| member.target == *id);
            let is_new = chain.version > store.past.took_part.max(store.past.as_of);
            store.acts_under = if store.acts_under == chain.version { chain.version } else { 0 };
            store.past.as_of = chain.version;
            let state = member.map(pb::ChainMember::state);
            if !is_new || !matches!(state, Some(Serving | Syncing)) {
                continue;
            }
            store.past.took_part = chain.version;
            if state == Some(Serving) {
                store.past.served = chain.version;
                store.past.served_with.clone_from(&chain.members);
            }
            store.acts_under = chain.version;
        }
    }

    fn make(&mut self, target: u64, node: u32) {
        if !self.stores.contains_key(&target) && !self.stores.values().any(|s| s.node == node) {
            self.generations += 1;
            let (generation, mut past) = (self.generations, pb::TargetPast::default());
            // As at each start: it goes by later versions only.
            past.as_of = self.chain().version;
            self.stores.insert(target, Store { node, generation, past, ..Store::default() });
        }
    }

    fn report(&mut self, node: u32, complete: bool) {
        let routing = self.cluster.routing();
        let is_alive = routing.nodes[&NodeId(node)].alive;
        if !self.running.contains(&node) || !is_alive {
            return;
        }
        // Of two stores of one chain the newest runs.
        let newest = self.stores.iter().rfind(|(_, store)| store.node == node);
        let targets = newest.map(|(id, store)| {
            let local = if complete { LocalState::UpToDate } else { LocalState::Online };
            pb::TargetReport {
                target: *id,
                local_state: local.into(),
                generation: store.generation,
                chain_version: store.acts_under,
                retired: routing.targets.get(&TargetId(*id)).map_or(0, |target| target.retiring),
                past: Some(store.past.clone()),
                chain: CHAIN.0,
                disk_uuid: routing.nodes[&NodeId(node)].disks[0].uuid.clone(),
                ..Default::default()
            }
        });
        let targets = targets.into_iter().collect();
        self.apply(Fact::TargetsReported(pb::TargetsReported {
            node_id: node,
            targets,
            disks: Vec::new(),
        }));
    }

    /// Everybody who is to hold a write of this version goes by it.
    fn is_whole(&self, chain: &pb::Chain) -> bool {
        let writable = |m: &&pb::ChainMember| matches!(m.state(), Serving | Syncing);
        let acts = |m: &pb::ChainMember| {
            self.stores.get(&m.target).is_some_and(|store| store.acts_under == chain.version)
        };
        let serves = chain.members.iter().any(|member| member.state() == Serving);
        serves && chain.members.iter().filter(writable).all(acts)
    }

    /// A write by whatever version somebody goes by.
    fn write(&mut self) {
        let versions: BTreeSet<u64> = self.stores.values().map(|store| store.acts_under).collect();
        for version in versions {
            let Some(chain) = self.history.get(&version).filter(|chain| self.is_whole(chain))
            else {
                continue;
            };
            self.acked += 1;
            for member in chain.members.clone() {
                if matches!(member.state(), Serving | Syncing) {
                    let store = self.stores.get_mut(&member.target).expect("it is whole");
                    store.holds.insert(self.acked);
                }
            }
        }
    }

    /// The member that syncs gets what it lacks, and says so.
    fn sync(&mut self) {
        let chain = self.chain();
        let syncing = chain.members.iter().find(|member| member.state() == Syncing);
        let Some(syncing) = syncing.filter(|_| self.is_whole(&chain)).copied() else { return };
        let source = chain.members[0].target;
        let holds = self.stores[&source].holds.clone();
        self.stores.get_mut(&syncing.target).expect("it is whole").holds.extend(holds);
        self.report(syncing.node, true);
    }

    fn stop(&mut self, node: u32) {
        self.running.remove(&node);
        for store in self.stores.values_mut().filter(|store| store.node == node) {
            store.acts_under = 0;
        }
        self.apply(Fact::NodesChanged(pb::NodesChanged { dead: vec![node], alive: Vec::new() }));
    }

    /// Starts a node; one that runs is judged dead first.
    fn start(&mut self, node: u32) {
        if self.running.contains(&node) {
            self.stop(node);
        }
        self.running.insert(node);
        for store in self.stores.values_mut().filter(|store| store.node == node) {
            store.past.as_of = self.cluster.routing().chains[&CHAIN].version;
        }
        self.apply(Fact::NodesChanged(pb::NodesChanged { dead: Vec::new(), alive: vec![node] }));
        self.hear(node);
        self.report(node, false);
    }

    fn step(&mut self, kind: u8, which: u8) {
        let node = NODES[usize::from(which) % NODES.len()];
        let place = pb::PlacedTarget {
            node,
            disk_uuid: self.cluster.routing().nodes[&NodeId(node)].disks[0].uuid.clone(),
        };
        let member = self.chain().members[usize::from(which) % self.chain().members.len()];
        match kind % 16 {
            0 => self.stop(node),
            1 | 2 => self.start(node),
            3..=6 => {
                NODES.iter().for_each(|node| self.hear(*node));
                self.write();
            }
            7 => self.hear(node),
            8 => self.write(),
            9 | 10 => self.sync(),
            // Taken for dead, but its process goes on.
            11 => self.apply(Fact::NodesChanged(pb::NodesChanged {
                dead: vec![node],
                alive: Vec::new(),
            })),
            12 => {
                // A new disk.
                self.stop(node);
                self.generations += 1;
                for store in self.stores.values_mut().filter(|store| store.node == node) {
                    let generation = self.generations;
                    *store = Store { node, generation, ..Store::default() };
                }
            }
            13 => self.apply(Fact::ReplaceTarget(pb::ReplaceTarget {
                target: member.target,
                node,
                disk_uuid: place.disk_uuid,
            })),
            14 => self.apply(Fact::MoveTarget(pb::MoveTarget {
                target: self.chain().members[0].target,
                node,
                disk_uuid: place.disk_uuid,
            })),
            _ => {
                NODES.iter().for_each(|node| self.hear(*node));
                NODES.iter().for_each(|node| self.report(*node, false));
                // Everybody was heard: that is what the leader waits for.
                let (target, chain_version) = (member.target, self.chain().version);
                self.apply(Fact::TakeOutTarget(pb::TakeOutTarget { target, chain_version }));
            }
        }
    }

    fn back_up(&mut self) {
        self.backup = Some(self.cluster.keys());
    }

    /// All metads are lost; so are the processes, and they come up again one after the other.
    fn restore(&mut self, order: u8) {
        self.cluster = Cluster::restored(self.backup.take().expect("a backup"), TIMES);
        self.remember();
        self.running.clear();
        self.stores.values_mut().for_each(|store| store.acts_under = 0);
        for place in 0..NODES.len() {
            self.start(NODES[(place + usize::from(order)) % NODES.len()]);
            self.check();
        }
        // What it takes part in now is as good as ever.
        NODES.iter().for_each(|node| self.report(*node, false));
        self.check();
    }

    fn check(&self) {
        for member in self.chain().members.iter().filter(|member| member.state() == Serving) {
            let holds = &self.stores[&member.target].holds;
            let lacks: Vec<u64> = (1..=self.acked).filter(|write| !holds.contains(write)).collect();
            assert_eq!(lacks, [], "target {} serves without these writes", member.target);
        }
    }
}

fn steps(most: usize) -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec(any::<(u8, u8)>(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_restored_chain_never_serves_without_what_was_acknowledged(
        before in steps(12),
        after in steps(60),
        order in any::<u8>(),
    ) {
        let mut world = World::new();
        before.into_iter().for_each(|(kind, which)| world.step(kind, which));
        world.back_up();
        after.into_iter().for_each(|(kind, which)| world.step(kind, which));
        // The model itself: what serves has everything.
        world.check();
        world.restore(order);
    }

    /// Where no disk was lost and nothing moved, all that comes up serves again.
    #[test]
    fn a_restored_chain_serves_when_all_its_stores_are_there(
        before in steps(12),
        after in steps(60),
        order in any::<u8>(),
    ) {
        let mut world = World::new();
        let step = |world: &mut World, (kind, which): (u8, u8)| world.step(kind % 12, which);
        before.into_iter().for_each(|both| step(&mut world, both));
        world.back_up();
        after.into_iter().for_each(|both| step(&mut world, both));
        // All are there, and nobody stops between two notes of one version.
        for node in NODES {
            if !world.running.contains(&node) {
                world.start(node);
            }
            let alive = vec![node];
            world.apply(Fact::NodesChanged(pb::NodesChanged { dead: Vec::new(), alive }));
            world.report(node, false);
        }
        for _ in 0..4 {
            NODES.iter().for_each(|node| world.hear(*node));
            world.sync();
        }
        world.restore(order);
        let chain = world.chain();
        let why = why_not_served(&world.cluster.routing(), &chain);
        prop_assert!(chain.members[0].state() == Serving, "{why:?} {chain:?}");
    }
}
