//! Places what fits, in the order of rank.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use ff2_topology::NodeId;

use crate::{
    event::Decision,
    job::{JobId, Many, Member, Shape},
    placement::{Placement, Slot},
    policy::Policy,
    queue::Rank,
    scheduler::{Scheduler, round::Round},
};

/// After a round of plans that had no end.
const AGAIN_MS: u64 = 1_000;

/// For whom others may have to make room in a pass.
#[derive(Clone, Copy, Debug)]
enum Plans {
    None,
    /// Those that go no later than this.
    UpTo(Rank),
    All,
}

impl Plans {
    fn are_for(self, rank: Rank) -> bool {
        match self {
            Self::None => false,
            Self::UpTo(last) => rank <= last,
            Self::All => true,
        }
    }
}

impl Scheduler {
    pub(crate) fn pass(&mut self, out: &mut Vec<Decision>) {
        let urgent = self.urgent.take();
        match self.config.policy {
            Policy::Fifo => {
                self.pass_in_order(out);
            }
            Policy::Easy => {
                if let Some(first) = self.pass_in_order(out) {
                    self.backfill(first, out);
                }
            }
            Policy::Bands(bands) => {
                let is_due = self.plans_are_due_at().is_some_and(|due| due <= self.now);
                // A round that is due comes with the next step: what is urgent does not wait for it.
                let plans = match urgent {
                    Some(last) => Plans::UpTo(last),
                    None if is_due => Plans::All,
                    None => Plans::None,
                };
                if matches!(plans, Plans::All) {
                    self.plan_at = self.now + bands.plan_every_ms;
                    self.blocked.clear();
                    self.reserved = None;
                }
                self.pass_by_rank(plans, out);
            }
        }
    }

    /// None while nobody waits who could use a plan.
    pub(crate) fn plans_are_due_at(&self) -> Option<u64> {
        let waits = self.config.policy.bands().is_some() && self.queue.shapes().next().is_some();
        waits.then_some(self.plan_at)
    }

    /// Places jobs until the first that does not fit, which it returns.
    fn pass_in_order(&mut self, out: &mut Vec<Decision>) -> Option<(Rank, Shape)> {
        loop {
            let heads =
                self.queue.shapes().filter_map(|(shape, set)| Some((*set.first()?, *shape)));
            let (rank, shape) = heads.min()?;
            if self.is_parked(rank.job) || self.place(rank.job, out) {
                continue;
            }
            return Some((rank, shape));
        }
    }

    /// Places jobs of all shapes; the first of a shape that does not fit speaks for the rest of it.
    fn pass_by_rank(&mut self, plans: Plans, out: &mut Vec<Decision>) {
        let heads = self.queue.shapes().filter_map(|(shape, set)| Some((*set.first()?, *shape)));
        let is_open =
            |(rank, shape): &(Rank, Shape)| plans.are_for(*rank) || !self.blocked.contains(shape);
        let mut heads: BinaryHeap<Reverse<(Rank, Shape)>> =
            heads.filter(is_open).map(Reverse).collect();
        let mut round = None;
        while let Some(Reverse((rank, shape))) = heads.pop() {
            let plans = plans.are_for(rank);
            let is_done = self.is_parked(rank.job)
                || self.place_beside_reservation(rank.job, out)
                || (plans && {
                    let round = round.get_or_insert_with(|| self.new_round());
                    self.plan_for(rank.job, round, out)
                });
            let next = match is_done {
                true => self.queue.first_of(&shape),
                false => self.next_short(&shape, rank),
            };
            if plans && !is_done {
                self.reserve_for(rank.job);
            }
            match next {
                Some(next) => heads.push(Reverse((next, shape))),
                None if is_done => {}
                None => _ = self.blocked.insert(shape),
            }
        }
    }

    fn plan_for(&mut self, id: JobId, round: &mut Round, out: &mut Vec<Decision>) -> bool {
        if !round.is_open() {
            self.plan_at = self.plan_at.min(self.now + AGAIN_MS);
            return false;
        }
        // To move a few costs nobody a turn.
        let is_planned = self.consolidate_for(id, round, out) || self.preempt_for(id, round, out);
        if is_planned {
            round.planned();
        }
        is_planned
    }

    /// Whether a quota holds a job, which then is not looked at before that has room.
    pub(crate) fn is_parked(&mut self, id: JobId) -> bool {
        let job = &self.jobs[&id];
        let Some((key, _)) = self.quotas.blocks(&job.spec, job.gpus()) else { return false };
        let key = key.clone();
        self.queue.park(id, key);
        true
    }

    /// Starts a job that waits, if it fits now.
    pub(crate) fn place(&mut self, id: JobId, out: &mut Vec<Decision>) -> bool {
        let Some(placement) = self.fit(id) else { return false };
        self.start_waiting(id, placement, out);
        true
    }

    pub(crate) fn start_waiting(
        &mut self,
        id: JobId,
        placement: Placement,
        out: &mut Vec<Decision>,
    ) {
        self.leave_queue(id);
        self.will_have(id, &placement);
        self.take_quota(id);
        self.start(id, placement, out);
    }

    pub(crate) fn fit(&self, id: JobId) -> Option<Placement> {
        let spec = &self.jobs[&id].spec;
        if let Some(apart) = self.fit_apart(id) {
            return Some(apart);
        }
        let cached = self.cached_any(&spec.inputs);
        let prefer = (!cached.is_empty()).then_some(&cached);
        self.cluster.fit(self.shape(spec), spec.reads_much, self.may_lie_across(), prefer)
    }

    /// Replicas of a service stand in for each other, so they are on nodes of their own where there are any. Only those
    /// without GPUs: of the others each new node would cost a large job its room.
    fn fit_apart(&self, id: JobId) -> Option<Placement> {
        let job = &self.jobs[&id];
        let Member { first, of: Many::Service { .. }, .. } = job.member? else { return None };
        if job.spec.tasks != 1 || job.spec.task.gpus > 0 {
            return None;
        }
        let others = self.members.get(&first)?.iter().filter_map(|id| self.jobs[id].placement());
        let taken: BTreeSet<NodeId> = others.flat_map(Placement::nodes).collect();
        let node = self.cluster.fit_beside(self.shape(&job.spec), &taken)?;
        Some(Placement { slots: vec![Slot { node, tasks: 1 }] })
    }

    /// Nodes whose caches hold any of these inputs.
    fn cached_any(&self, inputs: &[String]) -> BTreeSet<NodeId> {
        inputs.iter().filter_map(|input| self.caches.get(input)).flatten().copied().collect()
    }
}
