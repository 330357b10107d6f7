use ff2_proto::{Code, NodeId, TableId};
use pb::LocalState;
use proptest::prelude::*;

use super::*;
use crate::cluster::{LeaseTimes, tests::Cluster};

const TIMES: LeaseTimes = LeaseTimes { lease_ms: 3_000, heartbeat_ms: 500 };

/// A cluster with its leader, whose storage nodes do as they are told.
struct Led {
    cluster: Cluster,
    book: LeaseBook,
    moves: Moves,
    now: u64,
    /// Nodes of which nothing is heard.
    silent: BTreeSet<u32>,
}

impl Led {
    fn new(nodes: u32, replicas: u32, chains: u32) -> Self {
        let cluster = Cluster::serving(nodes, replicas, chains);
        let book = LeaseBook::new(TIMES, 0);
        Self { cluster, book, moves: Moves::default(), now: 0, silent: BTreeSet::new() }
    }

    fn routing(&self) -> std::sync::Arc<Routing> {
        self.cluster.routing()
    }

    /// What a node says that keeps to the record.
    fn reports(&self, node: u32) -> Vec<pb::TargetReport> {
        let routing = self.routing();
        let mut reports = self.cluster.report_of(node);
        for report in &mut reports {
            let target = &routing.targets[&TargetId(report.target)];
            report.retired = target.retiring;
            let state = target.public_state();
            if matches!(state, PublicState::Serving | PublicState::Syncing) {
                report.set_local_state(LocalState::UpToDate);
            }
        }
        reports
    }

    fn beat(&mut self, node: u32) {
        let routing = self.routing();
        let record = &routing.nodes[&NodeId(node)];
        let request = pb::HeartbeatRequest {
            node_id: node,
            incarnation: record.incarnation,
            targets: self.reports(node),
            disks: record.disks.clone(),
            routing_version: routing.version.0,
            ..Default::default()
        };
        self.book.heartbeat(self.now, &routing, request);
    }

    /// Half a second: everybody is heard, and the leader does what is due. Tells what it did of moves.
    fn turn(&mut self) -> Vec<Fact> {
        self.now += 500;
        let nodes = self.routing().nodes.keys().map(|id| id.0).collect::<BTreeSet<u32>>();
        nodes.difference(&self.silent.clone()).for_each(|node| self.beat(*node));
        let mut facts = Vec::new();
        self.book.tick(self.now, &self.routing(), &mut facts);
        facts.into_iter().for_each(|fact| drop(self.cluster.ok(fact)));
        let mut done = Vec::new();
        while let Some(fact) = self.moves.tick(self.now, &self.routing(), &self.book) {
            self.cluster.ok(fact.clone());
            done.push(fact);
            assert!(done.len() < 1_000, "the leader does not come to an end");
        }
        done
    }

    fn turns(&mut self, count: usize) -> Vec<Fact> {
        (0..count).flat_map(|_| self.turn()).collect()
    }

    fn set_draining(&mut self, node: u32, draining: bool) {
        self.cluster.ok(Fact::SetDraining(pb::SetDraining { node, draining }));
    }

    fn set_replicas(&mut self, replicas: u32) {
        self.cluster.ok(Fact::SetReplicas(pb::SetReplicas { table: 1, replicas }));
    }

    fn targets_on(&self, node: u32) -> usize {
        self.routing().targets.values().filter(|target| target.node == node).count()
    }

    fn serving(&self) -> Vec<usize> {
        self.routing().chains.values().map(|chain| chain.serving().count()).collect()
    }

    /// All chains have so many members, which serve, on different nodes.
    fn is_whole(&self, replicas: usize) -> bool {
        self.routing().chains.values().all(|chain| {
            let nodes: BTreeSet<u32> = chain.serving().map(|member| member.node).collect();
            chain.members.len() == replicas && nodes.len() == replicas
        })
    }
}

#[test]
fn a_drained_node_is_emptied_and_no_chain_ever_has_fewer_replicas() {
    let mut led = Led::new(5, 3, 10);
    let before = led.targets_on(101);
    assert!(before > 2);
    led.set_draining(101, true);
    let mut moved = 0;
    for _ in 0..200 {
        let facts = led.turn();
        moved += facts.iter().filter(|fact| matches!(fact, Fact::MoveTarget(_))).count();
        assert!(led.serving().iter().all(|&serving| serving >= 3), "{:?}", led.serving());
        let under_way = UnderWay::of(&led.routing());
        assert!(under_way.emptied.values().all(|&count| count <= limits::MOVES_PER_DISK));
        assert!(under_way.filled.values().all(|&count| count <= limits::MOVES_PER_DISK));
        if led.targets_on(101) == 0 {
            break;
        }
    }
    assert_eq!((led.targets_on(101), moved), (0, before));
    assert!(led.is_whole(3));
    assert_eq!(led.turns(10), [], "nothing is left to do");
    // Its end loses nothing any more.
    led.cluster.nodes_changed(&[101], &[]);
    led.cluster.ok(Fact::RemoveNode(pb::RemoveNode { node: 101 }));
    assert!(led.is_whole(3));
}

