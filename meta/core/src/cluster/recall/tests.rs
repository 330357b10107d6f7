use pb::cluster_command::Fact;
use proptest::prelude::*;

use super::*;
use crate::{
    cluster::{RestoreTimes, tests::Cluster},
    kv::MemKv,
};

mod model;

const TIMES: RestoreTimes = RestoreTimes { taken_at_s: 1_764_000_000, at_s: 1_764_000_100 };
const CHAIN: ChainId = ChainId(1);

fn member(target: u64, state: PublicState) -> pb::ChainMember {
    pb::ChainMember { target, state: state.into(), node: 100 + target as u32 }
}

/// A chain of targets 1, 2, 3 on nodes 101, 102, 103, restored from a backup, and two more nodes.
struct Restored(Cluster);

impl Restored {
    fn new() -> Self {
        let mut cluster = Cluster::serving(5, 3, 1);
        let members = cluster.routing().chains[&CHAIN].members.clone();
        assert_eq!(members.iter().map(|m| m.target).collect::<BTreeSet<_>>(), [1, 2, 3].into());
        // So that the backup's version is above some.
        cluster.nodes_changed(&[members[2].node], &[]);
        cluster.nodes_changed(&[], &[members[2].node]);
        let mut cluster = Cluster::restored(cluster.keys(), TIMES);
        cluster.nodes_changed(&[], &[101, 102, 103, 104, 105]);
        Self(cluster)
    }

    fn node_of(&self, target: u64) -> u32 {
        self.0.routing().targets.get(&TargetId(target)).map_or(105, |target| target.node)
    }

    /// What the store of a target says: the highest version that it took part in and served under, with whom.
    fn tell(&mut self, target: u64, took_part: u64, served: u64, with: &[(u64, PublicState)]) {
        let routing = self.0.routing();
        let node = self.node_of(target);
        let past = pb::TargetPast {
            as_of: routing.chains[&CHAIN].version,
            took_part,
            served,
            served_with: with.iter().map(|(target, state)| member(*target, *state)).collect(),
        };
        let report = pb::TargetReport {
            target,
            local_state: LocalState::Online.into(),
            generation: 5_000 + target,
            past: Some(past),
            chain: CHAIN.0,
            disk_uuid: routing.nodes[&NodeId(node)].disks[0].uuid.clone(),
            ..Default::default()
        };
        let targets = vec![report];
        let fact = pb::TargetsReported { node_id: node, targets, disks: Vec::new() };
        self.0.ok(Fact::TargetsReported(fact));
    }

    fn serving(&self) -> Vec<u64> {
        use ff2_proto::routing::ChainExt as _;
        let routing = self.0.routing();
        routing.chains[&CHAIN].serving().map(|member| member.target).collect()
    }

    fn why(&self) -> String {
        let routing = self.0.routing();
        why_not_served(&routing, &routing.chains[&CHAIN]).expect("it is not decided")
    }
}

use PublicState::{Offline, Serving, Syncing};

const ALL: [(u64, PublicState); 3] = [(1, Serving), (2, Serving), (3, Serving)];

#[test]
fn all_that_served_last_are_taken_for_complete_and_one_serves() {
    let mut chain = Restored::new();
    chain.tell(1, 9, 9, &ALL);
    chain.tell(2, 9, 9, &ALL);
    assert_eq!(chain.serving(), []);
    assert!(chain.why().contains("target 3: start ff2-storaged on node"), "{}", chain.why());
    chain.tell(3, 9, 9, &ALL);
    assert_eq!(chain.serving().len(), 1);
    let routing = chain.0.routing();
    assert_eq!(routing.chains[&CHAIN].restored, 0);
    assert!(routing.targets.values().all(|target| target.past.is_none()));
}

