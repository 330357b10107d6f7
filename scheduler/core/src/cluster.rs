//! What nodes have and what is free of it, counted by leaf and by free GPUs.

use std::collections::BTreeSet;

use ff2_topology::{LeafId, NodeId, Topology};
use serde::{Deserialize, Serialize};

use crate::{
    job::{JobId, Resources, Shape},
    per_node::PerNode,
    placement::{Placement, Slot},
    tags::TagSet,
    tree::{Tree, Want},
};

/// What a node is good for at a moment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    #[default]
    Up,
    /// Nothing new is placed there; what runs goes on.
    Cordoned,
    /// What runs there is suspended and goes elsewhere.
    Draining,
    /// As draining, because a check failed: stays until somebody says otherwise.
    Quarantined,
    /// Nothing runs there any more.
    Down,
}

#[derive(Clone, Debug)]
struct Node {
    capacity: Resources,
    /// By tasks that run or stop there; of one that has the node whole see `is_whole`.
    used: Resources,
    /// A job has all of it, however much that is.
    is_whole: bool,
    /// For jobs whose nodes are known before they are free. With what is used it may be more than there is, as
    /// long as somebody stops there.
    claimed: Resources,
    state: NodeState,
    /// Kept free for a node that fails.
    spare: bool,
    tags: TagSet,
    /// Those with tasks there, in their order: decisions must not tell in which they came.
    jobs: Vec<JobId>,
}

impl Node {
    fn used(&self) -> Resources {
        if self.is_whole { self.capacity } else { self.used }
    }

    fn is_overfull(&self) -> bool {
        !self.used().fits_in(self.capacity)
    }
}

/// All nodes, by [`NodeId`].
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) tree: Tree,
    nodes: Vec<Node>,
    /// Nodes that may be used, by free GPUs: of all, and of each leaf.
    by_free: Vec<u32>,
    leaf_by_free: Vec<Vec<u32>>,
    /// Nodes at each leaf that may be used and of which all GPUs are free.
    leaf_whole: Vec<u32>,
    gpus_max: u32,
    /// Not all nodes that compute have the same.
    is_mixed: bool,
    spares: u32,
}

impl Cluster {
    /// `beside` is what each node has beside its GPUs.
    pub(crate) fn new(topology: &Topology, beside: Resources) -> Self {
        let tree = Tree::new(topology);
        let capacity = |gpus| Resources { gpus, ..beside };
        let nodes: Vec<Node> = topology
            .nodes()
            .map(|(id, node)| Node {
                capacity: tree.leaf_of(id).map_or(Resources::default(), |_| capacity(node.gpus())),
                used: Resources::default(),
                is_whole: false,
                claimed: Resources::default(),
                state: NodeState::Up,
                spare: false,
                tags: TagSet::default(),
                jobs: Vec::new(),
            })
            .collect();
        let gpus_max = nodes.iter().map(|node| node.capacity.gpus).max().unwrap_or(0);
        let buckets = vec![0; gpus_max as usize + 1];
        let mut cluster = Self {
            leaf_by_free: vec![buckets.clone(); topology.leaves().len()],
            leaf_whole: vec![0; topology.leaves().len()],
            by_free: buckets,
            nodes,
            gpus_max,
            is_mixed: false,
            spares: 0,
            tree,
        };
        cluster.is_mixed = cluster.sizes_differ();
        for node in (0..cluster.nodes.len()).map(number) {
            cluster.count(node, true);
        }
        cluster
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(number)
    }

    pub(crate) fn gpus_max(&self) -> u32 {
        self.gpus_max
    }

    pub(crate) fn knows(&self, node: NodeId) -> bool {
        node.index() < self.nodes.len() && self.tree.leaf_of(node).is_some()
    }

    pub(crate) fn state(&self, node: NodeId) -> NodeState {
        self.nodes[node.index()].state
    }

    pub(crate) fn is_spare(&self, node: NodeId) -> bool {
        self.nodes[node.index()].spare
    }

    pub(crate) fn spares(&self) -> u32 {
        self.spares
    }

    /// Nobody has or was promised anything there, and it could be a spare.
    pub(crate) fn is_idle(&self, node: NodeId) -> bool {
        let of = &self.nodes[node.index()];
        self.may_be_used(node)
            && of.jobs.is_empty()
            && of.claimed == Resources::default()
            && of.capacity != Resources::default()
    }