#[test]
fn a_member_is_not_taken_out_before_the_others_are_heard_without_it() {
    let mut led = Led::new(4, 3, 1);
    led.set_draining(led.routing().chains[&ChainId(1)].members[0].node, true);
    // Until the newcomer serves.
    for _ in 0..20 {
        led.turn();
        if led.serving() == [4] {
            break;
        }
    }
    assert_eq!(led.serving(), [4]);
    let routing = led.routing();
    let leaving = routing.targets.values().find(|target| target.retiring != 0).unwrap().clone();
    assert!(!leaving.retired);
    // It says that it answers no reads any more; of the others one has fallen silent.
    let other =
        routing.chains[&ChainId(1)].members.iter().find(|m| m.target != leaving.id).unwrap();
    led.silent.insert(other.node);
    led.turn();
    let routing = led.routing();
    assert!(routing.targets[&TargetId(leaving.id)].retired);
    assert_eq!(led.turns(3), [], "the silent one may be dead");
    assert_eq!(led.serving(), [4]);
    // It is dead: the one that was to leave is needed, and stays until there are enough again.
    led.turns(6);
    let routing = led.routing();
    let stays = &routing.targets[&TargetId(leaving.id)];
    assert_eq!((stays.retiring, stays.retired), (0, false));
    assert_eq!(stays.public_state(), PublicState::Serving);
    led.silent.clear();
    led.turns(20);
    assert_eq!(led.routing().targets[&TargetId(leaving.id)].chain, 0);
    assert!(led.is_whole(3));
}

#[test]
fn an_answer_of_an_earlier_retirement_does_not_count() {
    let mut led = Led::new(4, 3, 1);
    led.set_draining(led.routing().chains[&ChainId(1)].members[0].node, true);
    while led.serving() != [4] {
        led.turn();
    }
    let routing = led.routing();
    let leaving = routing.targets.values().find(|target| target.retiring != 0).unwrap().clone();
    let mut reports = led.cluster.report_of(leaving.node);
    reports.retain(|report| report.target == leaving.id);
    reports[0].retired = leaving.retiring - 1;
    let fact = pb::TargetsReported { node_id: leaving.node, targets: reports, disks: Vec::new() };
    led.cluster.ok(Fact::TargetsReported(fact));
    assert!(!led.routing().targets[&TargetId(leaving.id)].retired);
    let version = led.routing().chains[&ChainId(1)].version;
    let fact = pb::TakeOutTarget { target: leaving.id, chain_version: version };
    assert_eq!(led.cluster.refused(Fact::TakeOutTarget(fact)), Code::InvalidArgument);
}

#[test]
fn a_drain_that_is_taken_back_gives_up_what_does_not_serve_yet() {
    let mut led = Led::new(5, 3, 10);
    led.set_draining(101, true);
    led.turn();
    assert!(!UnderWay::of(&led.routing()).replaced.is_empty());
    led.set_draining(101, false);
    assert!(UnderWay::of(&led.routing()).replaced.is_empty());
    assert!(led.is_whole(3));
    assert_eq!(led.turns(5), []);
}

#[test]
fn a_place_that_is_gone_is_given_up_for_another() {
    let mut led = Led::new(5, 3, 1);
    let node = led.routing().chains[&ChainId(1)].members[0].node;
    led.set_draining(node, true);
    led.turn();
    let newcomer = |led: &Led| {
        let routing = led.routing();
        routing.targets.values().find(|target| target.replaces != 0).cloned()
    };
    let first = newcomer(&led).unwrap();
    led.silent.insert(first.node);
    let patience = limits::NEWCOMER_PATIENCE_MS as usize / 500 + 20;
    let facts = led.turns(patience);
    let abandoned = Fact::AbandonTarget(pb::AbandonTarget { target: first.id });
    assert!(facts.contains(&abandoned), "{facts:?}");
    led.turns(20);
    assert_eq!(led.targets_on(node), 0, "the other node has it");
    assert_eq!(led.targets_on(first.node), 0);
    assert!(led.is_whole(3));

    // One that is to be emptied itself is no place either, at once.
    let mut led = Led::new(5, 3, 1);
    led.set_draining(node, true);
    led.turn();
    let first = newcomer(&led).unwrap();
    led.set_draining(first.node, true);
    led.turns(20);
    assert_eq!((led.targets_on(node), led.targets_on(first.node)), (0, 0));
    assert!(led.is_whole(3));
}

