use super::*;
use crate::cluster::{limits, tests::Cluster};
use pb::{LocalState, PublicState};

const TIMES: LeaseTimes = LeaseTimes { lease_ms: 3_000, heartbeat_ms: 500 };

/// A book over a cluster: facts are applied as they come out.
struct Leader {
    cluster: Cluster,
    book: LeaseBook,
    now: Millis,
}

impl Leader {
    /// Three storage nodes with one disk each, and one chain over them that serves.
    fn new() -> Self {
        let cluster = Cluster::serving(3, 3, 1);
        let mut leader = Self { cluster, book: LeaseBook::new(TIMES, 0), now: 0 };
        leader.tick();
        leader
    }

    fn beat(&mut self, node: u32) -> Heard {
        self.beat_with(node, |_| {})
    }

    fn beat_with(&mut self, node: u32, change: impl Fn(&mut pb::HeartbeatRequest)) -> Heard {
        let routing = self.cluster.routing();
        let record = &routing.nodes[&NodeId(node)];
        let mut request = pb::HeartbeatRequest {
            node_id: node,
            incarnation: record.incarnation,
            targets: self.cluster.report_of(node),
            disks: record.disks.clone(),
            ..Default::default()
        };
        change(&mut request);
        self.book.heartbeat(self.now, &routing, request)
    }

    fn tick(&mut self) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.book.tick(self.now, &self.cluster.routing(), &mut facts);
        for fact in &facts {
            self.cluster.ok(fact.clone());
        }
        facts
    }

    fn join(&mut self, node: u32, incarnation: u64) -> JoinTurn {
        let routing = self.cluster.routing();
        let request = pb::JoinRequest { incarnation, ..Cluster::join_request(&routing, node) };
        let turn = self.book.join(self.now, &routing, &request);
        if turn == JoinTurn::Now {
            self.cluster.ok(Fact::Join(request));
        }
        turn
    }

    /// Time passes while these nodes beat each half second.
    fn pass(&mut self, millis: Millis, beating: &[u32]) {
        for _ in 0..millis / 100 {
            self.now += 100;
            if self.now.is_multiple_of(500) {
                for &node in beating {
                    self.beat(node);
                }
            }
            self.tick();
        }
    }

    fn alive(&self) -> Vec<u32> {
        self.cluster.routing().nodes.values().filter(|n| n.alive).map(|n| n.id).collect()
    }

    fn states(&self) -> Vec<PublicState> {
        self.cluster.states_by_target()
    }
}

#[test]
fn a_silent_node_dies_after_its_lease_and_revives_when_heard() {
    let mut leader = Leader::new();
    leader.pass(2_900, &[101, 102]);
    assert_eq!(leader.alive(), [101, 102, 103], "a new leader waits one lease");
    leader.pass(200, &[101, 102]);
    assert_eq!(leader.alive(), [101, 102]);
    leader.pass(500, &[101, 102, 103]);
    leader.pass(1_000, &[101, 102, 103]);
    assert_eq!(leader.alive(), [101, 102, 103]);
    assert_eq!(leader.states()[2], PublicState::Syncing);
}

/// It lost its id, not its disks: it is the node that served until now, and is no second one.
#[test]
fn a_restart_without_an_id_is_judged_like_any_other() {
    let mut leader = Leader::new();
    leader.pass(1_000, &[101, 102, 103]);
    let routing = leader.cluster.routing();
    let known = Cluster::join_request(&routing, 103);
    let request = pb::JoinRequest { node_id: 0, incarnation: 9, ..known };
    assert_eq!(leader.book.join(leader.now, &routing, &request), JoinTurn::AfterJudgement);
    leader.pass(600, &[101, 102]);
    assert_eq!(leader.alive(), [101, 102]);
    let routing = leader.cluster.routing();
    assert_eq!(leader.book.join(leader.now, &routing, &request), JoinTurn::Now);
    assert_eq!(leader.cluster.ok(Fact::Join(request)).node_id, 103);
}

#[test]
fn an_unchanged_report_is_not_logged() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    let version = leader.cluster.routing().version;
    leader.pass(20_000, &[101, 102, 103]);
    assert_eq!(leader.cluster.routing().version, version);
}

#[test]
fn nodes_that_fall_silent_together_are_judged_together() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    // All three lose power; one had spoken a little later than the others.
    leader.now += 300;
    leader.beat(103);
    leader.pass(4_000, &[]);
    assert_eq!(leader.states(), [PublicState::Lastsrv; 3]);
    leader.pass(1_000, &[102]);
    let states = leader.states();
    assert_eq!(states[1], PublicState::Serving, "the first that returns serves");
}

