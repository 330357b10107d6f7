//! EASY: the first that does not fit has a reservation, and others go ahead if they do not delay it.

use std::collections::BTreeSet;

use ff2_topology::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    event::Decision,
    job::{Job, JobId, Shape},
    placement::Placement,
    queue::Rank,
    scheduler::Scheduler,
};

/// So many of a shape are looked at for one that is short enough.
const BEHIND_MAX: usize = 64;

/// When and where a job will start at the latest, if all keep to their time limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) job: JobId,
    pub(crate) at_ms: u64,
    pub(crate) placement: Placement,
}

impl Scheduler {
    /// When a run ends by its limit.
    pub(crate) fn ends_at(&self, job: &Job) -> Option<u64> {
        let limit = job.spec.limit_ms?;
        Some(job.started_ms()? + limit.saturating_sub(job.ran_ms))
    }

    /// None if jobs without limits are in the way.
    pub(crate) fn reservation(&self, first: &Job) -> Option<Reservation> {
        if self.ends.is_empty() {
            return None;
        }
        let mut later = self.cluster.clone();
        for (at, id) in &self.ends {
            let job = &self.jobs[id];
            later.give(job.id, job.placement()?, job.spec.per_node());
            let spec = &first.spec;
            let across = self.may_lie_across();
            if let Some(placement) = later.fit(self.shape(spec), spec.reads_much, across, None) {
                return Some(Reservation { job: first.id, at_ms: (*at).max(self.now), placement });
            }
        }
        None
    }

    /// Places all that wait and fit, in their order, if they end before the reservation of `first` begins or leave its
    /// nodes alone.
    pub(crate) fn backfill(&mut self, first: (Rank, Shape), out: &mut Vec<Decision>) {
        let (first, _) = first;
        let Some(reserved) = self.reservation(&self.jobs[&first.job]) else { return };
        let per_node = self.jobs[&first.job].spec.per_node();
        let mut others: Vec<(Rank, Shape)> = self
            .queue
            .shapes()
            .filter(|(shape, _)| self.cluster.room_at_most(shape.task) >= u64::from(shape.tasks))
            .flat_map(|(shape, set)| set.iter().map(|rank| (*rank, *shape)))
            .collect();
        others.sort_unstable();
        // Shapes that do not fit at all, and those that do not fit beside the reservation.
        let (mut full, mut beside) = (BTreeSet::new(), BTreeSet::new());
        for (rank, shape) in others.into_iter().filter(|(rank, _)| *rank != first) {
            let is_short = self.ends_before(&self.jobs[&rank.job], reserved.at_ms);
            if full.contains(&shape) || (!is_short && beside.contains(&shape)) {
                continue;
            }
            if self.is_parked(rank.job) {
                continue;
            }
            if !is_short {
                self.cluster.claim(&reserved.placement, per_node);
            }
            let placement = self.fit(rank.job);
            if !is_short {
                self.cluster.unclaim(&reserved.placement, per_node);
            }
            match placement {
                Some(placement) => self.start_waiting(rank.job, placement, out),
                None if is_short => _ = full.insert(shape),
                None => _ = beside.insert(shape),
            }
        }
    }

    fn ends_before(&self, job: &Job, at_ms: u64) -> bool {
        let limit = job.spec.limit_ms;
        limit.is_some_and(|limit| self.now + limit.saturating_sub(job.ran_ms) <= at_ms)
    }

    /// With bands: a job that could stop or move nobody is promised nodes if limits tell when they are free. One job
    /// at a time, the first by rank.
    pub(crate) fn reserve_for(&mut self, id: JobId) {
        let Some(bands) = self.config.policy.bands() else { return };
        let job = &self.jobs[&id];
        // Until its patience is over it may still stop others.
        if self.reserved.is_none() && self.now - job.since_ms >= bands.patience_ms {
            self.reserved = self.reservation(job);
        }
    }

    /// A reservation that a job would delay if it took its nodes.
    fn reserved_from(&self, id: JobId) -> Option<&Reservation> {
        let reserved = self.reserved.as_ref()?;
        let may = reserved.job == id || self.ends_before(&self.jobs[&id], reserved.at_ms);
        (!may).then_some(reserved)
    }

    /// Nodes that plans for a job leave alone.
    pub(crate) fn avoided(&self, id: JobId) -> BTreeSet<NodeId> {
        let reserved = self.reserved_from(id).into_iter();
        reserved.flat_map(|reserved| reserved.placement.nodes()).collect()
    }

    /// Starts a job that waits if it fits now, and beside the reservation unless it ends before that begins.
    pub(crate) fn place_beside_reservation(&mut self, id: JobId, out: &mut Vec<Decision>) -> bool {
        let Some(reserved) = self.reserved_from(id).cloned() else { return self.place(id, out) };
        let per_node = self.jobs[&reserved.job].spec.per_node();
        self.cluster.claim(&reserved.placement, per_node);
        let placement = self.fit(id);
        self.cluster.unclaim(&reserved.placement, per_node);
        let Some(placement) = placement else { return false };
        self.start_waiting(id, placement, out);
        true
    }

    /// After one that did not fit beside the reservation: the next of its shape that ends before that begins.
    pub(crate) fn next_short(&self, shape: &Shape, after: Rank) -> Option<Rank> {
        let at_ms = self.reserved_from(after.job)?.at_ms;
        let behind = self.queue.behind(shape, after).take(BEHIND_MAX);
        behind.into_iter().find(|rank| self.ends_before(&self.jobs[&rank.job], at_ms))
    }
}