#[test]
fn a_source_that_dies_is_replaced_by_what_was_begun() {
    let mut led = Led::new(5, 3, 1);
    let node = led.routing().chains[&ChainId(1)].members[0].node;
    led.set_draining(node, true);
    led.turn();
    led.silent.insert(node);
    let facts = led.turns(40);
    assert!(facts.iter().any(|fact| matches!(fact, Fact::TakeOutTarget(_))), "{facts:?}");
    assert_eq!(led.targets_on(node), 0);
    assert!(led.is_whole(3));
}

#[test]
fn a_chain_that_is_revived_in_the_middle_of_a_move_begins_anew() {
    let mut led = Led::new(5, 3, 1);
    let nodes: Vec<u32> =
        led.routing().chains[&ChainId(1)].members.iter().map(|member| member.node).collect();
    led.set_draining(nodes[0], true);
    led.turn();
    let from = led.routing().chains[&ChainId(1)].members[0].target;
    // The one to serve from leaves first; the last is gone for good.
    for node in &nodes {
        led.cluster.nodes_changed(&[*node], &[]);
    }
    led.silent.insert(nodes[2]);
    led.now += 10_000;
    led.turns(3);
    assert_eq!(led.serving(), [0]);
    let revive = pb::ReviveChain { chain: 1, target: from, generation: 0, force: true };
    led.cluster.ok(Fact::ReviveChain(revive));
    assert!(UnderWay::of(&led.routing()).replaced.is_empty());
    led.turns(60);
    led.silent.clear();
    led.turns(60);
    assert!(led.is_whole(3), "{:?}", led.routing().chains);
    assert_eq!(led.targets_on(nodes[0]), 0, "its node drains still");
}

#[test]
fn a_node_that_is_removed_in_the_middle_of_a_move_ends_it() {
    for (removes_source, left) in [(true, 0), (false, 1)] {
        let mut led = Led::new(5, 3, 1);
        let source = led.routing().chains[&ChainId(1)].members[0].node;
        led.set_draining(source, true);
        led.turn();
        let routing = led.routing();
        let newcomer = routing.targets.values().find(|target| target.replaces != 0).unwrap();
        let node = if removes_source { source } else { newcomer.node };
        led.silent.insert(node);
        led.cluster.nodes_changed(&[node], &[]);
        led.cluster.ok(Fact::RemoveNode(pb::RemoveNode { node }));
        assert_eq!(led.targets_on(source), left);
        assert!(UnderWay::of(&led.routing()).replaced.is_empty());
        led.turns(30);
        assert!(led.is_whole(3), "{:?}", led.routing().chains);
        assert_eq!(led.targets_on(source), 0);
    }
}

#[test]
fn a_new_leader_goes_on_with_what_is_recorded() {
    let mut led = Led::new(5, 3, 10);
    led.set_draining(101, true);
    for _ in 0..200 {
        led.turn();
        (led.book, led.moves) = (LeaseBook::new(TIMES, led.now), Moves::default());
        if led.targets_on(101) == 0 {
            break;
        }
    }
    led.turns(5);
    assert_eq!(led.targets_on(101), 0);
    assert!(led.is_whole(3));
}

#[test]
fn tables_get_more_replicas_and_fewer() {
    let mut led = Led::new(5, 2, 10);
    led.set_replicas(3);
    for _ in 0..100 {
        led.turn();
        assert!(led.serving().iter().all(|&serving| serving >= 2));
    }
    assert!(led.is_whole(3));
    let loads = (101..106).map(|node| led.targets_on(node));
    assert!(loads.clone().max().unwrap() - loads.min().unwrap() <= 1, "the disks are even");
    led.set_replicas(2);
    for _ in 0..100 {
        led.turn();
        assert!(led.serving().iter().all(|&serving| serving >= 2));
    }
    assert!(led.is_whole(2));
    let loads = (101..106).map(|node| led.targets_on(node));
    assert!(loads.clone().max().unwrap() - loads.min().unwrap() <= 1, "the disks are even");
    assert_eq!(led.turns(5), []);
    // Taken back in the middle.
    led.set_replicas(4);
    led.turn();
    led.set_replicas(1);
    led.turns(100);
    assert!(led.is_whole(1));
}

