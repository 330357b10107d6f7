//! Nodes that fail, drain and come back, and where jobs lie.

use ff2_sched_core::{
    Cause, Decision, Event, JobSpec, NodeState, Policy, Priority, Refusal, Resources, Scope, Why,
};
use ff2_topology::{LeafId, NodeId};

use crate::rig::{HOUR, MINUTE, Rig, gpus, network, nodes, suspended};

#[test]
fn a_gang_keeps_its_nodes_and_gets_a_spare_for_the_one_that_failed() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 3, 4));
    rig.tell(Event::Spares { count: 3 });
    let gang = rig.submit(nodes(9));
    let before = rig.on(gang);
    rig.pass(MINUTE);
    let failed = before[4];
    rig.node(failed, NodeState::Down);
    let cause = Cause::NodeFailed { node: NodeId(failed) };
    assert_eq!(rig.decisions, [Decision::Kill { job: gang, attempt: 1, cause }]);
    rig.stopped(gang);
    // In the same step, and the spare is at the leaf of the node that failed.
    assert!(rig.runs(gang));
    let after = rig.on(gang);
    let new: Vec<_> = after.iter().filter(|node| !before.contains(node)).copied().collect();
    assert_eq!((after.len(), new.len(), new[0] / 4), (9, 1, failed / 4));
    // When it is back it is idle, and kept free instead.
    rig.node(failed, NodeState::Up);
    let small = rig.submit(gpus(1));
    assert!(rig.waits(small));
    assert_eq!(rig.machine.why(small), Why::TooFewFree { gpus: 1, free: 0 });
}

#[test]
fn without_a_spare_it_waits_in_front_of_its_band() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let early = rig.submit(gpus(8));
    let gang = rig.submit(gpus(8));
    let third = rig.submit(gpus(8));
    let node = rig.on(gang)[0];
    rig.node(node, NodeState::Down);
    rig.stopped(gang);
    assert!(rig.waits(gang) && rig.waits(third));
    rig.exit(early);
    assert!(rig.runs(gang) && rig.waits(third));
}

#[test]
fn a_node_that_drains_is_left_and_one_that_is_cordoned_only_takes_nothing_new() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 3));
    let (a, b) = (rig.submit(gpus(8)), rig.submit(gpus(8)));
    let (on_a, on_b) = (rig.on(a)[0], rig.on(b)[0]);
    rig.node(on_a, NodeState::Cordoned);
    assert!(rig.decisions.is_empty() && rig.runs(a));
    rig.node(on_b, NodeState::Draining);
    assert_eq!(suspended(&rig.decisions), [(b, Cause::Drained { node: NodeId(on_b) })]);
    rig.stopped(b);
    assert!(rig.runs(b) && ![on_a, on_b].contains(&rig.on(b)[0]));
    rig.exit(a);
    let next = rig.submit(gpus(1));
    assert!(rig.waits(next), "one node is cordoned, one drained, one full");
    rig.node(on_a, NodeState::Up);
    assert!(rig.runs(next));
}

#[test]
fn a_leaf_is_quarantined_as_a_whole() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 3));
    let gang = rig.submit(nodes(3));
    let leaf = rig.on(gang)[0] / 3;
    let scope = Scope::Leaf(LeafId(leaf));
    rig.tell(Event::Node { scope, state: NodeState::Quarantined });
    assert_eq!(suspended(&rig.decisions).len(), 1);
    rig.stopped(gang);
    assert!(rig.runs(gang) && rig.on(gang).iter().all(|node| node / 3 != leaf));
    assert_eq!(rig.machine.gpus(), (24, 0));
}

#[test]
fn a_claim_ends_with_its_node_and_the_job_waits_again() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let idle = rig.submit(JobSpec { priority: Priority::Idle, ..nodes(2) });
    let high = rig.submit(JobSpec { priority: Priority::High, ..nodes(2) });
    rig.node(1, NodeState::Down);
    assert!(rig.waits(high));
    rig.stopped(idle);
    rig.node(1, NodeState::Up);
    assert!(rig.runs(high) && rig.waits(idle));
}

#[test]
fn at_most_one_job_lies_in_two_zones() {
    let mut rig = Rig::new(Policy::ff2(), &network(2, 1, 4));
    let (first, second) = (rig.submit(nodes(3)), rig.submit(nodes(3)));
    assert_ne!(rig.on(first)[0] / 4, rig.on(second)[0] / 4);
    rig.exit(first);
    let across = rig.submit(nodes(5));
    let Some(Decision::Place { placement, zones, .. }) = rig.decisions.last() else {
        panic!("it is placed: {:?}", rig.decisions)
    };
    assert!(rig.machine.is_across_zones(placement) && zones.len() == 2);
    assert_eq!(rig.on(across).iter().filter(|node| **node < 4).count(), 4, "one zone as a whole");
    let pairs = rig.on(across).windows(2).filter(|pair| pair[0] / 4 != pair[1] / 4).count();
    assert_eq!(pairs, 1, "the border is passed once in the order of ranks");
}

