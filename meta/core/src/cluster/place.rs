//! Which disks the chains of a new table lie on.
//!
//! Four aims, in this order: replicas of a chain on different nodes; as many targets on each disk as
//! on any other; replicas at different leaf switches, where those are known; and every pair of nodes in
//! about as many chains, so that when a node dies all others share the work of its recovery (a balanced
//! incomplete block design has all pairs equal; most numbers of nodes have none). Where all nodes are
//! alike, rotations come near ([`rotate`]); what is left over of them, and nodes that are not alike, a
//! greedy choice places; then a few rounds of exchanges even it out.

mod evenness;
mod exchange;
mod rotate;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use ff2_proto::{NodeId, Routing, pb};
use pb::{NodeRole, PublicState};

use super::limits;
pub use evenness::{Evenness, evenness};

/// The leaf switch of each node that told it.
pub type Leaves = BTreeMap<NodeId, String>;

/// A disk that may get targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceableDisk {
    pub node: NodeId,
    pub uuid: Vec<u8>,
    /// Targets that it has already, but for those on their way out.
    pub targets: u32,
    /// Of these, those that do not serve yet.
    pub coming: u32,
}

/// Why no placement exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "{replicas} replicas need {replicas} storage nodes that are alive and not draining, with a \
         working disk each, and there are {nodes}: add nodes, or ask for fewer replicas"
    )]
    TooFewNodes { nodes: usize, replicas: u32 },
    #[error(
        "a table has 1 to {max} chains of 1 to {replicas_max} replicas",
        max = limits::TABLE_CHAINS_MAX,
        replicas_max = limits::REPLICAS_MAX
    )]
    OutOfBounds,
}

/// Working disks of nodes that are alive and not draining.
pub fn placeable_disks(routing: &Routing) -> Vec<PlaceableDisk> {
    let in_chains = || routing.targets.values().filter(|target| target.chain != 0);
    let replaced: BTreeSet<u64> = in_chains().map(|target| target.replaces).collect();
    let mut used: BTreeMap<(u32, &[u8]), (u32, u32)> = BTreeMap::new();
    for target in in_chains().filter(|t| !t.leaving && !replaced.contains(&t.id)) {
        let (targets, coming) = used.entry((target.node, target.disk_uuid.as_ref())).or_default();
        let serves = matches!(target.public_state(), PublicState::Serving | PublicState::Lastsrv);
        *targets += 1;
        *coming += u32::from(!serves);
    }
    let may = |node: &&pb::Node| node.role() == NodeRole::Storaged && node.alive && !node.draining;
    let mut disks = Vec::new();
    for node in routing.nodes.values().filter(may) {
        for disk in node.disks.iter().filter(|disk| !disk.failed) {
            let (targets, coming) =
                used.get(&(node.id, disk.uuid.as_ref())).copied().unwrap_or_default();
            let uuid = disk.uuid.to_vec();
            disks.push(PlaceableDisk { node: NodeId(node.id), uuid, targets, coming });
        }
    }
    disks
}

/// How many chains give each disk a few targets.
pub fn default_chains(disks: usize, replicas: u32) -> u32 {
    let targets = u32::try_from(disks).unwrap_or(u32::MAX).saturating_mul(limits::TARGETS_PER_DISK);
    (targets / replicas.max(1)).clamp(1, limits::TABLE_CHAINS_MAX as u32)
}

/// Places `chains` chains of `replicas` targets. The same disks give the same chains.
pub fn place(
    disks: &[PlaceableDisk],
    leaves: &Leaves,
    replicas: u32,
    chains: u32,
) -> Result<Vec<pb::PlacedChain>, PlaceError> {
    let bounds = 1..=limits::TABLE_CHAINS_MAX;
    if !(1..=limits::REPLICAS_MAX).contains(&replicas) || !bounds.contains(&(chains as usize)) {
        return Err(PlaceError::OutOfBounds);
    }
    let mut plan = Plan::new(disks, leaves);
    if plan.nodes.len() < replicas as usize {
        return Err(PlaceError::TooFewNodes { nodes: plan.nodes.len(), replicas });
    }
    plan.rotate(replicas as usize, chains as usize);
    while plan.chains.len() < chains as usize {
        plan.add_chain(replicas as usize);
    }
    plan.part_leaves();
    plan.exchange();
    Ok(plan.into_chains())
}

#[derive(Debug)]
struct Plan {
    nodes: Vec<PlanNode>,
    /// Places in `nodes`, for each chain.
    chains: Vec<Vec<usize>>,
    /// In how many chains two nodes meet: a square matrix by rows.
    pairs: Vec<u32>,
}

#[derive(Debug)]
struct PlanNode {
    id: NodeId,
    /// Targets so far, then the disk.
    disks: Vec<(u32, Vec<u8>)>,
    targets: u32,
    heads: u32,
    /// Nodes with the same number are at the same leaf.
    leaf: usize,
}

