//! What tables of a fat tree must do, healthy and after failures.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use ff2_routing::{Graph, Policy, Tables, credit_loop, largest, loads, shift};
use ff2_topology::{Network, Role, Tree};

fn zone() -> Network {
    Tree { zones: 1, storage: 0, compute: None, ..Tree::default() }.build().unwrap()
}

/// Every endpoint to every other, by legal ways.
fn all_arrive(graph: &Graph, tables: &Tables) {
    let count = graph.endpoints().len();
    for from in (0..count).step_by(7) {
        for to in 0..count {
            tables.path(graph, from, to).unwrap();
        }
    }
    assert_eq!(credit_loop(graph, tables), None);
}

#[test]
fn shifts_never_share_a_link() {
    let graph = Graph::new(&zone()).unwrap();
    let tables = Tables::build(&graph, Policy::DModK);
    all_arrive(&graph, &tables);
    for by in [1, 20, 137, 400, 799] {
        assert_eq!(largest(&graph, &tables, &shift(800, by)).unwrap(), 1, "shift by {by}");
    }
}

/// What balanced tables cost a shift: a leaf's 20 flows go to the last hosts of one leaf and the first ones of the
/// next, which have other remainders. None meet where they all go to one leaf, or those to the other stay at home.
#[test]
fn balanced_tables_let_two_flows_of_a_shift_meet_where_it_cuts_other_leaves() {
    let network = Tree { zones: 1, storage: 180, ..Tree::default() }.build().unwrap();
    let graph = Graph::new(&network).unwrap();
    let tables = Tables::build(&graph, Policy::Balanced);
    for by in 1..800 {
        let most = largest(&graph, &tables, &shift(800, by)).unwrap();
        let cuts = by % 20 != 0 && (20..780).contains(&by);
        assert_eq!(most, if cuts { 2 } else { 1 }, "shift by {by}");
    }
}

#[test]
fn two_zones_meet_at_the_inter_zone_switches() {
    let network = Tree::default().build().unwrap();
    let graph = Graph::new(&network).unwrap();
    for policy in [Policy::DModK, Policy::Balanced] {
        let tables = Tables::build(&graph, policy);
        all_arrive(&graph, &tables);
        let count = graph.endpoints().len();
        let far = tables.path(&graph, 0, count - 1).unwrap();
        assert_eq!(far.len(), 8, "host, leaf, spine, border, between, border, spine, leaf, host");
    }
}

/// Storage always in the same two ports of each leaf has but two remainders: all that is sent to it takes two
/// spines.
#[test]
fn the_balanced_tables_have_no_residue_trap() {
    let mut network = zone();
    for host in network.hosts.iter_mut().filter(|host| {
        let number: u32 = host.name.trim_start_matches("z0-gpu").parse().unwrap();
        number % 20 < 2
    }) {
        host.role = Role::Storage;
    }
    let graph = Graph::new(&network).unwrap();
    let is_storage = |at: &usize| graph.endpoints()[*at].role == Role::Storage;
    let storage: Vec<usize> = (0..800).filter(is_storage).collect();
    assert_eq!(storage.len(), 80);
    // Ten compute nodes of each leaf write to storage at other leaves.
    let pairs: Vec<(usize, usize)> = (0..800)
        .filter(|at| at % 20 >= 10)
        .map(|from| (from, storage[(from * 7 + from / 20 * 2 + 2) % 80]))
        .collect();
    // A leaf's uplinks; the ports of storage itself are shared whatever the tables are.
    let uplinks = |policy| {
        let tables = Tables::build(&graph, policy);
        let loads = loads(&graph, &tables, &pairs).unwrap();
        (0..800).map(|link| loads[2 * link]).max().unwrap()
    };
    assert!(uplinks(Policy::DModK) >= 5, "{}", uplinks(Policy::DModK));
    assert!(uplinks(Policy::Balanced) <= 3, "{}", uplinks(Policy::Balanced));
}

#[test]
fn a_failure_changes_only_what_it_must() {
    let network = zone();
    let graph = Graph::new(&network).unwrap();
    let tables = Tables::build(&graph, Policy::DModK);
    // The cable from leaf 0 to spine 0: that leaf sends 39 of its destinations elsewhere, the other leaves send what
    // went to one host of it elsewhere, and the spine goes nowhere for leaf 0's hosts.
    let failed = BTreeSet::from([0]);
    let repaired = tables.repair(&graph, &failed);
    all_arrive(&graph, &repaired);
    let changes = tables.changes(&repaired);
    let at = |name: &str| network.switches.iter().position(|s| s.name == name).unwrap();
    let (leaf, spine) = (at("z0-leaf00"), at("z0-spine00"));
    assert_eq!(changes.iter().filter(|change| change.switch == leaf).count(), 39);
    let elsewhere = changes.iter().filter(|c| c.switch != leaf && c.switch != spine);
    assert_eq!(elsewhere.count(), 39);
    assert_eq!(changes.len(), 39 + 39 + 20);
    let count = graph.endpoints().len();
    let pairs: Vec<_> = (0..count).map(|from| (from, (from * 331 + 5) % count)).collect();
    assert_eq!(loads(&graph, &repaired, &pairs).unwrap()[..2], [0, 0]);
    // A dead spine takes all entries that led to it, and no others.
    let dead = graph.links_of(spine);
    let repaired = tables.repair(&graph, &dead);
    let changes = tables.changes(&repaired);
    assert_eq!(changes.iter().filter(|c| c.switch != spine).count(), 40 * 39);
    assert_eq!(tables.repair(&graph, &BTreeSet::new()), tables);
}

#[test]
fn a_credit_loop_is_found() {
    // Three switches in a ring, every packet clockwise.
    use ff2_topology::{End, Host, Link, Switch};
    let mut network = Network::default();
    for at in 0..3 {
        let (name, host) = (format!("s{at}"), format!("h{at}"));
        network.switches.push(Switch {
            name: name.clone(),
            zone: String::new(),
            plane: 0,
            ports: 3,
        });
        let role = Role::Compute { gpus: 0 };
        network.hosts.push(Host { name: host.clone(), role, nics: 1 });
        let plug = |a, b| Link { a, b, gbit_per_s: 200 };
        network.links.push(plug(End::new(host, 1), End::new(name.as_str(), 1)));
        network.links.push(plug(End::new(name, 2), End::new(format!("s{}", (at + 1) % 3), 3)));
    }
    let graph = Graph::new(&network).unwrap();
    let up_down = Tables::build(&graph, Policy::DModK);
    assert_eq!(credit_loop(&graph, &up_down), None);
    let mut dump = String::new();
    for at in 0..3 {
        dump += &format!("Unicast lids [1-3] of switch Lid 1 guid 0x1 ('s{at}'):\n");
        for to in 0..3 {
            let port = if at == to { 1 } else { 2 };
            dump +=
                &format!("0x000{} 00{port} # 01 01 : (x portguid 0x1: 'h{to} mlx5_0')\n", to + 1);
        }
    }
    let clockwise = ff2_routing::read_dump(&network, &graph, &dump).unwrap();
    assert_eq!(credit_loop(&graph, &clockwise).unwrap().len(), 3);
}