#[test]
fn a_replica_that_is_away_is_the_one_to_go() {
    let mut led = Led::new(4, 3, 4);
    led.silent.insert(102);
    led.turns(10);
    led.set_replicas(2);
    led.turns(20);
    for (chain, serving) in led.routing().chains.values().zip(led.serving()) {
        assert_eq!(serving, 2, "{chain:?}");
    }
}

#[test]
fn none_goes_before_as_many_serve_as_are_asked_for() {
    let mut led = Led::new(6, 3, 1);
    let nodes: Vec<u32> =
        led.routing().chains[&ChainId(1)].members.iter().map(|member| member.node).collect();
    led.cluster.nodes_changed(&nodes[1..], &[]);
    led.silent.extend(&nodes[1..]);
    led.set_replicas(2);
    led.turns(10);
    assert_eq!(led.routing().chains[&ChainId(1)].members.len(), 3, "only one serves");
    led.silent.clear();
    led.turns(20);
    assert!(led.is_whole(2));
}

#[test]
fn what_has_no_place_is_told() {
    let mut led = Led::new(3, 3, 4);
    led.set_draining(101, true);
    assert_eq!(led.turns(5), []);
    let routing = led.routing();
    let found = stuck(&routing, &Space::new(&routing, []));
    assert_eq!(found.len(), led.targets_on(101));
    assert!(found[0].why.contains("add a storage node"), "{found:?}");

    let led = {
        let mut led = Led::new(4, 3, 4);
        led.set_draining(101, true);
        led
    };
    let routing = led.routing();
    let full = routing
        .nodes
        .values()
        .flat_map(|node| node.disks.clone())
        .map(|disk| pb::Disk { used_bytes: disk.capacity_bytes * 84 / 100, ..disk });
    let full: Vec<pb::Disk> = full.collect();
    let found = stuck(&routing, &Space::new(&routing, &full));
    assert!(found[0].why.contains("85 % full"), "{found:?}");
    assert_eq!(stuck(&routing, &Space::new(&routing, [])), []);
}

#[test]
fn a_drain_that_a_dead_server_holds_up_is_told_and_goes_on_without_it() {
    // Of four servers one is dead, so what it held has no spare.
    let mut led = Led::new(4, 3, 4);
    led.silent.insert(103);
    led.turns(20);
    led.set_draining(101, true);
    led.turns(60);
    let routing = led.routing();
    let nodes = |chain: &pb::Chain| chain.members.iter().map(|m| m.node).collect::<Vec<_>>();
    let has_both = |chain: &&pb::Chain| nodes(chain).contains(&101) && nodes(chain).contains(&103);
    let held: Vec<u32> = routing.chains.values().filter(has_both).map(|chain| chain.id).collect();
    assert!(!held.is_empty());
    let found = stuck(&routing, &Space::new(&routing, []));
    let told = found.iter().filter(|stuck| stuck.why.contains("`ff2ctl node remove 103 --shrink`"));
    let mut told: Vec<u32> = told.map(|stuck| stuck.chain).collect();
    told.sort_unstable();
    assert_eq!(told, held);

    led.cluster.ok(Fact::RemoveNode(pb::RemoveNode { node: 103 }));
    led.turns(60);
    let routing = led.routing();
    for chain in held.iter().map(|id| &routing.chains[&ChainId(*id)]) {
        assert!(!nodes(chain).contains(&101), "{chain:?}");
        assert_eq!(chain.serving().count(), 2, "{chain:?}");
    }
}

