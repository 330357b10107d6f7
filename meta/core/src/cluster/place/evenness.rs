//! How even a placement came out, beside what would be ideal.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{NodeId, pb};

use super::{Leaves, PlaceableDisk};

/// Of the chains of one placement. When a node dies, each other one has as much to do as the two share chains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evenness {
    /// The most chains that two nodes share, and the fewest of two nodes that may share any.
    pub worst_pair: u32,
    pub least_pair: u32,
    /// Chains that each pair would share if all that may did equally often.
    pub ideal_pair: f64,
    /// Chains with two members at the same leaf switch.
    pub chains_at_one_leaf: u32,
}

/// Counts, from the chains themselves. Two nodes may share a chain if they are at different leaves, or nobody knows.
pub fn evenness(disks: &[PlaceableDisk], leaves: &Leaves, placed: &[pb::PlacedChain]) -> Evenness {
    let nodes: BTreeSet<NodeId> = disks.iter().map(|disk| disk.node).collect();
    let may = |a: NodeId, b: NodeId| leaves.get(&a).is_none_or(|leaf| leaves.get(&b) != Some(leaf));
    let ordered = || nodes.iter().flat_map(|&a| nodes.range(a..).skip(1).map(move |&b| (a, b)));
    let mut pairs: BTreeMap<(NodeId, NodeId), u32> =
        ordered().filter(|(a, b)| may(*a, *b)).map(|pair| (pair, 0)).collect();
    let possible = pairs.len();
    let (mut shared, mut chains_at_one_leaf) = (0_u32, 0);
    for chain in placed {
        let members: BTreeSet<NodeId> =
            chain.targets.iter().map(|target| NodeId(target.node)).collect();
        let of_chain =
            members.iter().flat_map(|&a| members.range(a..).skip(1).map(move |&b| (a, b)));
        let mut is_apart = true;
        for (a, b) in of_chain {
            *pairs.entry((a, b)).or_default() += 1;
            shared += 1;
            is_apart &= may(a, b);
        }
        chains_at_one_leaf += u32::from(!is_apart);
    }
    Evenness {
        worst_pair: pairs.values().max().copied().unwrap_or(0),
        least_pair: pairs.values().min().copied().unwrap_or(0),
        ideal_pair: f64::from(shared) / possible.max(1) as f64,
        chains_at_one_leaf,
    }
}
