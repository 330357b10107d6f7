//! HFReduce on the network of Fire-Flyer 2, beside what was published (arXiv 2408.14158, Fig. 7).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use ff2_flows::{
    Traffic,
    hfreduce::{HfReduce, Outcome, PUBLISHED, Stage},
    workload::{self, Dice, capacities},
};
use ff2_routing::{Graph, Policy, Tables};
use ff2_topology::{Network, Tree};

struct Cluster {
    network: Network,
    graph: Graph,
    tables: Tables,
}

impl Cluster {
    fn new() -> Self {
        let network = Tree::default().build().unwrap();
        let graph = Graph::new(&network).unwrap();
        let tables = Tables::build(&graph, Policy::DModK);
        Self { network, graph, tables }
    }

    fn traffic(&self) -> Traffic<'_> {
        Traffic { graph: &self.graph, tables: &self.tables, weights: [1.0; 3] }
    }

    /// So many nodes side by side; `across`: half of them in each zone.
    fn zones(&self, nodes: usize, across: bool) -> Vec<Vec<usize>> {
        let all = workload::endpoints(&self.graph, false);
        let zone = all.len() / 2;
        match across {
            false => vec![all[..nodes].to_vec()],
            true => vec![all[..nodes / 2].to_vec(), all[zone..zone + nodes / 2].to_vec()],
        }
    }

    fn run(&self, nodes: usize, nvlink: bool, across: bool) -> Outcome {
        let zones = self.zones(nodes, across);
        let reduce = HfReduce { zones: &zones, nvlink, gbytes: PUBLISHED };
        let capacity = capacities(&self.network, 1.0, &BTreeSet::new());
        reduce.run(&self.traffic(), &capacity, &[]).unwrap()
    }
}

#[test]
fn the_known_points_are_met_within_a_tenth() {
    let cluster = Cluster::new();
    let fitted = [(2, 8.10), (16, 7.78), (128, 6.31), (180, 6.99)];
    let predicted = [(4, 13.0), (8, 12.07), (16, 10.3), (32, 9.66), (64, 8.56), (128, 7.99)];
    let across = [(16, 9.27), (32, 8.63), (64, 8.06), (128, 7.75)];
    let all = fitted.iter().map(|point| (point, false, false));
    let all = all.chain(predicted.iter().map(|point| (point, true, false)));
    let all = all.chain(across.iter().map(|point| (point, true, true)));
    let mut worst: f64 = 0.0;
    for (&(nodes, measured), nvlink, across_zones) in all {
        let outcome = cluster.run(nodes, nvlink, across_zones);
        let off = outcome.gbyte_per_s / measured - 1.0;
        eprintln!(
            "{nodes} nodes, NVLink {nvlink}, across {across_zones}: {:.2} for {measured}, {:+.1} %, {:?}",
            outcome.gbyte_per_s,
            off * 100.0,
            outcome.binds
        );
        worst = worst.max(off.abs());
    }
    assert!(worst < 0.10, "{worst}");
}

#[test]
fn what_binds_is_told() {
    let cluster = Cluster::new();
    assert_eq!(cluster.run(64, false, false).binds, Stage::RootPort);
    let Stage::Network(Some(channel)) = cluster.run(64, true, false).binds else {
        panic!("the network binds")
    };
    assert!(channel < cluster.graph.channels());
}

#[test]
fn reads_of_storage_slow_it_down() {
    let cluster = Cluster::new();
    let zones = cluster.zones(64, false);
    let traffic = cluster.traffic();
    let reads = workload::storage_read(&traffic, &zones[0], 16, &mut Dice(1));
    let others = traffic.flows(&reads).unwrap();
    let capacity = capacities(&cluster.network, 1.0, &BTreeSet::new());
    let reduce = HfReduce { zones: &zones, nvlink: true, gbytes: PUBLISHED };
    let with = reduce.run(&traffic, &capacity, &others).unwrap().gbyte_per_s;
    let alone = reduce.run(&traffic, &capacity, &[]).unwrap().gbyte_per_s;
    assert!(with < 0.8 * alone, "{with} beside reads, {alone} alone");
}
