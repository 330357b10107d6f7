//! How long rates take to compute, in full and by one change: `cargo run --release -p ff2-flows --example changes`.
//!
//! The same changes are made several times over, and the least time of each counts: what else the machine does at that
//! moment is left out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the command line")]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ff2_flows::{
    Class, Flow, Rates, Traffic, Transfer, model,
    workload::{self, Dice, capacities},
};
use ff2_routing::{Graph, Policy, Tables};
use ff2_topology::Tree;

const FLOWS: usize = 16_000;
/// Endpoints of a zone.
const ZONE: usize = 780;
const ROUNDS: usize = 500;
const REPEATS: usize = 5;

fn main() {
    let network = Tree::default().build().unwrap();
    let graph = Graph::new(&network).unwrap();
    let tables = Tables::build(&graph, Policy::DModK);
    let traffic = Traffic { graph: &graph, tables: &tables, weights: [1.0; 3] };
    let members: Vec<usize> = (0..graph.endpoints().len()).collect();
    let clients = workload::endpoints(&graph, false);
    let mut dice = Dice(1);
    let show = |name: &str, transfers: &[Transfer], efficiency: f64| {
        let flows = traffic.flows(transfers).unwrap();
        measure(name, &capacities(&network, efficiency, &BTreeSet::new()), &flows);
    };

    let mut inside = Vec::new();
    for zone in members.chunks(ZONE) {
        (0..11).for_each(|_| inside.extend(workload::permutation(zone, &mut dice)));
    }
    inside.truncate(FLOWS);
    show("inside the zones", &inside, 1.0);

    let other = |from: usize, to: usize| [Transfer { from, to, class: Class::Other }];
    let (one, two) = members.split_at(ZONE);
    let mut across = Vec::new();
    while across.len() < FLOWS {
        let (a, b) = (one[dice.roll(one.len())], two[dice.roll(two.len().min(ZONE))]);
        across.extend(if across.len() % 2 == 0 { other(a, b) } else { other(b, a) });
    }
    show("across the zones", &across, 1.0);

    let readers: Vec<usize> = (0..500).map(|at| clients[at * clients.len() / 500]).collect();
    let reads = workload::storage_read(&traffic, &readers, model::READ_WINDOW, &mut dice);
    show("500 clients read", &reads, model::READ_EFFICIENCY);

    let incast: Vec<Transfer> =
        clients[1..].iter().flat_map(|from| other(*from, clients[0])).collect();
    show("all send to one", &incast, 1.0);
}

fn measure(name: &str, capacity: &[f64], flows: &[Flow]) {
    let mut full = Duration::MAX;
    let mut each = vec![Duration::MAX; 3 * ROUNDS];
    let mut apart: f64 = 0.0;
    for _ in 0..REPEATS {
        let (capacity, all) = (capacity.to_vec(), flows.to_vec());
        let mut rates = None;
        full = full.min(timed(|| rates = Some(Rates::new(capacity, all))));
        let mut rates = rates.unwrap();
        let mut numbers: Vec<usize> = (0..flows.len()).collect();
        let mut dice = Dice(2);
        for three in each.chunks_mut(3) {
            let which = dice.roll(flows.len());
            three[0] = three[0].min(timed(|| rates.remove(numbers[which])));
            let flow = flows[which].clone();
            three[1] = three[1].min(timed(|| numbers[which] = rates.add(flow)));
            let (other, weight) = (numbers[dice.roll(flows.len())], [1.0, 2.0][dice.roll(2)]);
            three[2] = three[2].min(timed(|| rates.reweigh(other, weight)));
        }
        let changed: Vec<f64> = numbers.iter().map(|number| rates.rate(*number)).collect();
        rates.solve();
        for (number, rate) in numbers.iter().zip(changed) {
            apart = apart.max((rate - rates.rate(*number)).abs() / rate);
        }
    }
    each.sort_unstable();
    let at = |part: usize| each[(each.len() - 1) * part / 100];
    println!(
        "{name}: {} flows, full {full:.2?}; a change: median {:.2?}, p99 {:.2?}, most {:.2?}; {apart:.0e} apart",
        flows.len(),
        at(50),
        at(99),
        at(100)
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}