/// It served when the backup was made, and was left behind later.
#[test]
fn a_member_that_was_left_behind_does_not_serve() {
    let mut chain = Restored::new();
    chain.tell(1, 5, 5, &ALL);
    chain.tell(2, 5, 5, &ALL);
    assert_eq!(chain.serving(), [], "the third went on alone, as far as anybody knows");
    chain.tell(3, 8, 8, &[(3, Serving), (1, Offline), (2, Offline)]);
    assert_eq!(chain.serving(), [3]);
}

#[test]
fn whom_the_last_did_not_serve_with_need_not_be_there() {
    let mut chain = Restored::new();
    // The backup's chain is older than what these two say.
    let both = [(1, Serving), (2, Serving)];
    chain.tell(1, 900, 900, &both);
    chain.tell(2, 900, 900, &both);
    assert_eq!(chain.serving().len(), 1, "a third is not among them any more");
}

/// All members were replaced after the backup: their successors are found, or the chain waits and says so.
#[test]
fn a_chain_whose_members_were_all_replaced_does_not_come_up_empty() {
    let mut chain = Restored::new();
    for target in 1..=3 {
        chain.tell(target, 0, 0, &[]);
    }
    assert_eq!(chain.serving(), []);
    assert!(chain.why().contains("others took their places"), "{}", chain.why());
    // One that the backup does not know, on a node that holds no other.
    chain.tell(7, 40, 40, &[(7, Serving)]);
    assert_eq!(chain.serving(), [7]);
    assert!(chain.0.routing().chains[&CHAIN].members.iter().any(|member| member.target == 7));
}

#[test]
fn one_that_served_and_lost_its_store_leaves_the_rest_in_doubt() {
    let mut chain = Restored::new();
    chain.tell(1, 9, 9, &ALL);
    chain.tell(2, 9, 9, &ALL);
    // Somebody may have served after it, whom nobody here knows.
    chain.tell(3, 0, 0, &[]);
    assert_eq!(chain.serving(), []);
    assert!(chain.why().contains("has lost its store"), "{}", chain.why());
}

#[test]
fn one_that_took_part_later_tells_of_somebody_who_served_later() {
    let mut chain = Restored::new();
    let two = [(1, Serving), (2, Serving), (3, Syncing)];
    chain.tell(1, 9, 9, &two);
    chain.tell(2, 9, 9, &two);
    chain.tell(3, 12, 4, &ALL);
    assert_eq!(chain.serving(), []);
    assert!(chain.why().contains("under version 12"), "{}", chain.why());
}

#[test]
fn what_a_store_says_before_it_knows_of_the_restore_does_not_count() {
    let mut chain = Restored::new();
    let before = chain.0.keys().hash();
    let report = pb::TargetReport {
        target: 1,
        local_state: LocalState::UpToDate.into(),
        generation: 1_001,
        past: Some(pb::TargetPast { as_of: 7, took_part: 7, served: 7, ..Default::default() }),
        chain: CHAIN.0,
        ..Default::default()
    };
    let routing = chain.0.routing();
    assert_eq!(is_news(&routing, NodeId(chain.node_of(1)), &report), Some(false));
    let node_id = chain.node_of(1);
    let fact = pb::TargetsReported { node_id, targets: vec![report], disks: Vec::new() };
    chain.0.ok(Fact::TargetsReported(fact));
    assert_eq!(chain.0.keys().hash(), before);
}

#[test]
fn an_administrator_may_go_on_without_those_that_are_gone() {
    let mut chain = Restored::new();
    chain.tell(2, 9, 9, &ALL);
    let revive = |force| pb::ReviveChain { chain: CHAIN.0, target: 2, generation: 0, force };
    let reply = chain.0.apply(Fact::ReviveChain(revive(false)));
    assert!(reply.status.is_some(), "the others may return");
    chain.0.ok(Fact::ReviveChain(revive(true)));
    assert_eq!(chain.serving(), [2]);
    assert_eq!(chain.0.routing().chains[&CHAIN].restored, 0);
}
