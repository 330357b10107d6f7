use ff2_topology::FatTree;

use super::*;

/// Two zones of four leaves with four nodes each.
fn small() -> Tree {
    let network = FatTree {
        zones: 2,
        leaves: 4,
        ports: 4,
        compute: 16,
        gpus: 8,
        storage: 0,
        gbit_per_s: 200,
    };
    Tree::new(&Topology::new(&network.describe().unwrap()).unwrap())
}

fn want(tasks: u32) -> Want {
    Want { tasks, zone: None, spread: false, across: false }
}

fn nodes(placement: &Placement) -> Vec<u32> {
    placement.nodes().map(|node| node.0).collect()
}

#[test]
fn a_gang_takes_the_tightest_leaf_that_has_room() {
    let mut room = vec![1; 32];
    // Leaf 2 has three nodes left, leaf 5 has two.
    room[8] = 0;
    room[20] = 0;
    room[21] = 0;
    let tree = small();
    assert_eq!(nodes(&tree.lay(&room, want(2)).unwrap()), [22, 23]);
    assert_eq!(nodes(&tree.lay(&room, want(3)).unwrap()), [9, 10, 11]);
    assert_eq!(tree.leaves_of(&tree.lay(&room, want(4)).unwrap()), 1);
}

#[test]
fn what_no_leaf_holds_spans_as_few_as_it_can_in_the_order_of_ranks() {
    let tree = small();
    let placement = tree.lay(&[1; 32], want(10)).unwrap();
    assert_eq!(tree.leaves_of(&placement), 3);
    let placed = nodes(&placement);
    assert!(placed.is_sorted() && !tree.is_across(&placement), "{placed:?}");
}

#[test]
fn only_who_may_lies_in_two_zones_and_passes_the_border_once() {
    let tree = small();
    assert_eq!(tree.lay(&[1; 32], want(20)), None);
    let placement = tree.lay(&[1; 32], Want { across: true, ..want(20) }).unwrap();
    assert!(tree.is_across(&placement));
    let zones: Vec<_> =
        placement.nodes().map(|node| tree.zone_of(tree.leaf_of(node).unwrap())).collect();
    assert_eq!(zones.windows(2).filter(|pair| pair[0] != pair[1]).count(), 1);
    let pinned = Want { zone: Some(ZoneId(1)), ..want(16) };
    assert_eq!(nodes(&tree.lay(&[1; 32], pinned).unwrap()), (16..32).collect::<Vec<_>>());
    assert_eq!(tree.lay(&[1; 32], Want { across: true, ..Want { tasks: 17, ..pinned } }), None);
}

#[test]
fn who_reads_much_lies_on_many_leaves() {
    let tree = small();
    let placement = tree.lay(&[1; 32], Want { spread: true, ..want(4) }).unwrap();
    assert_eq!(tree.leaves_of(&placement), 4);
    assert_eq!(placement.tasks(), 4);
}

#[test]
fn tasks_share_nodes_and_fill_them() {
    let tree = small();
    let mut room = vec![4; 32];
    room[3] = 1;
    let placement = tree.lay(&room, want(9)).unwrap();
    let slots: Vec<_> = placement.slots.iter().map(|slot| (slot.node.0, slot.tasks)).collect();
    assert_eq!(slots, [(0, 4), (1, 4), (3, 1)]);
}