/// Else a member gets the chain for itself when it is dead already; if its disk is lost too, the others
/// are never let in again.
#[test]
fn a_chain_is_not_left_to_members_that_have_fenced_themselves() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    leader.pass(1_000, &[103]);
    leader.pass(2_500, &[]);
    assert_eq!(leader.alive(), [101, 102, 103], "103 fenced itself: it may have gone with them");
    leader.pass(600, &[]);
    assert_eq!(leader.states(), [PublicState::Lastsrv; 3], "one event");
    leader.pass(1_000, &[101]);
    assert_eq!(leader.states()[0], PublicState::Serving, "the first that returns serves");
}

#[test]
fn the_wait_for_a_fenced_member_ends_when_it_is_heard() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    leader.pass(1_000, &[103]);
    leader.pass(2_400, &[]);
    assert_eq!(leader.alive(), [101, 102, 103]);
    leader.pass(200, &[103]);
    assert_eq!(leader.alive(), [103]);
    assert_eq!(leader.states()[2], PublicState::Serving);
}

#[test]
fn a_chain_with_a_member_that_is_well_waits_for_no_fenced_one() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    leader.pass(1_000, &[102, 103]);
    leader.pass(2_100, &[102]);
    assert_eq!(leader.alive(), [102, 103]);
}

#[test]
fn a_restart_is_judged_when_the_others_were_heard_after_it() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    assert_eq!(leader.join(101, 77), JoinTurn::AfterJudgement);
    leader.tick();
    assert_eq!(leader.alive(), [101, 102, 103], "the others may have gone with it");
    assert_eq!(leader.beat(101), Heard::MustJoin, "the former incarnation is over");
    leader.pass(500, &[102, 103]);
    assert_eq!(leader.alive(), [102, 103]);
    assert_eq!(leader.join(101, 77), JoinTurn::Now);
    assert_eq!(leader.alive(), [101, 102, 103]);
    assert_eq!(leader.states()[0], PublicState::Offline);
    leader.pass(1_000, &[101, 102, 103]);
    assert_eq!(leader.states()[0], PublicState::Syncing);
}

#[test]
fn a_whole_cluster_that_restarts_serves_without_the_one_that_stays_away() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    assert_eq!(leader.join(101, 77), JoinTurn::AfterJudgement);
    assert_eq!(leader.join(102, 78), JoinTurn::AfterJudgement);
    leader.pass(3_000, &[]);
    assert_eq!(leader.states(), [PublicState::Lastsrv; 3], "one event");
    assert_eq!(leader.join(101, 77), JoinTurn::Now);
    assert_eq!(leader.join(102, 78), JoinTurn::Now);
    leader.pass(1_000, &[101, 102]);
    let states = leader.states();
    assert_eq!(states[..2], [PublicState::Serving, PublicState::Syncing]);
    assert_eq!(states[2], PublicState::Offline);
}

/// Seed 1931 of the simulator: power fails, and two nodes are back before the new leader's first tick.
#[test]
fn a_new_leader_judges_a_restart_with_those_it_has_not_heard_yet() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    leader.book = LeaseBook::new(TIMES, leader.now);
    assert_eq!(leader.join(101, 77), JoinTurn::AfterJudgement);
    assert_eq!(leader.join(102, 78), JoinTurn::AfterJudgement);
    leader.now += 100;
    leader.tick();
    assert_eq!(leader.alive(), [101, 102, 103], "103 was not heard since");
    assert_eq!(leader.join(103, 79), JoinTurn::AfterJudgement);
    leader.tick();
    assert_eq!(leader.states(), [PublicState::Lastsrv; 3], "one event");
}

#[test]
fn a_node_that_leaves_is_gone_within_a_heartbeat() {
    let mut leader = Leader::new();
    leader.pass(5_000, &[101, 102, 103]);
    leader.beat_with(101, |request| request.leaving = true);
    assert!(leader.book.is_leaving(&leader.cluster.routing(), NodeId(101)));
    leader.pass(600, &[102, 103]);
    assert_eq!(leader.alive(), [102, 103]);
    assert!(!leader.book.is_leaving(&leader.cluster.routing(), NodeId(101)));
}

#[test]
fn no_lease_is_given_while_a_death_is_being_logged() {
    let mut leader = Leader::new();
    leader.pass(2_500, &[101, 102]);
    leader.now = 3_100;
    let mut facts = Vec::new();
    let routing = leader.cluster.routing();
    leader.book.tick(leader.now, &routing, &mut facts);
    assert_eq!(facts.len(), 1);
    assert_eq!(leader.beat(103), Heard::Dying);
    leader.cluster.ok(facts.remove(0));
    leader.tick();
    assert_eq!(leader.beat(103), Heard::Renewed, "it learns in this answer that it is dead");
}

