//! Moves small jobs together so that one that waits fits: the only reason for which a running job is moved.

use std::collections::BTreeSet;

use ff2_topology::NodeId;

use crate::{
    event::Decision,
    job::{Cause, JobId, Resources},
    per_node::PerNode,
    placement::{Placement, Slot},
    scheduler::{Scheduler, round::Round},
    tree::Want,
};

/// A job and the node that it goes to.
type Move = (JobId, NodeId);

impl Scheduler {
    /// Has jobs move so that one starts that waits, if what moves is at most half of what starts.
    pub(crate) fn consolidate_for(
        &mut self,
        id: JobId,
        round: &mut Round,
        out: &mut Vec<Decision>,
    ) -> bool {
        let Some((placement, moves)) = self.plan_moves(id, round) else { return false };
        let gpus = self.jobs[&id].gpus();
        self.claim_for(id, placement, Vec::new(), out);
        let cause = Cause::Moved { to_start: id, gpus };
        for (moved, to) in moves {
            round.remove(moved, &self.jobs[&moved], &self.cluster);
            let to =
                Placement { slots: vec![Slot { node: to, tasks: self.jobs[&moved].spec.tasks }] };
            self.claims.get_mut(&id).expect("it was just made").waits_for.insert(moved);
            self.claim_move(moved, to, cause, out);
        }
        true
    }

    fn plan_moves(&self, id: JobId, round: &Round) -> Option<(Placement, Vec<Move>)> {
        let job = &self.jobs[&id];
        let spec = &job.spec;
        let bands = self.config.policy.bands()?;
        let is_patient = self.now - job.since_ms >= bands.patience_ms;
        // Not enough is free in all: nothing is won by moving it about.
        if !bands.consolidates || !is_patient || self.cluster.free_gpus() < self.least_gpus(spec) {
            return None;
        }
        let avoided = self.avoided(id);
        let nodes = self.cluster.ids().filter(|node| self.cluster.may_be_used(*node));
        let nodes: Vec<NodeId> = nodes.filter(|node| !avoided.contains(node)).collect();
        // What is reserved is no place to move to, either.
        let all = self.reserved.iter().flat_map(|reserved| reserved.placement.nodes());
        let all: BTreeSet<NodeId> = all.collect();
        let free = |node: NodeId| match all.contains(&node) {
            true => Resources::default(),
            false => self.cluster.free(node),
        };
        let mut free: Vec<Resources> = self.cluster.ids().map(free).collect();
        let mut moves: Vec<Move> = Vec::new();
        let mut budget = job.gpus() / 2;
        let (shape, per_node) = (self.shape(spec), spec.per_node());
        let want = Want {
            tasks: spec.tasks,
            zone: spec.zone,
            spread: spec.reads_much,
            across: self.may_lie_across(),
        };
        loop {
            let room = |(node, free): (NodeId, &Resources)| match self.cluster.suits(node, shape) {
                true => self.cluster.room_in(node, *free, per_node),
                false => 0,
            };
            let room: Vec<u32> = self.cluster.ids().zip(&free).map(room).collect();
            if let Some(placement) = self.cluster.tree.lay(&room, want) {
                return (!moves.is_empty()).then_some((placement, moves));
            }
            let full = |node: &&NodeId| {
                self.cluster.room_in(**node, free[node.index()], per_node) == 0
                    && free[node.index()].gpus > 0
                    && spec.task.fits_in(self.cluster.capacity(**node))
                    && self.cluster.suits(**node, shape)
            };
            let cheapest = nodes.iter().filter(full).filter_map(|node| {
                let moved = self.clear(*node, per_node, &free, &moves, round, budget)?;
                Some((moved.iter().map(|(id, _)| self.jobs[id].gpus()).sum::<u64>(), *node, moved))
            });
            let (gpus, node, moved) = cheapest.min()?;
            budget -= gpus;
            for (id, to) in &moved {
                let task = self.jobs[id].spec.task.times(self.jobs[id].spec.tasks);
                free[node.index()] = free[node.index()].with(task);
                free[to.index()] = free[to.index()].without(task);
            }
            moves.extend(moved);
        }
    }

    /// Which jobs would go where so that a node has room for a task: the largest first that are not too large.
    fn clear(
        &self,
        node: NodeId,
        per_node: PerNode,
        free: &[Resources],
        before: &[Move],
        round: &Round,
        budget: u64,
    ) -> Option<Vec<Move>> {
        let task = per_node.takes(1, self.cluster.capacity(node));
        let missing = task.gpus.saturating_sub(free[node.index()].gpus);
        if u64::from(missing) > budget {
            return None;
        }
        let movable = round.at(node).filter(|candidate| {
            // Who has a whole node would only have another one instead.
            candidate.is_here_only
                && !self.jobs[&candidate.id].spec.exclusive
                && candidate.standing.may_move()
                && before.iter().all(|(moved, _)| *moved != candidate.id)
        });
        let mut movable: Vec<(u64, JobId)> =
            movable.map(|candidate| (candidate.standing.gpus, candidate.id)).collect();
        if movable.iter().map(|(gpus, _)| gpus).sum::<u64>() < u64::from(missing) {
            return None;
        }
        movable.sort_unstable_by_key(|(gpus, id)| (std::cmp::Reverse(*gpus), *id));
        let mut free = free.to_vec();
        let (mut moved, mut sum) = (Vec::new(), 0);
        // Largest first, but none that is larger than what is missing as long as smaller ones are enough.
        let fitting: Vec<_> =
            movable.iter().filter(|(gpus, _)| *gpus <= u64::from(missing)).collect();
        let larger = movable.iter().rev().filter(|(gpus, _)| *gpus > u64::from(missing));
        for (gpus, id) in fitting.into_iter().chain(larger) {
            if task.fits_in(free[node.index()]) {
                break;
            }
            let spec = &self.jobs[id].spec;
            let whole = spec.task.times(spec.tasks);
            if sum + gpus > budget {
                continue;
            }
            // What others leave is not free before they are gone, and nobody waits for that but the one that starts.
            let is_left = |other: NodeId| {
                let lies =
                    |moved: &Move| self.jobs[&moved.0].placement().is_some_and(|p| p.has(other));
                other == node || before.iter().any(lies)
            };
            let room = |node: NodeId, left| self.cluster.room_in(node, left, per_node);
            let others = self.cluster.ids().filter(|other| !is_left(*other));
            let others = others.filter(|other| {
                let left = free[other.index()];
                // A node that has room for the task already is not filled up.
                whole.fits_in(left)
                    && self.cluster.suits(*other, self.shape(spec))
                    && room(*other, left) == room(*other, left.without(whole))
            });
            let Some(to) = others.min_by_key(|other| (free[other.index()].gpus, *other)) else {
                continue;
            };
            free[to.index()] = free[to.index()].without(whole);
            free[node.index()] = free[node.index()].with(whole);
            moved.push((*id, to));
            sum += gpus;
        }
        task.fits_in(free[node.index()]).then_some(moved)
    }
}
