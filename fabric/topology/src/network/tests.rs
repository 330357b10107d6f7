#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{Topology, Tree, tree::Impossible};

/// Few switches of 8 ports.
pub(crate) fn small(zones: u32) -> Network {
    let tree =
        Tree { zones, leaves: 4, spines: 2, ports: 8, uplinks: 4, storage: 3, ..Tree::default() };
    tree.build().unwrap()
}

#[test]
fn the_tree_of_fire_flyer_2() {
    let network = Tree::default().build().unwrap();
    assert_eq!(network.switches.len(), 122);
    assert_eq!(network.host_ports(), BTreeMap::from([("z0", 800), ("z1", 800)]));
    // 600 compute and 180 storage nodes a zone; the 20 ports left join the zones.
    assert_eq!(network.hosts.len(), 2 * 600 + 180);
    assert_eq!(network.check(), []);
    let layers = network.layers();
    assert_eq!(layers.iter().filter(|layer| **layer == 4).count(), 2, "the inter-zone switches");
    let topology = Topology::new(&network.describe()).unwrap();
    assert_eq!((topology.leaves().count(), topology.nodes().count()), (78, 1_380));
}

#[test]
fn trees_of_any_size_are_sound() {
    for (k, planes, zones) in [(4, 1, 1), (8, 2, 2), (16, 4, 1), (64, 1, 1)] {
        let tree = Tree {
            zones,
            planes,
            leaves: k,
            spines: k / 2,
            ports: k,
            uplinks: k / 2,
            between: 2,
            storage: 2,
            ..Tree::default()
        };
        let network = tree.build().unwrap();
        assert_eq!(network.check(), [], "k {k}");
        assert!(network.host_ports().values().all(|ports| *ports == planes * k * k / 2));
    }
    let ragged = Tree {
        zones: 1,
        leaves: 3,
        spines: 2,
        ports: 8,
        uplinks: 2,
        storage: 0,
        ragged: vec![1, 5, 3],
        ..Tree::default()
    };
    assert_eq!(ragged.build().unwrap().hosts.len(), 9);
    assert_eq!(ragged.build().unwrap().check(), []);
}

#[test]
fn impossible_numbers_are_refused() {
    let tree = Tree { uplinks: 30, ..Tree::default() };
    assert_eq!(tree.build(), Err(Impossible::Uneven { uplinks: 30, spines: 20 }));
    let tree = Tree { leaves: 41, ..Tree::default() };
    assert_eq!(tree.build(), Err(Impossible::Ports { what: "spine", needed: 41, ports: 40 }));
    let tree = Tree { compute: Some(601), ..Tree::default() };
    assert_eq!(tree.build(), Err(Impossible::Hosts { needed: 781, ports: 780 }));
    let tree = Tree { spines: 0, ..Tree::default() };
    assert_eq!(tree.build(), Err(Impossible::Zero("spines")));
}

#[test]
fn a_missing_cable_is_named() {
    let mut network = small(1);
    let link = network.links.remove(0);
    let faults = network.check();
    let missing = Fault::Missing {
        leaf: link.a.node.clone(),
        spine: link.b.node,
        ports: vec![link.a.port],
        missing: 1,
    };
    assert_eq!(faults, [missing, Fault::Uplinks { leaf: link.a.node, uplinks: 3, expected: 4 }]);
    let at = network.links.iter().position(|link| link.a.node == "storage001").unwrap();
    network.links.remove(at);
    assert!(network.check().contains(&Fault::Unplugged(End::new("storage001", 1))));
}

#[test]
fn swapped_cables_are_named() {
    let mut network = small(1);
    // Leaf 0's cable to spine 0 and leaf 1's to spine 1 changed places at the spines.
    let (a, b) = (0, 6);
    let (first, second) = (network.links[a].b.clone(), network.links[b].b.clone());
    assert_ne!(first.node, second.node);
    (network.links[a].b, network.links[b].b) = (second, first);
    let faults = network.check();
    let swapped = faults.iter().filter(|fault| matches!(fault, Fault::Swapped { .. })).count();
    assert_eq!(swapped, 2, "{faults:?}");
    assert!(faults.iter().any(|fault| fault.to_string().contains("z0-leaf00[5]")), "{faults:?}");
}

#[test]
fn an_odd_speed_and_a_doubly_used_port_are_named() {
    let mut network = small(1);
    network.links[2].gbit_per_s = 100;
    let told = network.check()[0].to_string();
    assert_eq!(told, "z0-leaf00[7] - z0-spine01[1] runs at 100 Gbit/s, most such at 200");
    network.links[2] = network.links[3].clone();
    let twice = Fault::Port(network.links[3].a.clone(), "two cables in it");
    assert!(network.check().contains(&twice));
    network.links[2].a = End::new("nobody", 1);
    assert!(network.check().contains(&Fault::Unknown(End::new("nobody", 1))));
}

#[test]
fn json_gives_the_same_network_back() {
    let network = small(1);
    let text = serde_json::to_string(&network).unwrap();
    assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
}

#[test]
fn pictures_show_every_switch_and_host() {
    let network = small(1);
    let svg = svg::picture(&network, None);
    let switches_and_hosts = network.switches.len() + network.hosts.len();
    assert_eq!(svg.matches("<title>").count(), switches_and_hosts);
    let dot = svg::dot(&network);
    assert_eq!(dot.matches(" -- ").count(), network.links.len());
}