#[test]
fn rates_come_from_counters() {
    let mut leader = Leader::new();
    leader.now = 1_000;
    leader.beat_with(101, |request| request.read_bytes = 1_000);
    leader.now = 1_500;
    leader.beat_with(101, |request| request.read_bytes = 6_000);
    let vitals = leader.book.vitals(1_700, NodeId(101));
    assert_eq!(vitals.load.read_bytes_per_s, 10_000);
    assert_eq!(vitals.heartbeat_age_ms, 200);
}

/// So that chains can be placed by it; a heartbeat without one takes it back.
#[test]
fn a_leaf_is_what_the_last_heartbeat_said() {
    let mut leader = Leader::new();
    let leaf = |leader: &Leader| leader.book.vitals(leader.now, NodeId(101)).load.leaf;
    leader.beat_with(101, |request| request.leaf = "z0-leaf07".into());
    assert_eq!(leaf(&leader), "z0-leaf07");
    leader.beat(101);
    assert_eq!(leaf(&leader), "");
}

#[test]
fn a_failed_disk_takes_its_targets_out_of_service() {
    let mut leader = Leader::new();
    leader.pass(1_000, &[101, 102, 103]);
    leader.beat_with(103, |request| request.disks[0].failed = true);
    leader.tick();
    assert_eq!(leader.states()[2], PublicState::Offline);
    leader.tick();
    let version = leader.cluster.routing().version;
    leader.beat_with(103, |request| request.disks[0].failed = true);
    leader.tick();
    assert_eq!(leader.cluster.routing().version, version);
}

#[test]
fn a_finished_sync_is_news() {
    let mut leader = Leader::new();
    leader.pass(3_200, &[101, 102]);
    leader.pass(1_000, &[101, 102, 103]);
    assert_eq!(leader.states()[2], PublicState::Syncing);
    leader.beat_with(103, |request| request.targets[0].set_local_state(LocalState::UpToDate));
    leader.tick();
    assert_eq!(leader.states()[2], PublicState::Serving);
}

#[test]
fn a_second_machine_with_a_living_metads_id_waits() {
    let mut leader = Leader::new();
    let request = |address: &str, incarnation| pb::JoinRequest {
        node_id: 1,
        role: NodeRole::Metad.into(),
        address: address.into(),
        incarnation,
        ..Default::default()
    };
    let turn = |leader: &mut Leader, request: &pb::JoinRequest| {
        let routing = leader.cluster.routing();
        leader.book.join(leader.now, &routing, request)
    };
    leader.cluster.ok(Fact::Join(request("a:1", 7)));
    leader.pass(2_000, &[1, 101, 102, 103]);
    assert_eq!(turn(&mut leader, &request("b:1", 8)), JoinTurn::Taken);
    assert_eq!(turn(&mut leader, &request("a:1", 8)), JoinTurn::Now, "the same place: a restart");
    leader.pass(4_000, &[101, 102, 103]);
    assert_eq!(turn(&mut leader, &request("b:1", 8)), JoinTurn::Now, "it moved");
}

/// A leader of a cluster whose metads all know of members that give way.
fn leader_of_ways() -> Leader {
    let mut leader = Leader::new();
    leader.cluster.ok(Fact::RaiseLevel(pb::RaiseLevel { level: limits::WAYS_LEVEL }));
    leader
}

fn chain_of(leader: &Leader) -> pb::Chain {
    leader.cluster.routing().chains.values().next().unwrap().clone()
}

/// Who gives way if each of these says that it does not reach the others; by the place in the chain.
fn giving_way(said: &[(usize, &[usize])]) -> Vec<usize> {
    let mut leader = leader_of_ways();
    let members = chain_of(&leader).members;
    for (at, member) in members.iter().enumerate() {
        let said = said.iter().find(|(who, _)| *who == at).map_or(&[][..], |(_, others)| *others);
        let unreachable: Vec<u32> = said.iter().map(|other| members[*other].node).collect();
        leader.beat_with(member.node, |request| request.unreachable.clone_from(&unreachable));
    }
    leader.tick();
    let routing = leader.cluster.routing();
    let gives = |at: &usize| routing.targets[&TargetId(members[*at].target)].gives_way;
    (0..members.len()).filter(gives).collect()
}

