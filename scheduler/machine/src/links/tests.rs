#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ff2_sched_core::Config;

use super::*;
use crate::command::{Command, Fact, Joined};

const GBIT: u64 = 1_000_000_000;

fn state(leaves: &[&str]) -> State {
    let mut state = State::new(Config::default());
    for (at, leaf) in leaves.iter().enumerate() {
        let joined = Joined {
            name: format!("gpu{at}"),
            zone: "a".into(),
            pod: String::new(),
            leaf: (*leaf).into(),
            gpus: 8,
            cpus: 0,
            memory: 0,
            host: format!("10.0.0.{at}"),
        };
        log(&mut state, Fact::Joined(joined));
    }
    state
}

fn log(state: &mut State, fact: Fact) {
    let command = Command { at_ms: 0, fact, note: String::new() };
    state.apply(1, &command, &mut Vec::new());
}

fn read(at_ms: u64, sent_bytes: u64, downs: u64) -> pb::AgentSyncRequest {
    let link = pb::LinkReading {
        name: "mlx5_0/1".into(),
        up: true,
        bits_per_s: 8 * GBIT,
        sent_bytes,
        downs,
        ..Default::default()
    };
    pb::AgentSyncRequest { links: vec![link], links_at_ms: at_ms, ..Default::default() }
}

fn only(links: &Links) -> Port {
    links.ports().next().unwrap().1.clone()
}

#[test]
fn a_port_is_hot_that_is_full_for_a_while() {
    let mut links = Links::default();
    let node = NodeId(0);
    links.hear(0, node, &read(50_000, 7, 0));
    assert_eq!(only(&links).use_permille(), 0, "one reading tells no rate");
    for second in 1..=20 {
        // 0.95 of a GB each second, over 8 Gb/s; told more often than rates are made.
        let at_ms = second * 1_000;
        links.hear(
            at_ms - 500,
            node,
            &read(50_000 + at_ms - 500, 7 + (second - 1) * 950_000_000, 0),
        );
        links.hear(at_ms, node, &read(50_000 + at_ms, 7 + second * 950_000_000, 0));
        let port = only(&links);
        assert_eq!(port.sent_per_s, 950_000_000);
        assert_eq!((port.use_permille(), port.is_hot(at_ms)), (950, second > 10), "{second}");
    }
    links.hear(22_000, node, &read(72_000, 7 + 20 * 950_000_000, 0));
    assert!(!only(&links).is_hot(22_000) && only(&links).sent_per_s == 0);
}

#[test]
fn counters_that_begin_anew_tell_no_rate() {
    let mut links = Links::default();
    links.hear(0, NodeId(0), &read(9_000_000, 1 << 40, 9));
    links.hear(2_000, NodeId(0), &read(1_000, 5_000, 0));
    assert_eq!((only(&links).sent_per_s, only(&links).faults(2_000)), (0, (0, 0)));
    links.hear(4_000, NodeId(0), &read(3_000, 7_000, 1));
    assert_eq!((only(&links).sent_per_s, only(&links).faults(4_000)), (1_000, (1, 0)));
}

#[test]
fn a_node_whose_port_flaps_gets_nothing_new_until_somebody_resumes_it() {
    let mut state = state(&["l1", "l1", "l1", "l2"]);
    let mut links = Links::default();
    let node = NodeId(1);
    for (at_ms, downs) in [(0, 40), (10_000, 41), (20_000, 42)] {
        links.hear(at_ms, node, &read(at_ms, 0, downs));
        assert_eq!(links.facts(at_ms, &state), [], "{downs}");
    }
    links.hear(30_000, node, &read(30_000, 0, 43));
    let told = links.facts(30_000, &state);
    let event = |state| Event::Node { scope: Scope::Node(node), state };
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].event, event(NodeState::Cordoned));
    assert!(told[0].note.contains("mlx5_0/1") && told[0].note.contains("3 times"), "{told:?}");
    log(&mut state, Fact::Event(told[0].event.clone()));
    assert_eq!(links.facts(31_000, &state), []);
    // What somebody resumed has begun anew, though it is shown as flapping for a while.
    log(&mut state, Fact::Event(event(NodeState::Up)));
    assert_eq!(links.facts(32_000, &state), []);
    assert!(only(&links).flaps(32_000));
    links.hear(40_000, node, &read(40_000, 0, 45));
    assert_eq!(links.facts(40_000, &state), [], "two more only");
    links.hear(50_000, node, &read(50_000, 0, 46));
    assert_eq!(links.facts(50_000, &state).len(), 1);
}