impl Plan {
    fn new(disks: &[PlaceableDisk], leaves: &Leaves) -> Self {
        let mut nodes: BTreeMap<NodeId, Vec<(u32, Vec<u8>)>> = BTreeMap::new();
        for disk in disks {
            nodes.entry(disk.node).or_default().push((disk.targets, disk.uuid.clone()));
        }
        // One that did not tell its leaf shares it with nobody.
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let mut nodes: Vec<PlanNode> = nodes
            .into_iter()
            .enumerate()
            .map(|(at, (id, disks))| {
                let targets = disks.iter().map(|disk| disk.0).sum();
                let leaf = leaves.get(&id).map_or(at, |leaf| *known.entry(leaf).or_insert(at));
                PlanNode { id, disks, targets, heads: 0, leaf }
            })
            .collect();
        // One of each leaf, then the next of each: neighbours are at different leaves.
        let mut of_leaf: BTreeMap<usize, usize> = BTreeMap::new();
        nodes.sort_by_cached_key(|node| {
            let turn = of_leaf.entry(node.leaf).or_default();
            *turn += 1;
            (*turn, node.leaf)
        });
        let pairs = vec![0; nodes.len() * nodes.len()];
        Self { nodes, chains: Vec::new(), pairs }
    }

    /// As many whole rotations as fit, if all nodes are alike.
    fn rotate(&mut self, replicas: usize, chains: usize) {
        let nodes = self.nodes.len();
        let first = &self.nodes[0];
        let is_alike = |node: &PlanNode| {
            node.disks.len() == first.disks.len() && node.targets == first.targets
        };
        if nodes <= replicas || !self.nodes.iter().all(is_alike) {
            return;
        }
        let mut of_leaf: BTreeMap<usize, usize> = BTreeMap::new();
        self.nodes.iter().for_each(|node| *of_leaf.entry(node.leaf).or_default() += 1);
        let is_even = of_leaf.values().all(|count| count * of_leaf.len() == nodes);
        let leaves = if is_even && of_leaf.len() < nodes { of_leaf.len() } else { 0 };
        for chain in rotate::chains(nodes, replicas, chains / nodes, leaves) {
            chain.iter().for_each(|place| self.nodes[*place].targets += 1);
            self.count_pairs(&chain, 1);
            self.chains.push(chain);
        }
    }

    /// Takes the node with the fewest targets a disk, and among equals one at another leaf that met the
    /// nodes already in the chain least often.
    fn add_chain(&mut self, replicas: usize) {
        let turn = self.chains.len() as u64;
        let mut chain: Vec<usize> = Vec::with_capacity(replicas);
        for _ in 0..replicas {
            let cost = |&place: &usize| {
                let node = &self.nodes[place];
                // Thousandths of a target a disk: nodes may have different numbers of disks.
                let load = u64::from(node.targets) * 1000 / node.disks.len() as u64;
                let met: u32 = chain.iter().map(|&other| self.met(place, other)).sum();
                let at_leaf = chain.iter().any(|&other| self.nodes[other].leaf == node.leaf);
                (load, at_leaf, met, scatter(turn, node.id), node.id)
            };
            let free = (0..self.nodes.len()).filter(|place| !chain.contains(place));
            let place =
                free.min_by_key(cost).expect("there are at least as many nodes as replicas");
            self.nodes[place].targets += 1;
            chain.push(place);
        }
        self.count_pairs(&chain, 1);
        self.chains.push(chain);
    }

    fn met(&self, a: usize, b: usize) -> u32 {
        self.pairs[a * self.nodes.len() + b]
    }

    fn count_pairs(&mut self, chain: &[usize], change: i32) {
        let width = self.nodes.len();
        for &a in chain {
            for &b in chain.iter().filter(|&&b| b != a) {
                let pair = &mut self.pairs[a * width + b];
                *pair = pair.checked_add_signed(change).expect("pairs are counted once each");
            }
        }
    }

    /// Chooses the disks, and a head for each chain so that all nodes lead about equally many.
    fn into_chains(mut self) -> Vec<pb::PlacedChain> {
        let chains = std::mem::take(&mut self.chains);
        let mut placed = Vec::with_capacity(chains.len());
        for mut chain in chains {
            chain.sort_by_key(|&place| (self.nodes[place].heads, self.nodes[place].id));
            self.nodes[chain[0]].heads += 1;
            let targets = chain.iter().map(|&place| self.nodes[place].place_target()).collect();
            placed.push(pb::PlacedChain { targets });
        }
        placed
    }
}

/// An order of the nodes that differs from turn to turn: with a fixed one, the same last nodes would
/// be left for each other in every round. (The finisher of MurmurHash3.)
fn scatter(turn: u64, node: NodeId) -> u64 {
    let mut hash = (turn << 32) ^ u64::from(node.0);
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(multiplier);
    }
    hash ^ (hash >> 33)
}

impl PlanNode {
    fn place_target(&mut self) -> pb::PlacedTarget {
        let disk = (0..self.disks.len())
            .min_by_key(|&index| (self.disks[index].0, Reverse(self.disks.len() - index)))
            .expect("a node is placeable because it has a disk");
        self.disks[disk].0 += 1;
        pb::PlacedTarget { node: self.id.0, disk_uuid: self.disks[disk].1.clone().into() }
    }
}

#[cfg(test)]
mod tests;