#[test]
fn one_of_two_members_without_a_way_gives_way() {
    assert_eq!(giving_way(&[]), []);
    assert_eq!(giving_way(&[(0, &[1])]), [1]);
    assert_eq!(giving_way(&[(1, &[0])]), [1], "whoever says it: the one behind");
    assert_eq!(giving_way(&[(0, &[2])]), [2], "also if another is between");
    assert_eq!(giving_way(&[(0, &[1, 2])]), [0], "who reaches nobody rather than they");
    assert_eq!(giving_way(&[(1, &[0]), (2, &[0])]), [0]);
    assert_eq!(giving_way(&[(0, &[1]), (1, &[2]), (2, &[0])]), [1, 2], "one always stays");
}

#[test]
fn who_gives_way_leaves_when_the_others_were_heard_and_stays_out_until_it_is_reached() {
    let mut leader = leader_of_ways();
    let members = chain_of(&leader).members;
    let (speaker, other, third) = (members[0].node, members[1].node, members[2].node);
    let is_out = |leader: &Leader| chain_of(leader).serving().all(|member| member.node != other);
    let word = |leader: &mut Leader, node: u32, unreachable: &[u32], retired: u64| {
        let (version, chain) = (leader.cluster.routing().version.0, chain_of(leader));
        let serves = chain.serving().any(|member| member.node == node);
        leader.beat_with(node, |request| {
            request.unreachable = unreachable.to_vec();
            request.routing_version = version;
            let report = &mut request.targets[0];
            let state = if serves { LocalState::UpToDate } else { LocalState::Online };
            report.set_local_state(state);
            (report.chain_version, report.retired) = (chain.version, retired);
        });
    };
    let say = |leader: &mut Leader, unreachable: &[u32]| word(leader, speaker, unreachable, 0);
    let beat = |leader: &mut Leader, node: u32, retired: u64| word(leader, node, &[], retired);
    let mut moves = crate::cluster::moves::Moves::default();
    let mut step = |leader: &mut Leader| {
        leader.tick();
        if let Some(fact) = moves.tick(leader.now, &leader.cluster.routing(), &leader.book) {
            leader.cluster.ok(fact);
        }
    };
    say(&mut leader, &[other]);
    beat(&mut leader, third, 0);
    step(&mut leader);
    let retiring = leader.cluster.routing().targets[&TargetId(members[1].target)].retiring;
    assert!(retiring > 0 && !is_out(&leader), "it is to answer no reads first");
    beat(&mut leader, other, retiring);
    step(&mut leader);
    step(&mut leader);
    assert!(!is_out(&leader), "one of the others may be dead by now");
    say(&mut leader, &[other]);
    beat(&mut leader, third, 0);
    step(&mut leader);
    assert!(is_out(&leader));
    beat(&mut leader, other, 0);
    step(&mut leader);
    let state = |leader: &Leader| {
        let chain = chain_of(leader);
        let member = chain.members.iter().find(|member| member.node == other).unwrap();
        member.state()
    };
    assert_eq!(state(&leader), PublicState::Offline, "though it is there");
    // A new leader that has not heard who does not reach it leaves it out.
    leader.book = LeaseBook::new(TIMES, leader.now);
    beat(&mut leader, other, 0);
    beat(&mut leader, third, 0);
    step(&mut leader);
    assert_eq!(state(&leader), PublicState::Offline);
    say(&mut leader, &[]);
    step(&mut leader);
    beat(&mut leader, other, 0);
    step(&mut leader);
    assert_eq!(state(&leader), PublicState::Syncing);
}

#[test]
fn a_book_is_calm_while_all_are_heard_in_time_and_say_nothing_new() {
    let mut leader = Leader::new();
    let calm = |leader: &Leader| leader.book.is_calm(leader.now, &leader.cluster.routing());
    leader.pass(1_000, &[101, 102, 103]);
    assert!(calm(&leader));
    leader.beat_with(102, |request| request.targets[0].waiting_for = "a disk".into());
    assert!(!calm(&leader), "a report is new");
    leader.tick();
    leader.beat(102);
    leader.tick();
    assert!(calm(&leader));
    leader.beat_with(103, |request| request.unreachable = vec![101]);
    assert!(!calm(&leader), "a way is cut");
    leader.beat(103);
    leader.tick();
    assert!(calm(&leader));
    leader.now += Millis::from(TIMES.heartbeat_ms) + 249;
    assert!(calm(&leader));
    leader.now += 1;
    assert!(!calm(&leader), "somebody is late");
    assert_eq!(leader.tick(), [], "which is long before a lease ends");
    leader.now += 250;
    leader.pass(500, &[101, 102, 103]);
    assert!(calm(&leader));
    leader.join(102, 77);
    assert!(!calm(&leader), "one came anew");
}
