//! A plan of chains: which storage nodes hold replicas together.
//!
//! Chains are rotations of a few base blocks, as in cyclic designs: block {0, a, b} gives {i, i+a, i+b} for each node
//! i. A pair of nodes shares a chain once for each time that their distance is one of a block's, so balancing the
//! distances balances all pairs (Colbourn and Dinitz, "Handbook of Combinatorial Designs", II.1 and VI.16).

use serde::Serialize;

/// What is planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    pub nodes: usize,
    pub replicas: usize,
    /// Chains of each node: its disks, times the targets of a disk. A multiple of `replicas`.
    pub chains_of_node: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The nodes of each chain.
    pub chains: Vec<Vec<usize>>,
    /// The most chains that two nodes share, and the least.
    pub worst_pair: usize,
    pub least_pair: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    #[error("{replicas} replicas need more than {nodes} nodes")]
    Nodes { nodes: usize, replicas: usize },
    #[error(
        "{chains} chains of a node are no multiple of {replicas} replicas: change the targets of a disk"
    )]
    Uneven { chains: usize, replicas: usize },
}

impl Plan {
    pub fn new(wanted: Wanted) -> Result<Self, NoPlan> {
        let Wanted { nodes, replicas, chains_of_node: chains } = wanted;
        if replicas == 0 || nodes <= replicas {
            return Err(NoPlan::Nodes { nodes, replicas });
        }
        if chains == 0 || !chains.is_multiple_of(replicas) {
            return Err(NoPlan::Uneven { chains, replicas });
        }
        // How often each distance is used; d and nodes - d are the same pair.
        let mut used = vec![0_usize; nodes];
        let mut all = Vec::new();
        for _ in 0..chains / replicas {
            let block = block(replicas, &mut used);
            for turn in 0..nodes {
                all.push(block.iter().map(|member| (member + turn) % nodes).collect());
            }
        }
        let (worst, least) = (used[1..].iter().max(), used[1..].iter().min());
        let (worst_pair, least_pair) = (worst.copied().unwrap_or(0), least.copied().unwrap_or(0));
        Ok(Self { chains: all, worst_pair, least_pair })
    }

    /// Chains that each pair would share if all shared equally many.
    pub fn ideal_pair(wanted: Wanted) -> f64 {
        wanted.chains_of_node as f64 * (wanted.replicas - 1) as f64 / (wanted.nodes - 1) as f64
    }
}

/// A block whose distances were used least: each next member is the one that adds the least crowding.
fn block(replicas: usize, used: &mut [usize]) -> Vec<usize> {
    let nodes = used.len();
    let mut block = vec![0];
    while block.len() < replicas {
        let cost = |candidate: usize| {
            let mut added = std::collections::BTreeMap::new();
            for member in &block {
                let distance = candidate - member;
                *added.entry(distance).or_insert(0) += 1;
                *added.entry(nodes - distance).or_insert(0) += 1;
            }
            // The sum of squares grows by this.
            let crowding = |(distance, more): (&usize, &usize)| more * (2 * used[*distance] + more);
            added.iter().map(crowding).sum::<usize>()
        };
        let last = block.last().copied().unwrap_or(0);
        let room = nodes - (replicas - block.len() - 1);
        let next = (last + 1..room).min_by_key(|candidate| cost(*candidate)).unwrap_or(last + 1);
        for member in &block {
            used[next - member] += 1;
            used[nodes - (next - member)] += 1;
        }
        block.push(next);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_fire_flyer_are_nearly_equal() {
        let wanted = Wanted { nodes: 180, replicas: 3, chains_of_node: 96 };
        let plan = Plan::new(wanted).unwrap();
        assert_eq!(plan.chains.len(), 180 * 96 / 3);
        // Counted from the chains themselves.
        let mut shared = vec![vec![0; 180]; 180];
        let mut of_node = vec![0; 180];
        for chain in &plan.chains {
            for a in chain {
                of_node[*a] += 1;
                chain.iter().filter(|b| *b != a).for_each(|b| shared[*a][*b] += 1);
            }
        }
        assert!(of_node.iter().all(|chains| *chains == 96));
        let pairs = || (0..180).flat_map(|a| (0..a).map(move |b| (a, b)));
        assert_eq!(pairs().map(|(a, b)| shared[a][b]).max(), Some(plan.worst_pair));
        assert_eq!(pairs().map(|(a, b)| shared[a][b]).min(), Some(plan.least_pair));
        let ideal = Plan::ideal_pair(wanted);
        assert!(plan.worst_pair as f64 <= ideal.ceil() + 1.0, "{} for {ideal}", plan.worst_pair);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let plan = |nodes, chains_of_node| Plan::new(Wanted { nodes, replicas: 3, chains_of_node });
        assert_eq!(plan(3, 6), Err(NoPlan::Nodes { nodes: 3, replicas: 3 }));
        assert_eq!(plan(9, 16), Err(NoPlan::Uneven { chains: 16, replicas: 3 }));
        assert!(plan(4, 3).is_ok());
    }
}
