//! EASY: the first that does not fit has a reservation, and others go ahead if they do not delay it.

use std::collections::BTreeSet;

use crate::{
    event::Decision,
    job::{Job, Shape},
    placement::Placement,
    queue::Rank,
    scheduler::Scheduler,
};

/// When and where a job will start at the latest, if all keep to their time limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) at_ms: u64,
    pub(crate) placement: Placement,
}

impl Scheduler {
    /// When a run ends by its limit.
    fn ends_at(&self, job: &Job) -> Option<u64> {
        let limit = job.spec.limit_ms?;
        Some(job.started_ms()? + limit.saturating_sub(job.ran_ms))
    }

    /// None if jobs without limits are in the way.
    pub(crate) fn reservation(&self, first: &Job) -> Option<Reservation> {
        let mut ends: Vec<(u64, &Job)> = self
            .running
            .iter()
            .filter_map(|id| Some((self.ends_at(&self.jobs[id])?, &self.jobs[id])))
            .collect();
        ends.sort_unstable_by_key(|(at, job)| (*at, job.id));
        let mut later = self.cluster.clone();
        for (at, job) in ends {
            later.give(job.id, job.placement()?, job.spec.task);
            let spec = &first.spec;
            let across = self.may_lie_across();
            if let Some(placement) = later.fit(spec.shape(), spec.reads_much, across, None) {
                return Some(Reservation { at_ms: at.max(self.now), placement });
            }
        }
        None
    }

    /// Places all that wait and fit, in their order, if they end before the reservation of `first` begins or leave its
    /// nodes alone.
    pub(crate) fn backfill(&mut self, first: (Rank, Shape), out: &mut Vec<Decision>) {
        let (first, _) = first;
        let Some(reserved) = self.reservation(&self.jobs[&first.job]) else { return };
        let task = self.jobs[&first.job].spec.task;
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
            let job = &self.jobs[&rank.job];
            let is_short = job
                .spec
                .limit_ms
                .is_some_and(|limit| self.now + limit.saturating_sub(job.ran_ms) <= reserved.at_ms);
            if full.contains(&shape) || (!is_short && beside.contains(&shape)) {
                continue;
            }
            if self.is_parked(rank.job) {
                continue;
            }
            if !is_short {
                self.cluster.claim(&reserved.placement, task);
            }
            let placement = self.fit(rank.job);
            if !is_short {
                self.cluster.unclaim(&reserved.placement, task);
            }
            match placement {
                Some(placement) => self.start_waiting(rank.job, placement, out),
                None if is_short => _ = full.insert(shape),
                None => _ = beside.insert(shape),
            }
        }
    }
}
