//! What bandwidth an allreduce of a job can have at most, by where its nodes lie.

use std::collections::BTreeMap;

use ff2_sched_core::Placement;
use ff2_topology::{LeafId, NodeId, Topology};

/// Of an allreduce over two zones, of what one within a zone has: 89 to 97 % were measured on Fire-Flyer 2
/// (arXiv 2408.14158, figure 7b).
const ACROSS_PERCENT: f64 = 90.0;

/// GB/s of data reduced, for a double binary tree over the nodes in the order of ranks. Each node sends twice what it
/// reduces, so half of its port's rate is the ceiling (section IV of the paper). A leaf has as many ways up as nodes;
/// the edges of the trees that leave it share them. Other traffic is not counted. None for a job of one node.
pub fn allreduce_gb_per_s(topology: &Topology, placement: &Placement) -> Option<f64> {
    let nodes: Vec<NodeId> = placement.nodes().collect();
    if nodes.len() < 2 {
        return None;
    }
    let port = |node: NodeId| topology.node(node).ports[0];
    let slowest = nodes.iter().map(|node| port(*node).1).min().unwrap_or(0);
    let mut leaving: BTreeMap<LeafId, u32> = BTreeMap::new();
    let mut is_across = false;
    // The second tree is the first one with ranks shifted by one, as NCCL has it.
    for shift in [0, 1] {
        for (child, parent) in edges(nodes.len()) {
            let at = |rank: usize| port(nodes[(rank + shift) % nodes.len()]).0;
            let (from, to) = (at(child), at(parent));
            if from != to {
                *leaving.entry(from).or_default() += 1;
                *leaving.entry(to).or_default() += 1;
            }
            is_across |= topology.zone_of(from) != topology.zone_of(to);
        }
    }
    // Each tree carries half of the data: two edges of half a unit fill one way.
    let share = leaving.iter().map(|(leaf, edges)| {
        let ways = topology.at_leaf(*leaf).len() as f64;
        (ways / (f64::from(*edges) / 2.0)).min(1.0)
    });
    let share = share.fold(1.0, f64::min);
    let ceiling = f64::from(slowest) / 8.0 / 2.0;
    Some(ceiling * share * if is_across { ACROSS_PERCENT / 100.0 } else { 1.0 })
}

/// Child and parent of each edge of a binary tree in which neighbours by rank are near: the parent of a rank is
/// found by its lowest set bit.
fn edges(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..nodes).map(move |rank| {
        let bit = rank & rank.wrapping_neg();
        let parent = (rank ^ bit) | (bit << 1);
        (rank, if parent < nodes { parent } else { rank ^ bit })
    })
}

#[cfg(test)]
mod tests {
    use ff2_sched_core::Slot;
    use ff2_topology::FatTree;

    use super::*;

    fn of(nodes: impl Iterator<Item = u32>) -> Option<f64> {
        let topology = Topology::new(&FatTree::default().describe().unwrap()).unwrap();
        let slots = nodes.map(|node| Slot { node: NodeId(node), tasks: 8 }).collect();
        allreduce_gb_per_s(&topology, &Placement { slots })
    }

    #[test]
    fn half_a_port_is_the_ceiling_and_a_border_costs() {
        assert_eq!(of(0..1), None);
        assert_eq!(of(0..15), Some(12.5));
        assert_eq!(of(0..600), Some(12.5));
        assert_eq!(of(300..900), Some(11.25));
    }

    #[test]
    fn all_ranks_are_in_one_tree() {
        for nodes in 2..70 {
            for (child, _) in edges(nodes) {
                let parents: BTreeMap<_, _> = edges(nodes).collect();
                let mut at = child;
                let steps = (0..10)
                    .take_while(|_| {
                        parents.get(&at).is_some_and(|p| {
                            at = *p;
                            true
                        })
                    })
                    .count();
                assert!(at == 0 && steps < 10, "{child} of {nodes} ends at {at}");
            }
        }
    }
}