    pub(crate) fn capacity(&self, node: NodeId) -> Resources {
        self.nodes[node.index()].capacity
    }

    pub(crate) fn used(&self, node: NodeId) -> Resources {
        self.nodes[node.index()].used()
    }

    /// What a job takes of a node by so many tasks.
    pub(crate) fn taken(&self, node: NodeId, per_node: PerNode, tasks: u32) -> Resources {
        per_node.takes(tasks, self.capacity(node))
    }

    /// GPUs that a job has by a placement.
    pub(crate) fn gpus_of(&self, placement: &Placement, per_node: PerNode) -> u64 {
        let of = |slot: &Slot| u64::from(self.taken(slot.node, per_node, slot.tasks).gpus);
        placement.slots.iter().map(of).sum()
    }

    /// Other cores and memory of a node. Nobody is promised anything there.
    pub(crate) fn resize(&mut self, node: NodeId, cpus: u32, memory: u32) {
        self.change(node, |node| {
            node.capacity = Resources { gpus: node.capacity.gpus, cpus, memory };
        });
        self.is_mixed = self.sizes_differ();
    }

    fn sizes_differ(&self) -> bool {
        let mut sizes = self.ids().filter(|node| self.knows(*node)).map(|node| self.capacity(node));
        let first = sizes.next();
        sizes.any(|size| Some(size) != first)
    }

    pub(crate) fn claimed(&self, node: NodeId) -> Resources {
        self.nodes[node.index()].claimed
    }

    pub(crate) fn jobs(&self, node: NodeId) -> &[JobId] {
        &self.nodes[node.index()].jobs
    }

    pub(crate) fn may_be_used(&self, node: NodeId) -> bool {
        let node = &self.nodes[node.index()];
        node.state == NodeState::Up && !node.spare && !node.is_overfull()
    }

    /// It became smaller than what tasks hold there.
    pub(crate) fn is_overfull(&self, node: NodeId) -> bool {
        self.nodes[node.index()].is_overfull()
    }

    pub(crate) fn tags(&self, node: NodeId) -> TagSet {
        self.nodes[node.index()].tags
    }

    pub(crate) fn set_tags(&mut self, node: NodeId, tags: TagSet) {
        self.nodes[node.index()].tags = tags;
    }

    /// Whether tasks of a shape may lie there, if there is room.
    pub(crate) fn suits(&self, node: NodeId, shape: Shape) -> bool {
        self.tags(node).has_all(shape.needs) && self.tree.is_in(node, shape.zone)
    }

    /// Tasks of a shape for which there is room.
    pub(crate) fn room(&self, node: NodeId, shape: Shape) -> u32 {
        if self.suits(node, shape) {
            self.room_in(node, self.free(node), shape.per_node())
        } else {
            0
        }
    }

    /// Tasks for which there is room in so much of a node.
    pub(crate) fn room_in(&self, node: NodeId, free: Resources, per_node: PerNode) -> u32 {
        per_node.room(free, self.capacity(node))
    }

    /// What a new task may have there.
    pub(crate) fn free(&self, node: NodeId) -> Resources {
        if self.may_be_used(node) { self.left(node) } else { Resources::default() }
    }

    /// What nobody uses or claimed, whether or not anybody may.
    pub(crate) fn left(&self, node: NodeId) -> Resources {
        let node = &self.nodes[node.index()];
        node.capacity.without(node.used().with(node.claimed))
    }

    pub(crate) fn free_gpus(&self) -> u64 {
        (0..).zip(&self.by_free).map(|(gpus, nodes): (u64, &u32)| gpus * u64::from(*nodes)).sum()
    }

    /// GPUs of nodes that may be used.
    pub(crate) fn usable_gpus(&self) -> u64 {
        let usable = self.ids().filter(|node| self.may_be_used(*node));
        usable.map(|node| u64::from(self.capacity(node).gpus)).sum()
    }

    pub(crate) fn set_state(&mut self, node: NodeId, state: NodeState, spare: bool) {
        self.count(node, false);
        let of = &mut self.nodes[node.index()];
        self.spares = self.spares + u32::from(spare) - u32::from(of.spare);
        (of.state, of.spare) = (state, spare);
        self.count(node, true);
    }

    pub(crate) fn take(&mut self, job: JobId, placement: &Placement, per_node: PerNode) {
        self.hold(job, placement, per_node);
        for node in placement.nodes() {
            assert!(!self.is_overfull(node), "{job:?} overfills {node:?}");
        }
    }

