//! The tree of switches as placement walks it, and how a gang is laid on it.

use ff2_topology::{LeafId, NodeId, PodId, Role, Topology, ZoneId};

use crate::placement::{Placement, Slot};

/// Compute nodes by leaf, leaves by pod, pods by zone. A node with several ports counts at the leaf of its first.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    zones: Vec<Vec<PodId>>,
    pods: Vec<Vec<LeafId>>,
    leaves: Vec<Vec<NodeId>>,
    /// By node; none of nodes that do not compute.
    leaf_of: Vec<Option<LeafId>>,
    pod_of: Vec<PodId>,
    zone_of: Vec<ZoneId>,
    /// The place of each node in the order in which ranks are given.
    order: Vec<u32>,
}

/// How a gang wants to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub tasks: u32,
    pub zone: Option<ZoneId>,
    /// Over leaves rather than in few.
    pub spread: bool,
    /// It may lie in several zones.
    pub across: bool,
}

/// A part of the tree with the tasks that it has room for.
type Part<T> = (T, u64);

impl Tree {
    pub(crate) fn new(topology: &Topology) -> Self {
        let mut tree = Self {
            zones: vec![Vec::new(); topology.zones().len()],
            pods: vec![Vec::new(); topology.pods().len()],
            leaves: vec![Vec::new(); topology.leaves().len()],
            leaf_of: Vec::new(),
            pod_of: Vec::new(),
            zone_of: Vec::new(),
            order: vec![0; topology.nodes().len()],
        };
        for (pod, described) in topology.pods() {
            tree.zones[described.zone.index()].push(pod);
        }
        for (leaf, described) in topology.leaves() {
            tree.pods[described.pod.index()].push(leaf);
            tree.pod_of.push(described.pod);
            tree.zone_of.push(topology.zone_of(leaf));
        }
        for (node, described) in topology.nodes() {
            let computes = matches!(described.role, Role::Compute { .. });
            let leaf = computes.then(|| described.ports[0].0);
            tree.leaf_of.push(leaf);
            if let Some(leaf) = leaf {
                tree.leaves[leaf.index()].push(node);
            }
        }
        let nodes = tree.zones.iter().flatten().flat_map(|pod| &tree.pods[pod.index()]);
        let nodes: Vec<NodeId> =
            nodes.flat_map(|leaf| &tree.leaves[leaf.index()]).copied().collect();
        for (place, node) in (0..).zip(nodes) {
            tree.order[node.index()] = place;
        }
        tree
    }

    pub(crate) fn leaf_of(&self, node: NodeId) -> Option<LeafId> {
        self.leaf_of[node.index()]
    }

    pub(crate) fn zone_of(&self, leaf: LeafId) -> ZoneId {
        self.zone_of[leaf.index()]
    }

    pub(crate) fn pod_of(&self, leaf: LeafId) -> PodId {
        self.pod_of[leaf.index()]
    }

    pub(crate) fn leaves(&self) -> impl Iterator<Item = (LeafId, &[NodeId])> {
        (0..).map(LeafId).zip(self.leaves.iter().map(Vec::as_slice))
    }

    pub(crate) fn zones(&self) -> impl Iterator<Item = ZoneId> + use<> {
        (0..).map(ZoneId).take(self.zones.len())
    }

    /// Whether a node lies in a zone, if that is said.
    pub(crate) fn is_in(&self, node: NodeId, zone: Option<ZoneId>) -> bool {
        zone.is_none_or(|only| self.leaf_of(node).is_some_and(|leaf| self.zone_of(leaf) == only))
    }

    pub(crate) fn at(&self, leaf: LeafId) -> &[NodeId] {
        &self.leaves[leaf.index()]
    }

    pub(crate) fn is_across(&self, placement: &Placement) -> bool {
        let mut zones =
            placement.nodes().filter_map(|node| self.leaf_of(node)).map(|leaf| self.zone_of(leaf));
        zones.next().is_some_and(|first| zones.any(|other| other != first))
    }

    /// Leaves that a placement has nodes at.
    pub(crate) fn leaves_of(&self, placement: &Placement) -> usize {
        let mut leaves: Vec<_> = placement.nodes().filter_map(|node| self.leaf_of(node)).collect();
        leaves.sort_unstable();
        leaves.dedup();
        leaves.len()
    }

    /// In the order of ranks.
    pub(crate) fn ordered(&self, mut slots: Vec<Slot>) -> Placement {
        slots.sort_unstable_by_key(|slot| self.order[slot.node.index()]);
        Placement { slots }
    }