#[test]
fn the_emptier_disk_is_chosen_and_none_is_filled_too_far() {
    let mut led = Led::new(6, 3, 1);
    let routing = led.routing();
    let chain = &routing.chains[&ChainId(1)];
    let taken: BTreeSet<u32> = chain.members.iter().map(|member| member.node).collect();
    let free: Vec<u32> = (101..107).filter(|node| !taken.contains(node)).collect();
    let with = |fills: [u64; 3]| -> Vec<pb::Disk> {
        let disks = routing.nodes.values().flat_map(|node| {
            let fill = free.iter().position(|id| *id == node.id).map_or(10, |index| fills[index]);
            node.disks
                .iter()
                .cloned()
                .map(move |disk| pb::Disk { used_bytes: disk.capacity_bytes * fill / 100, ..disk })
        });
        disks.collect()
    };
    let choose = |fills| {
        let disks = with(fills);
        let space = Space::new(&routing, &disks);
        let wanted = Wanted { chain, instead_of: None };
        Places::new(&routing, &space)
            .destination(&wanted, |_| true)
            .map(|disk| disk.unwrap().node.0)
    };
    assert_eq!(choose([50, 20, 30]), Ok(free[1]));
    assert_eq!(choose([80, 70, 80]), Ok(free[1]), "ten percent come with it");
    assert_eq!(choose([80, 76, 80]), Err(NoPlace::Full));
    // The same step of fill: fewer targets count.
    let (node, disk_uuid) = (free[0], routing.nodes[&NodeId(free[0])].disks[0].uuid.clone());
    let place = pb::PlacedChain { targets: vec![pb::PlacedTarget { node, disk_uuid }] };
    let table = pb::CreateTable { replicas: 1, chains: vec![place], ..Default::default() };
    led.cluster.ok(Fact::CreateTable(table));
    let routing = led.routing();
    let chain = &routing.chains[&ChainId(1)];
    let wanted = Wanted { chain, instead_of: None };
    let space = Space::new(&routing, []);
    let places = Places::new(&routing, &space);
    let disk = places.destination(&wanted, |_| true).unwrap();
    assert_eq!(disk.unwrap().node.0, free[1]);
}

#[test]
fn wrong_moves_are_refused() {
    let mut led = Led::new(5, 3, 2);
    let routing = led.routing();
    let chain = &routing.chains[&ChainId(1)];
    let on = |node: u32| routing.nodes[&NodeId(node)].disks[0].uuid.clone();
    let to = |target: u64, node: u32| {
        Fact::MoveTarget(pb::MoveTarget { target, node, disk_uuid: on(node) })
    };
    let (first, second) = (chain.members[0], chain.members[1]);
    let free: Vec<u32> =
        (101..106).filter(|node| chain.members.iter().all(|m| m.node != *node)).collect();
    assert_eq!(led.cluster.refused(to(77, free[0])), Code::NotFound);
    assert_eq!(led.cluster.refused(to(first.target, second.node)), Code::InvalidArgument);
    assert_eq!(led.cluster.refused(to(first.target, first.node)), Code::InvalidArgument);
    led.cluster.ok(to(first.target, free[0]));
    assert_eq!(
        led.cluster.refused(to(second.target, free[1])),
        Code::InvalidArgument,
        "one a chain"
    );
    let retire = Fact::RetireTarget(pb::RetireTarget { target: second.target, stay: false });
    assert_eq!(led.cluster.refused(retire), Code::InvalidArgument);
    let abandon = |target| Fact::AbandonTarget(pb::AbandonTarget { target });
    assert_eq!(led.cluster.refused(abandon(second.target)), Code::InvalidArgument);
    let newcomer = led.routing().targets.values().find(|t| t.replaces != 0).unwrap().id;
    led.cluster.ok(abandon(newcomer));
    led.set_draining(free[1], true);
    assert_eq!(led.cluster.refused(to(first.target, free[1])), Code::InvalidArgument);
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..8_u8, any::<u8>()), 1..60)
}

proptest! {
    /// Drains, counts of replicas, deaths and new leaders in any order: once they end, all is as asked for.
    #[test]
    fn whatever_happens_it_ends_as_asked_for(steps in steps()) {
        let mut led = Led::new(6, 3, 6);
        for (what, number) in steps {
            let node = 101 + u32::from(number) % 6;
            match what {
                0 => led.set_draining(node, true),
                1 => led.set_draining(node, false),
                2 => led.set_replicas(1 + u32::from(number) % 4),
                3 => drop(led.silent.insert(node)),
                4 => led.silent.clear(),
                5 => (led.book, led.moves) = (LeaseBook::new(TIMES, led.now), Moves::default()),
                6 => drop(led.cluster.ok(Fact::SetRebalancing(pb::SetRebalancing { on: number % 2 == 0 }))),
                _ => drop(led.turns(usize::from(number) % 12)),
            }
        }
        led.silent.clear();
        led.set_replicas(3);
        (101..107).for_each(|node| led.set_draining(node, node == 106));
        led.turns(400);
        prop_assert!(led.is_whole(3), "{:#?}", led.routing().chains);
        prop_assert_eq!(led.targets_on(106), 0);
        prop_assert_eq!(led.routing().tables[&TableId(1)].replicas, 3);
        prop_assert_eq!(led.turns(3), []);
    }
}