    /// As [`Self::take`], of what it has already: a node may have become smaller since.
    pub(crate) fn hold(&mut self, job: JobId, placement: &Placement, per_node: PerNode) {
        for slot in &placement.slots {
            let is_alone = self.jobs(slot.node).is_empty();
            assert!(!per_node.whole || is_alone, "{job:?} is not alone on {:?}", slot.node);
            self.change(slot.node, |node| {
                match per_node.whole {
                    true => node.is_whole = true,
                    false => node.used = node.used.with(per_node.task.times(slot.tasks)),
                }
                let at = node.jobs.partition_point(|other| *other < job);
                node.jobs.insert(at, job);
            });
        }
    }

    pub(crate) fn give(&mut self, job: JobId, placement: &Placement, per_node: PerNode) {
        for slot in &placement.slots {
            self.change(slot.node, |node| {
                match per_node.whole {
                    true => node.is_whole = false,
                    false => node.used = node.used.without(per_node.task.times(slot.tasks)),
                }
                node.jobs.retain(|other| *other != job);
            });
        }
    }

    pub(crate) fn claim(&mut self, placement: &Placement, per_node: PerNode) {
        for slot in &placement.slots {
            self.change(slot.node, |node| {
                let takes = per_node.takes(slot.tasks, node.capacity);
                node.claimed = node.claimed.with(takes);
            });
        }
    }

