//! Nodes that come, go, and are kept free.

use ff2_topology::NodeId;

use crate::{
    cluster::NodeState,
    event::{Decision, Scope},
    job::{Cause, JobId, State, Then},
    placement::{Placement, Slot},
    scheduler::Scheduler,
};

impl Scheduler {
    /// Changes the state of a node or of all at a leaf. Nodes that are not known or do not compute are passed over.
    pub(crate) fn set_nodes(&mut self, scope: Scope, state: NodeState, out: &mut Vec<Decision>) {
        let nodes: Vec<NodeId> = match scope {
            Scope::Node(node) => vec![node],
            Scope::Leaf(leaf) => {
                let at = self.cluster.tree.leaves().find(|(other, _)| *other == leaf);
                at.map(|(_, nodes)| nodes.to_vec()).unwrap_or_default()
            }
        };
        for node in nodes.into_iter().filter(|node| self.cluster.knows(*node)).collect::<Vec<_>>() {
            self.set_node(node, state, out);
        }
    }

    fn set_node(&mut self, node: NodeId, state: NodeState, out: &mut Vec<Decision>) {
        let before = self.cluster.state(node);
        if before == state {
            return;
        }
        let spare = self.cluster.is_spare(node);
        self.cluster.set_state(node, state, spare);
        self.blocked.clear();
        if state != NodeState::Up {
            self.unclaim_where(|claim| claim.placement.has(node));
        }
        let cause = match state {
            NodeState::Up | NodeState::Cordoned => return,
            NodeState::Draining | NodeState::Quarantined => Cause::Drained { node },
            NodeState::Down => Cause::NodeFailed { node },
        };
        for id in self.cluster.jobs(node).to_vec() {
            match &mut self.jobs.get_mut(&id).expect("it has nodes").state {
                State::Running { .. } => self.stop(id, cause, Then::Replace, out),
                State::Stopping { killed, .. } if state == NodeState::Down && !*killed => {
                    *killed = true;
                    let attempt = self.jobs[&id].attempt;
                    out.push(Decision::Kill { job: id, attempt, cause });
                    self.set_timer(id);
                }
                State::Stopping { .. } | State::Held | State::Pending | State::Claiming => {}
            }
        }
    }

    /// What runs there goes on, though it may need a tag that is gone.
    pub(crate) fn set_tags(&mut self, node: NodeId, tags: &[String]) {
        if self.cluster.knows(node) {
            let tags = self.tags.set(tags);
            self.cluster.set_tags(node, tags);
            self.blocked.clear();
            self.expect_whole_nodes();
        }
    }

    /// Keeps so many nodes free for those that fail, from when they are idle.
    pub(crate) fn set_spares(&mut self, count: u32) {
        self.spares_wanted = count;
        let spares = self.cluster.ids().filter(|node| self.cluster.is_spare(*node));
        for node in spares.skip(count as usize).collect::<Vec<_>>() {
            self.cluster.set_state(node, self.cluster.state(node), false);
            self.blocked.clear();
        }
    }

    /// Makes idle nodes spares as long as there are fewer than are wanted, at leaves that have the fewest. While a job
    /// waits that lost a node there are none: it may have them.
    pub(crate) fn keep_spares(&mut self) {
        while self.cluster.spares() < self.spares_wanted && self.ahead.is_empty() {
            let of = |leaf: &[NodeId]| leaf.iter().filter(|n| self.cluster.is_spare(**n)).count();
            let leaves = self.cluster.tree.leaves();
            let idle = leaves.filter_map(|(_, nodes)| {
                let idle = nodes.iter().find(|node| self.cluster.is_idle(**node))?;
                Some((of(nodes), *idle))
            });
            let Some((_, node)) = idle.min() else { return };
            self.cluster.set_state(node, NodeState::Up, true);
        }
    }

    fn let_spares_go(&mut self) {
        let spares = self.cluster.ids().filter(|node| self.cluster.is_spare(*node));
        for node in spares.collect::<Vec<_>>() {
            self.cluster.set_state(node, self.cluster.state(node), false);
        }
        self.blocked.clear();
    }

    /// A job that lost nodes goes on at once: on those it keeps, and on others instead of those it lost.
    pub(crate) fn replace(&mut self, id: JobId, before: &Placement, out: &mut Vec<Decision>) {
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        job.ahead = true;
        let job = &self.jobs[&id];
        let placement = self.instead(before, id).filter(|placement| {
            let gpus = self.cluster.gpus_of(placement, job.spec.per_node());
            self.quotas.blocks(&job.spec, gpus).is_none()
        });
        let Some(placement) = placement else {
            self.ahead.insert(id);
            self.let_spares_go();
            self.wait(id);
            self.hurry(id);
            return;
        };
        for node in placement.nodes().collect::<Vec<_>>() {
            if self.cluster.is_spare(node) {
                self.cluster.set_state(node, NodeState::Up, false);
                self.blocked.clear();
            }
        }
        self.will_have(id, &placement);
        self.take_quota(id);
        self.start(id, placement, out);
    }

    /// Free nodes first, then spares; of these the nearest to the one that was lost.
    fn instead(&self, before: &Placement, id: JobId) -> Option<Placement> {
        let per_node = self.jobs[&id].spec.per_node();
        let shape = self.shape(&self.jobs[&id].spec);
        let has_room = |node: NodeId, tasks: u32| {
            let left = self.cluster.left(node);
            !self.cluster.is_overfull(node)
                && self.cluster.room_in(node, left, per_node) > 0
                && self.cluster.taken(node, per_node, tasks).fits_in(left)
        };
        let is_kept = |slot: &&Slot| {
            self.cluster.state(slot.node) == NodeState::Up && has_room(slot.node, slot.tasks)
        };
        let (mut slots, lost): (Vec<Slot>, Vec<Slot>) =
            before.slots.iter().partition(|slot| is_kept(slot));
        let tree = &self.cluster.tree;
        for Slot { node: lost, tasks } in lost {
            let is_fit = |node: &NodeId| {
                self.cluster.state(*node) == NodeState::Up
                    && self.cluster.suits(*node, shape)
                    && has_room(*node, tasks)
                    && slots.iter().all(|slot| slot.node != *node)
            };
            let leaf = tree.leaf_of(lost)?;
            let distance = |node: &NodeId| {
                let other = tree.leaf_of(*node).expect("it has room");
                let far = (
                    tree.zone_of(other) != tree.zone_of(leaf),
                    tree.pod_of(other) != tree.pod_of(leaf),
                    other != leaf,
                );
                (self.cluster.is_spare(*node), far, *node)
            };
            let node = self.cluster.ids().filter(is_fit).min_by_key(distance)?;
            slots.push(Slot { node, tasks });
        }
        let placement = tree.ordered(slots);
        let spec = &self.jobs[&id].spec;
        let in_zone = |node: NodeId| {
            spec.zone
                .is_none_or(|only| tree.leaf_of(node).map(|leaf| tree.zone_of(leaf)) == Some(only))
        };
        let across = !tree.is_across(&placement) || self.may_lie_across();
        (across && placement.nodes().all(in_zone)).then_some(placement)
    }

    pub(crate) fn may_lie_across(&self) -> bool {
        self.across.len() < self.config.across_zones as usize
    }
}
