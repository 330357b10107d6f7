use proptest::prelude::*;

use super::*;
use crate::{LeafSwitch, Port, Server};

fn leaf(name: &str, zone: &str, pod: &str) -> LeafSwitch {
    LeafSwitch { name: name.into(), zone: zone.into(), pod: pod.into() }
}

fn server(name: &str, leaves: &[&str]) -> Server {
    let port = |leaf: &&str| Port { leaf: (*leaf).into(), gbit_per_s: 200 };
    let role = Role::Compute { gpus: 8 };
    Server { name: name.into(), role, ports: leaves.iter().map(port).collect() }
}

fn small() -> Description {
    let leaves = vec![leaf("a", "z0", ""), leaf("b", "z0", ""), leaf("c", "z1", "")];
    let nodes = vec![server("n0", &["a"]), server("n1", &["b", "c"]), server("n2", &["c"])];
    Description { leaves, nodes }
}

#[test]
fn what_is_wrong_is_named() {
    let told = |change: &dyn Fn(&mut Description)| {
        let mut description = small();
        change(&mut description);
        Topology::new(&description).unwrap_err().to_string()
    };
    assert_eq!(
        told(&|d| d.nodes.push(server("n3", &["q"]))),
        "node \"n3\" has a port at leaf \"q\", which is not described"
    );
    assert_eq!(told(&|d| d.nodes.push(server("n3", &[]))), "node \"n3\" has no port");
    assert_eq!(told(&|d| d.nodes.push(server("n0", &["a"]))), "there are two nodes named \"n0\"");
    assert_eq!(told(&|d| d.leaves.push(leaf("a", "z0", ""))), "there are two leaves named \"a\"");
    assert_eq!(told(&|d| d.nodes[0].ports[0].gbit_per_s = 0), "node \"n0\" has a port of 0 Gbit/s");
    let two = |d: &mut Description| {
        d.leaves.extend([leaf("d", "z0", "p"), leaf("e", "z1", "p")]);
    };
    assert_eq!(told(&two), "pod \"p\" is in zone \"z0\" and in zone \"z1\"");
}

#[test]
fn the_nearest_ports_count() {
    let topology = Topology::new(&small()).unwrap();
    let near = |a, b| topology.proximity(NodeId(a), NodeId(b));
    assert_eq!([near(0, 0), near(1, 2)], [Proximity::Node, Proximity::Leaf]);
    assert_eq!([near(0, 1), near(0, 2)], [Proximity::Pod, Proximity::Cluster]);
    assert_eq!(topology.at_leaf(LeafId(2)).collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
}

#[test]
fn a_description_is_read_as_it_is_written() {
    let text = serde_json::to_string(&small()).unwrap();
    assert!(text.contains(r#"{"name":"n0","role":{"compute":{"gpus":8}},"ports":["#), "{text}");
    assert_eq!(serde_json::from_str::<Description>(&text).unwrap(), small());
    let unknown = text.replacen(r#""zone":"#, r#""zones":"#, 1);
    let refused = serde_json::from_str::<Description>(&unknown).unwrap_err().to_string();
    assert!(refused.contains("unknown field `zones`"), "{refused}");
}

proptest! {
    /// Of ragged networks: nearness is mutual, and no detour is nearer than its worst part.
    #[test]
    fn nearness_is_that_of_a_tree(
        places in prop::collection::vec((0..3_u8, 0..3_u8, 0..4_u8), 1..40),
    ) {
        let names = |(zone, pod, at): &(u8, u8, u8)| {
            (format!("z{zone}"), format!("z{zone}p{pod}"), format!("z{zone}p{pod}l{at}"))
        };
        let leaves: BTreeSet<_> = places.iter().map(names).collect();
        let leaves = leaves.iter().map(|(zone, pod, name)| leaf(name, zone, pod)).collect();
        let nodes = (0..).zip(&places);
        let nodes = nodes.map(|(n, place)| server(&format!("n{n}"), &[&names(place).2])).collect();
        let topology = Topology::new(&Description { leaves, nodes }).unwrap();
        let all: Vec<NodeId> = topology.nodes().map(|(id, _)| id).collect();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
            let near = topology.proximity(a, b);
            prop_assert_eq!(near, topology.proximity(b, a));
            prop_assert_eq!(near == Proximity::Node, a == b);
            let c = all[(a.0 as usize * 7 + b.0 as usize) % all.len()];
            prop_assert!(near <= topology.proximity(a, c).max(topology.proximity(c, b)));
        }
        prop_assert_eq!(topology.leaves().map(|(l, _)| topology.at_leaf(l).count()).sum::<usize>(), all.len());
    }
}