#[test]
fn downs_are_forgotten_after_a_while() {
    let state = state(&["l1", "l1"]);
    let mut links = Links::default();
    for downs in 0..20 {
        let at_ms = downs * limits::FLAP_WINDOW_MS / 2;
        links.hear(at_ms, NodeId(0), &read(at_ms, 0, downs));
        assert_eq!(links.facts(at_ms, &state), []);
    }
}

#[test]
fn when_half_of_a_leafs_nodes_flap_all_of_it_is_spared() {
    let state = state(&["l1", "l1", "l1", "l1", "l2", "l2", "l2"]);
    let mut links = Links::default();
    for (node, downs) in [(0, 3), (2, 4), (4, 3), (6, 2)] {
        links.hear(0, NodeId(node), &read(0, 0, 0));
        links.hear(5_000, NodeId(node), &read(5_000, 0, downs));
    }
    let told = links.facts(5_000, &state);
    let scopes: Vec<Scope> = told
        .iter()
        .map(|told| match told.event {
            Event::Node { scope, state: NodeState::Cordoned } => scope,
            _ => panic!("{told:?}"),
        })
        .collect();
    let (l1, _) = state.topology().leaves().next().unwrap();
    assert_eq!(scopes, [Scope::Leaf(l1), Scope::Node(NodeId(4))]);
    assert!(told[0].note.contains("2 of the 4 nodes at leaf l1"), "{told:?}");
}

#[test]
fn ports_that_are_not_told_of_any_more_are_forgotten_and_too_many_are_not_kept() {
    let mut links = Links::default();
    links.hear(0, NodeId(0), &read(0, 0, 0));
    let many = (0..100).map(|at| pb::LinkReading { name: format!("p{at}"), ..Default::default() });
    let request = pb::AgentSyncRequest { links: many.collect(), ..Default::default() };
    links.hear(1, NodeId(0), &request);
    assert_eq!(links.ports().count(), limits::LINKS_MAX);
    assert!(links.ports().all(|(_, port)| port.reading().name != "mlx5_0/1"));
}

/// They take no jobs, so nothing is cordoned.
#[test]
fn ports_of_nodes_without_jobs_are_watched_while_they_are_heard() {
    let mut links = Links::default();
    let node = |at: usize| pb::AgentNode {
        name: format!("storage{at}"),
        ports_only: true,
        ..Default::default()
    };
    for (second, downs) in [(0, 0), (1, 2), (2, 3)] {
        assert!(links.watch(second * 1_000, &node(0), &read(second * 1_000, 0, downs)));
    }
    let (of, port) = links.watched().next().unwrap();
    assert_eq!((of.name.as_str(), port.flaps(2_000)), ("storage0", true));
    assert_eq!((links.ports().count(), links.facts(2_000, &state(&["a", "a"]))), (0, Vec::new()));
    // What is silent makes room.
    for at in 1..limits::WATCHED_MAX {
        assert!(links.watch(3_000, &node(at), &read(0, 0, 0)));
    }
    let later = 2_000 + limits::FLAP_WINDOW_MS;
    let another = node(limits::WATCHED_MAX);
    assert!(!links.watch(later - 1, &another, &read(0, 0, 0)));
    assert!(links.watch(later, &another, &read(0, 0, 0)));
    assert!(links.watched().all(|(of, _)| of.name != "storage0"));
}
