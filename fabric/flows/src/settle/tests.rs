//! How much of 16,000 flows in two zones a change looks at, and that rates stay exact.

use std::collections::BTreeSet;

use ff2_routing::{Graph, Policy, Tables};
use ff2_topology::Tree;

use super::LOOKS_OF_FLOW;
use crate::{
    Class, Flow, Rates, Traffic, Transfer,
    workload::{self, Dice, capacities},
};

const FLOWS: usize = 16_000;
const ZONE: usize = 780;

/// Makes changes and returns how many flows each looked at; at the end all rates are as if computed anew.
fn looks(
    transfers: impl FnOnce(&[usize], &mut Dice) -> Vec<Transfer>,
    changes: usize,
) -> Vec<usize> {
    let network = Tree::default().build().expect("the default network");
    let graph = Graph::new(&network).expect("its graph");
    let tables = Tables::build(&graph, Policy::DModK);
    let traffic = Traffic { graph: &graph, tables: &tables, weights: [1.0; 3] };
    let members: Vec<usize> = (0..graph.endpoints().len()).collect();
    let mut dice = Dice(1);
    let transfers = transfers(&members, &mut dice);
    let mut flows: Vec<Flow> = traffic.flows(&transfers[..FLOWS]).expect("all are reachable");
    let capacity = capacities(&network, 1.0, &BTreeSet::new());
    let mut rates = Rates::new(capacity.clone(), flows.clone());
    let mut numbers: Vec<usize> = (0..FLOWS).collect();
    let mut each = Vec::new();
    for change in 0..changes {
        let which = dice.roll(FLOWS);
        if change % 2 == 0 {
            flows[which].weight = 3.0 - flows[which].weight;
            rates.reweigh(numbers[which], flows[which].weight);
        } else {
            rates.remove(numbers[which]);
            each.push(rates.settling.looks);
            numbers[which] = rates.add(flows[which].clone());
        }
        each.push(rates.settling.looks);
    }
    let anew = Rates::new(capacity, flows);
    for (at, number) in numbers.into_iter().enumerate() {
        let (rate, expected) = (rates.rate(number), anew.rate(at));
        assert!((rate - expected).abs() <= 1e-6 * expected, "flow {at}: {rate} for {expected}");
    }
    each
}

#[test]
fn inside_the_zones_no_change_is_solved_anew() {
    let permutations = |members: &[usize], dice: &mut Dice| {
        let mut all = Vec::new();
        for zone in members.chunks(ZONE) {
            (0..11).for_each(|_| all.extend(workload::permutation(zone, dice)));
        }
        all
    };
    let mut each = looks(permutations, 400);
    each.sort_unstable();
    assert!(each[each.len() - 1] < LOOKS_OF_FLOW * FLOWS, "most: {:?}", each.last());
    assert!(each[each.len() / 2] < FLOWS / 2, "median: {}", each[each.len() / 2]);
}

#[test]
fn across_the_zones_changes_soon_give_up_early() {
    let across = |members: &[usize], dice: &mut Dice| {
        let (one, two) = members.split_at(ZONE);
        let pair = |_| (one[dice.roll(one.len())], two[dice.roll(ZONE.min(two.len()))]);
        let pairs = (0..FLOWS)
            .map(pair)
            .enumerate()
            .map(|(at, (a, b))| if at % 2 == 0 { (a, b) } else { (b, a) });
        pairs.map(|(from, to)| Transfer { from, to, class: Class::Other }).collect()
    };
    let each = looks(across, 200);
    assert!(each[0] > FLOWS, "the first tries: {}", each[0]);
    let mut later = each[10..].to_vec();
    later.sort_unstable();
    // A whole bound of looks is four times the flows.
    assert!(later[later.len() / 2] < FLOWS, "median: {}", later[later.len() / 2]);
    let p99 = later[later.len() * 99 / 100];
    assert!(p99 < 2 * FLOWS, "p99: {p99}");
}