    pub(crate) fn unclaim(&mut self, placement: &Placement, per_node: PerNode) {
        for slot in &placement.slots {
            self.change(slot.node, |node| {
                let takes = per_node.takes(slot.tasks, node.capacity);
                node.claimed = node.claimed.without(takes);
            });
        }
    }

    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Node)) {
        self.count(node, false);
        change(&mut self.nodes[node.index()]);
        self.count(node, true);
    }

    fn count(&mut self, node: NodeId, more: bool) {
        let Some(leaf) = self.tree.leaf_of(node).filter(|_| self.may_be_used(node)) else { return };
        let gpus = self.left(node).gpus;
        let is_whole = gpus == self.capacity(node).gpus;
        let whole = is_whole.then_some(&mut self.leaf_whole[leaf.index()]);
        let gpus = gpus as usize;
        let by_free = [&mut self.by_free[gpus], &mut self.leaf_by_free[leaf.index()][gpus]];
        for count in by_free.into_iter().chain(whole) {
            *count = if more { *count + 1 } else { *count - 1 };
        }
    }

    /// The counts as they are kept, and as they come out of all nodes: for checks.
    pub(crate) fn counted(&self) -> (&[u32], &[Vec<u32>], &[u32]) {
        (&self.by_free, &self.leaf_by_free, &self.leaf_whole)
    }

    pub(crate) fn recounted(&self) -> (Vec<u32>, Vec<Vec<u32>>, Vec<u32>) {
        let none = vec![0; self.by_free.len()];
        let (mut all, mut leaves) = (none.clone(), vec![none; self.leaf_by_free.len()]);
        let mut whole = vec![0; self.leaf_whole.len()];
        for node in self.ids().filter(|node| self.may_be_used(*node)) {
            let Some(leaf) = self.tree.leaf_of(node) else { continue };
            let gpus = self.left(node).gpus as usize;
            all[gpus] += 1;
            leaves[leaf.index()][gpus] += 1;
            whole[leaf.index()] += u32::from(gpus == self.capacity(node).gpus as usize);
        }
        (all, leaves, whole)
    }

    /// Tasks that have GPUs now, as the counts tell: a job with more does not fit.
    pub(crate) fn room_at_most(&self, task: Resources) -> u64 {
        let Some(each) = std::num::NonZero::new(task.gpus) else { return u64::MAX };
        let counted = (0u32..).zip(&self.by_free);
        counted.map(|(gpus, nodes)| u64::from(gpus / each) * u64::from(*nodes)).sum()
    }

    /// Where a job fits now. Of nodes or leaves that are equally good, those that `prefer` are taken.
    pub(crate) fn fit(
        &self,
        shape: Shape,
        spread: bool,
        across: bool,
        prefer: Option<&BTreeSet<NodeId>>,
    ) -> Option<Placement> {
        if self.room_at_most(shape.task) < u64::from(shape.tasks) {
            return None;
        }
        if shape.tasks == 1 {
            let node = self.fit_one(shape, prefer)?;
            return Some(Placement { slots: vec![Slot { node, tasks: 1 }] });
        }
        let room: Vec<u32> = self.ids().map(|node| self.room(node, shape)).collect();
        let want = Want { tasks: shape.tasks, zone: shape.zone, spread, across };
        let placement = self.tree.lay(&room, want)?;
        let Some(preferred) = prefer else { return Some(placement) };
        let only = |node: NodeId| if preferred.contains(&node) { room[node.index()] } else { 0 };
        let near = self.tree.lay(&self.ids().map(only).collect::<Vec<_>>(), want);
        let spans = |placement: &Placement| self.tree.leaves_of(placement);
        Some(near.filter(|near| spans(near) <= spans(&placement)).unwrap_or(placement))
    }

    /// A node for a task that needs no GPU, with the fewest that are free, but none of these.
    pub(crate) fn fit_beside(&self, shape: Shape, taken: &BTreeSet<NodeId>) -> Option<NodeId> {
        let fitting = self.ids().filter(|node| {
            !taken.contains(node) && self.may_be_used(*node) && self.room(*node, shape) > 0
        });
        fitting.min_by_key(|node| self.free(*node).gpus)
    }

    /// The fewest free GPUs that are enough, and of those nodes one in the leaf with the fewest whole ones.
    fn fit_one(&self, shape: Shape, prefer: Option<&BTreeSet<NodeId>>) -> Option<NodeId> {
        for gpus in shape.task.gpus..=self.gpus_max {
            if self.by_free[gpus as usize] == 0 {
                continue;
            }
            let leaves = self.tree.leaves().map(|(leaf, _)| leaf);
            let mut leaves: Vec<(u32, LeafId)> = leaves
                .filter(|leaf| shape.zone.is_none_or(|only| self.tree.zone_of(*leaf) == only))
                .filter(|leaf| self.leaf_by_free[leaf.index()][gpus as usize] > 0)
                .map(|leaf| (self.leaf_whole[leaf.index()], leaf))
                .collect();
            leaves.sort_unstable();
            let nodes = leaves.iter().flat_map(|(_, leaf)| self.tree.at(*leaf)).copied();
            let mut fitting = nodes.filter(|node| {
                let free = self.free(*node);
                free.gpus == gpus
                    && self.may_be_used(*node)
                    && self.suits(*node, shape)
                    && self.room_in(*node, free, shape.per_node()) > 0
            });
            let is_far = |node: &NodeId| prefer.is_some_and(|nodes| !nodes.contains(node));
            let best = if self.is_mixed {
                // Of different sizes first one where somebody is, then the smallest: large ones are for large tasks.
                let size = |node: &NodeId| {
                    (self.used(*node) == Resources::default(), self.capacity(*node))
                };
                fitting.min_by_key(|node| (size(node), is_far(node)))
            } else {
                let Some(first) = fitting.next() else { continue };
                match is_far(&first) {
                    true => fitting.find(|node| !is_far(node)).or(Some(first)),
                    false => Some(first),
                }
            };
            if best.is_some() {
                return best;
            }
        }
        None
    }
}

impl Resources {
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            gpus: self.gpus + other.gpus,
            cpus: self.cpus + other.cpus,
            memory: self.memory + other.memory,
        }
    }

    /// Not below nothing.
    pub(crate) fn without(self, other: Self) -> Self {
        Self {
            gpus: self.gpus.saturating_sub(other.gpus),
            cpus: self.cpus.saturating_sub(other.cpus),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    pub(crate) fn times(self, tasks: u32) -> Self {
        Self { gpus: self.gpus * tasks, cpus: self.cpus * tasks, memory: self.memory * tasks }
    }

    pub(crate) fn fits_in(self, free: Self) -> bool {
        self.gpus <= free.gpus && self.cpus <= free.cpus && self.memory <= free.memory
    }

    /// How many of such tasks it has room for.
    pub(crate) fn room(self, task: Self) -> u32 {
        let by = |free: u32, each: u32| free.checked_div(each).unwrap_or(u32::MAX);
        let room = by(self.gpus, task.gpus).min(by(self.cpus, task.cpus));
        room.min(by(self.memory, task.memory))
    }
}

fn number(index: usize) -> NodeId {
    NodeId(u32::try_from(index).expect("a network has fewer nodes"))
}