    /// Lays a gang where `room` has tasks by node: the smallest part of the tree that has room for all, of equal
    /// parts the one with the least room. What no part has room for takes the largest ones whole, and the rest of it
    /// is laid likewise: so few leaves are touched, and large gaps are kept for others.
    pub(crate) fn lay(&self, room: &[u32], want: Want) -> Option<Placement> {
        let at_leaf: Vec<u64> = self
            .leaves
            .iter()
            .map(|nodes| nodes.iter().map(|node| u64::from(room[node.index()])).sum())
            .collect();
        let sum = |leaves: &Vec<LeafId>| leaves.iter().map(|leaf| at_leaf[leaf.index()]).sum();
        let in_pod: Vec<u64> = self.pods.iter().map(sum).collect();
        let zones: Vec<Part<ZoneId>> = (0..)
            .map(ZoneId)
            .zip(&self.zones)
            .filter(|(zone, _)| want.zone.is_none_or(|only| only == *zone))
            .map(|(zone, pods)| (zone, pods.iter().map(|pod| in_pod[pod.index()]).sum()))
            .collect();
        let mut slots = Vec::new();
        if !want.spread
            && let Some(leaf) = self.tightest_leaf(&at_leaf, want)
        {
            self.fill(leaf, room, u64::from(want.tasks), &mut slots);
            return Some(self.ordered(slots));
        }
        for (zone, tasks) in divide(zones, u64::from(want.tasks))? {
            if tasks < u64::from(want.tasks) && !want.across {
                return None;
            }
            if want.spread {
                self.spread(zone, room, tasks, &mut slots);
                continue;
            }
            let pods = self.zones[zone.index()].iter().map(|pod| (*pod, in_pod[pod.index()]));
            for (pod, tasks) in divide(pods.collect(), tasks)? {
                let leaves = self.pods[pod.index()].iter();
                let leaves = leaves.map(|leaf| (*leaf, at_leaf[leaf.index()])).collect();
                for (leaf, tasks) in divide(leaves, tasks)? {
                    self.fill(leaf, room, tasks, &mut slots);
                }
            }
        }
        Some(self.ordered(slots))
    }

    /// The largest gang that there is room for, if it wants to lie so.
    pub(crate) fn most(&self, room: &[u32], want: Want) -> u64 {
        let zones = (0..).map(ZoneId).zip(&self.zones);
        let zones = zones.filter(|(zone, _)| want.zone.is_none_or(|only| only == *zone));
        let room_in = |pods: &Vec<PodId>| -> u64 {
            let leaves = pods.iter().flat_map(|pod| &self.pods[pod.index()]);
            let nodes = leaves.flat_map(|leaf| &self.leaves[leaf.index()]);
            nodes.map(|node| u64::from(room[node.index()])).sum()
        };
        let rooms = zones.map(|(_, pods)| room_in(pods));
        if want.across { rooms.sum() } else { rooms.max().unwrap_or(0) }
    }

    /// Of the leaves that have room for all, the one with least.
    fn tightest_leaf(&self, at_leaf: &[u64], want: Want) -> Option<LeafId> {
        let leaves = (0..).map(LeafId).zip(at_leaf);
        let fitting = leaves.filter(|(leaf, room)| {
            **room >= u64::from(want.tasks)
                && want.zone.is_none_or(|only| self.zone_of(*leaf) == only)
        });
        fitting.min_by_key(|(leaf, room)| (**room, *leaf)).map(|(leaf, _)| leaf)
    }

    /// Takes the nodes of a leaf with most room first, and for the rest the one that it fills best.
    fn fill(&self, leaf: LeafId, room: &[u32], tasks: u64, slots: &mut Vec<Slot>) {
        let nodes = self.leaves[leaf.index()].iter();
        let nodes = nodes.map(|node| (*node, u64::from(room[node.index()]))).collect();
        let parts = divide(nodes, tasks).expect("the leaf was chosen because it has the room");
        slots.extend(parts.into_iter().map(|(node, tasks)| Slot { node, tasks: narrow(tasks) }));
    }

    /// One node of each leaf in turn, those with most room first.
    fn spread(&self, zone: ZoneId, room: &[u32], mut tasks: u64, slots: &mut Vec<Slot>) {
        let leaves = self.zones[zone.index()].iter().flat_map(|pod| &self.pods[pod.index()]);
        let mut leaves: Vec<Vec<NodeId>> = leaves
            .map(|leaf| {
                let nodes = self.leaves[leaf.index()].iter().copied();
                let mut nodes: Vec<NodeId> = nodes.filter(|node| room[node.index()] > 0).collect();
                nodes.reverse();
                nodes
            })
            .collect();
        leaves.sort_by_key(|nodes| std::cmp::Reverse(nodes.len()));
        while tasks > 0 {
            for leaf in &mut leaves {
                let Some(node) = leaf.pop() else { continue };
                let taken = tasks.min(u64::from(room[node.index()]));
                if taken > 0 {
                    slots.push(Slot { node, tasks: narrow(taken) });
                    tasks -= taken;
                }
            }
        }
    }
}

/// Which parts take how many tasks: one that has room for all, the tightest; else the largest as a whole, and so on.
/// None if all together have not the room.
fn divide<T: Copy + Ord>(mut parts: Vec<Part<T>>, mut tasks: u64) -> Option<Vec<Part<T>>> {
    if parts.iter().map(|(_, room)| room).sum::<u64>() < tasks {
        return None;
    }
    // Most room first; equal ones by number, so that every replica chooses alike.
    parts.sort_unstable_by_key(|(part, room)| (std::cmp::Reverse(*room), *part));
    let mut taken = Vec::new();
    let mut next = 0;
    while tasks > 0 {
        let fitting = parts[next..].partition_point(|(_, room)| *room >= tasks);
        if fitting > 0 {
            // The last that fits is the tightest; of equal ones the first.
            let tightest = parts[next + fitting - 1].1;
            let first = parts[next..].partition_point(|(_, room)| *room > tightest);
            taken.push((parts[next + first].0, tasks));
            break;
        }
        taken.push(parts[next]);
        tasks -= parts[next].1;
        next += 1;
    }
    Some(taken)
}

fn narrow(tasks: u64) -> u32 {
    u32::try_from(tasks).expect("no more than the gang has")
}

#[cfg(test)]
mod tests;
