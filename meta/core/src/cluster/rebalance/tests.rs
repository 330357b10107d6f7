use proptest::prelude::*;

use super::*;
use crate::cluster::tests::Cluster;

fn even(plan: &pb::RebalanceReply) -> bool {
    let load = |disk: &pb::DiskShare| u64::from(disk.targets_after);
    let loads: Vec<u64> = plan.disks.iter().map(load).collect();
    loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1
}

#[test]
fn a_new_node_gets_its_share_and_no_more_is_moved_than_that() {
    let mut cluster = Cluster::serving(4, 3, 8);
    cluster.join(4);
    let routing = cluster.routing();
    let plan = plan(&routing, &Space::new(&routing, []));
    assert_eq!(plan.disks.iter().map(|disk| disk.targets).collect::<Vec<_>>(), [6, 6, 6, 6, 0]);
    assert!(even(&plan), "{plan:?}");
    assert_eq!(plan.moves.len(), 4, "four of twenty-four are the share of one in five");
    assert!(plan.moves.iter().all(|planned| planned.to_node == 105));
}

#[test]
fn an_even_cluster_is_left_alone() {
    let cluster = Cluster::serving(5, 3, 10);
    let routing = cluster.routing();
    let space = Space::new(&routing, []);
    assert_eq!(plan(&routing, &space).moves, []);
    assert_eq!(next(&routing, &space, |_, _| true), Next::Even);
}

#[test]
fn a_larger_disk_gets_more_and_a_full_one_nothing() {
    let mut cluster = Cluster::serving(4, 3, 8);
    cluster.join(4);
    let routing = cluster.routing();
    let sized = |large: u64, used_percent: u64| -> Vec<pb::Disk> {
        let disks = routing.nodes.values().flat_map(|node| {
            node.disks.iter().cloned().map(|disk| {
                let capacity_bytes = disk.capacity_bytes * if node.id == 105 { large } else { 1 };
                let used = if node.id == 105 { used_percent } else { 30 };
                pb::Disk { capacity_bytes, used_bytes: capacity_bytes * used / 100, ..disk }
            })
        });
        disks.collect()
    };
    let planned = plan(&routing, &Space::new(&routing, &sized(4, 0)));
    let new = planned.disks.iter().find(|disk| disk.node == 105).unwrap();
    assert!((8..=12).contains(&new.targets_after), "{planned:?}");
    let planned = plan(&routing, &Space::new(&routing, &sized(1, 81)));
    assert_eq!(planned.moves, [], "five percent come with each");
}

#[test]
fn where_each_node_has_a_member_nothing_moves() {
    // Three nodes with three replicas: two members of a chain may not meet on one of them.
    let cluster = Cluster::serving(3, 3, 4);
    let routing = cluster.routing();
    assert_eq!(plan(&routing, &Space::new(&routing, [])).moves, []);
}

proptest! {
    #[test]
    fn it_ends_even(nodes in 3_u32..8, more in 1_u32..4, replicas in 1_u32..4, chains in 1_u32..24) {
        let mut cluster = Cluster::serving(nodes, replicas, chains);
        (0..more).for_each(|number| cluster.join(nodes + number));
        let routing = cluster.routing();
        let plan = plan(&routing, &Space::new(&routing, []));
        prop_assert!(even(&plan), "{:?}", plan);
        prop_assert!(plan.moves.len() <= (replicas * chains) as usize);
    }
}