#[test]
fn a_second_one_is_told_why_it_waits() {
    let mut rig = Rig::new(Policy::ff2(), &network(2, 1, 6));
    let halves = [rig.submit(nodes(4)), rig.submit(nodes(4))];
    let across = rig.submit(nodes(4));
    assert!(rig.runs(across));
    rig.exit(halves[0]);
    rig.exit(halves[1]);
    // Four are free in each zone.
    let second = rig.submit(nodes(6));
    assert_eq!(rig.machine.why(second), Why::AcrossZones { tasks: 6, fit: 4 });
    rig.exit(across);
    assert!(rig.runs(second));
}

#[test]
fn one_task_takes_the_fullest_node_that_has_room() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    let jobs = [rig.submit(gpus(4)), rig.submit(gpus(6)), rig.submit(gpus(2)), rig.submit(gpus(4))];
    let on: Vec<u32> = jobs.iter().map(|job| rig.on(*job)[0]).collect();
    // Six do not fit beside four; two fill the six up, four the four.
    assert_eq!((on[2], on[3]), (on[1], on[0]));
    assert_eq!(
        on[0] / 2,
        on[1] / 2,
        "the second node is of the same leaf: the other one stays whole"
    );
    let gang = rig.submit(nodes(2));
    assert!(rig.on(gang).iter().all(|node| node / 2 != on[0] / 2));
}

#[test]
fn memory_and_cores_count_as_gpus_do() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let greedy = Resources { gpus: 1, cpus: 60, memory: 0 };
    let first = rig.submit(JobSpec { task: greedy, ..gpus(1) });
    let second = rig.submit(JobSpec { task: greedy, ..gpus(1) });
    assert_ne!(rig.on(first), rig.on(second));
    let third = rig.submit(JobSpec { task: greedy, ..gpus(1) });
    assert_eq!(rig.machine.why(third), Why::Fragmented { gpus: 1, free: 14, tasks: 1, fit: 0 });
    let cores = rig.submit(JobSpec { task: Resources { gpus: 0, cpus: 4, memory: 0 }, ..gpus(0) });
    assert!(rig.runs(cores));
}

#[test]
fn inputs_in_a_cache_and_reads_decide_among_what_fits_alike() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 4, 4));
    let nodes_of = |list: &[u32]| list.iter().map(|node| NodeId(*node)).collect();
    rig.tell(Event::Cached { input: "corpus".into(), nodes: nodes_of(&[9, 12, 13, 14]) });
    let inputs = vec!["corpus".to_owned()];
    let gang = rig.submit(JobSpec { inputs: inputs.clone(), ..nodes(3) });
    assert_eq!(rig.on(gang), [12, 13, 14]);
    let one = rig.submit(JobSpec { inputs, ..gpus(8) });
    assert_eq!(rig.on(one), [9], "of all that are free as a whole");
    let part = rig.submit(gpus(2));
    let inputs = vec!["corpus".to_owned()];
    let beside = rig.submit(JobSpec { inputs, ..gpus(2) });
    assert_eq!(rig.on(part), rig.on(beside), "best fit comes before the cache");
    let reader = rig.submit(JobSpec { reads_much: true, ..nodes(3) });
    let leaves: Vec<u32> = rig.on(reader).iter().map(|node| node / 4).collect();
    assert_eq!(leaves, [0, 1, 2]);
    rig.pass(HOUR);
}

#[test]
fn a_job_lies_on_nodes_with_the_tags_that_it_needs() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    let needs = |tag: &str| JobSpec { needs: vec![tag.into()], ..nodes(1) };
    rig.tell(Event::Submit(Box::new(needs("h100"))));
    assert_eq!(rig.decisions, [Decision::Refused(Refusal::NoSuchTag("h100".into()))]);
    let tag = |rig: &mut Rig, node, tags: &[&str]| {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        rig.tell(Event::Tags { node: NodeId(node), tags });
    };
    tag(&mut rig, 3, &["h100", "nvlink"]);
    let first = rig.submit(needs("h100"));
    assert_eq!(rig.on(first), [3]);
    let second = rig.submit(needs("nvlink"));
    let why = rig.machine.why(second);
    assert_eq!(why, Why::Fragmented { gpus: 8, free: 24, tasks: 1, fit: 0 });
    rig.tell(Event::Submit(Box::new(JobSpec { tasks: 2, ..needs("h100") })));
    assert!(matches!(
        rig.decisions[..],
        [Decision::Refused(Refusal::GangTooLarge { most: 1, .. })]
    ));
    // Others do not make room for it where it may not lie, and it starts where a tag comes.
    let others = [rig.submit(nodes(1)), rig.submit(nodes(1)), rig.submit(nodes(1))];
    let urgent = rig.submit(JobSpec { priority: Priority::High, min_run_ms: 0, ..needs("nvlink") });
    rig.pass(HOUR);
    assert!(others.iter().all(|job| rig.runs(*job)) && !rig.runs(first));
    rig.stopped(first);
    assert_eq!(rig.on(urgent), [3]);
    rig.exit(others[0]);
    let node = rig.machine.tags_of(NodeId(0));
    assert!(node.is_empty());
    tag(&mut rig, 0, &["nvlink"]);
    tag(&mut rig, 1, &["nvlink"]);
    tag(&mut rig, 2, &["nvlink"]);
    assert!(rig.runs(second), "a node with its tag is free now");
    assert_eq!(rig.machine.tags(), ["h100", "nvlink"]);
}
