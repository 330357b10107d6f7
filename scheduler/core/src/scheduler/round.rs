//! What a round of plans works with: all that runs as it stands now, and what nodes cost that were looked at before.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use ff2_topology::NodeId;

use crate::{
    cluster::Cluster,
    job::{Job, JobId, Priority, Resources, Shape},
    limits,
    scheduler::Scheduler,
};

/// What counts of a job that runs, as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    pub(crate) priority: Priority,
    pub(crate) band: u32,
    pub(crate) gpus: u64,
    stoppable: Stoppable,
}

/// Whether a run may be preempted, and ran as long as it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stoppable {
    /// For one of a higher priority, and for one of its own.
    for_higher: bool,
    for_equal: bool,
    /// For one of a higher priority that waited for as long as runs last at least: what began since is not spared, or
    /// there would always be some, somewhere, that may not be stopped yet, and a large gang would never run.
    for_patient: bool,
}

/// A run in a round, by its place among all: in the order of their jobs.
pub(crate) type RunAt = usize;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) id: JobId,
    pub(crate) standing: Standing,
    /// It was told to go in this round.
    is_told: bool,
}

/// A job that may have to go, as a node sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) run: RunAt,
    pub(crate) id: JobId,
    pub(crate) standing: Standing,
    /// Of this node.
    pub(crate) held: Resources,
    /// It has tasks on no other node.
    pub(crate) is_here_only: bool,
}

/// Whom a job may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claimant {
    pub(crate) priority: Priority,
    pub(crate) band: u32,
    /// It waited long enough to stop jobs of its own priority.
    pub(crate) is_patient: bool,
    /// It waited as long as any run lasts at least.
    pub(crate) outwaits: bool,
}

/// What a task costs others: the smallest is taken. The victims' highest priority, their best band, the oldest of them,
/// the GPUs that they lose, and how many they are. Old ones are spared before many are: in the last band, where the
/// long jobs are, those end first that came first, so the longest times to the end stay short.
pub(crate) type Price = (Priority, Reverse<u32>, Reverse<JobId>, u64, usize);

/// Nodes by price, the cheapest first. Prices may have changed since.
pub(crate) type Prices = BinaryHeap<Reverse<(Price, NodeId)>>;

#[derive(Debug, Default)]
pub(crate) struct Round {
    /// By node, who goes first before others.
    by_node: Vec<Vec<Candidate>>,
    runs: Vec<Run>,
    /// Which standings there are, however many jobs have them.
    kinds: BTreeSet<(Priority, u32, Stoppable)>,
    prices: BTreeMap<(Shape, Claimant), Prices>,
    /// What those have on each node that were told to stop.
    pub(crate) stopping: BTreeMap<NodeId, Resources>,
    plans: u32,
}

impl Scheduler {
    pub(crate) fn new_round(&self) -> Round {
        let mut round =
            Round { by_node: vec![Vec::new(); self.cluster.ids().count()], ..Round::default() };
        for id in &self.running {
            let job = &self.jobs[id];
            let standing = self.standing(job);
            let slots = job.placement().map_or(&[][..], |placement| &placement.slots);
            for slot in slots {
                round.by_node[slot.node.index()].push(Candidate {
                    run: round.runs.len(),
                    id: *id,
                    standing,
                    held: self.cluster.taken(slot.node, job.spec.per_node(), slot.tasks),
                    is_here_only: slots.len() == 1,
                });
            }
            round.kinds.insert((standing.priority, standing.band, standing.stoppable));
            round.runs.push(Run { id: *id, standing, is_told: false });
        }
        self.stopping.iter().for_each(|id| round.stops(&self.jobs[id], &self.cluster));
        for candidates in &mut round.by_node {
            candidates.sort_unstable_by_key(|Candidate { id, standing, .. }| {
                (standing.priority, Reverse(standing.band), Reverse(standing.gpus), Reverse(*id))
            });
        }
        round
    }

    fn standing(&self, job: &Job) -> Standing {
        let ran = self.now - job.since_ms;
        let bands = self.config.policy.bands().filter(|_| job.spec.preemptible);
        Standing {
            priority: job.spec.priority,
            band: self.band(job),
            gpus: job.gpus(),
            stoppable: Stoppable {
                for_higher: bands.is_some_and(|bands| ran >= bands.min_run(job)),
                for_equal: bands.is_some_and(|bands| ran >= bands.min_run_for_equal(job)),
                for_patient: bands.is_some() && ran >= job.spec.min_run_ms,
            },
        }
    }
}

impl Round {
    /// Jobs on a node that have not been told to go.
    pub(crate) fn at(&self, node: NodeId) -> impl Iterator<Item = &Candidate> {
        let candidates = self.by_node[node.index()].iter();
        candidates.filter(|candidate| !self.runs[candidate.run].is_told)
    }

    pub(crate) fn run(&self, at: RunAt) -> &Run {
        &self.runs[at]
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn has_anybody_for(&self, claimant: Claimant) -> bool {
        self.kinds
            .iter()
            .any(|(priority, band, stoppable)| claimant.may_stop_kind(*priority, *band, *stoppable))
    }

    /// A job is told to go.
    pub(crate) fn remove(&mut self, id: JobId, job: &Job, cluster: &Cluster) {
        let at =
            self.runs.binary_search_by_key(&id, |run| run.id).expect("it ran when the round began");
        self.runs[at].is_told = true;
        self.stops(job, cluster);
    }

    fn stops(&mut self, job: &Job, cluster: &Cluster) {
        for slot in job.placement().map_or(&[][..], |placement| &placement.slots) {
            let has = self.stopping.entry(slot.node).or_default();
            *has = has.with(cluster.taken(slot.node, job.spec.per_node(), slot.tasks));
        }
    }

    /// Whether there may be another plan in this round.
    pub(crate) fn is_open(&self) -> bool {
        self.plans < limits::PLANS_MAX
    }

    pub(crate) fn planned(&mut self) {
        self.plans += 1;
    }

    pub(crate) fn take_prices(&mut self, of: (Shape, Claimant)) -> Option<Prices> {
        self.prices.remove(&of)
    }

    pub(crate) fn keep_prices(&mut self, of: (Shape, Claimant), prices: Prices) {
        self.prices.insert(of, prices);
    }
}

impl Claimant {
    pub(crate) fn may_stop(&self, victim: &Standing) -> bool {
        self.may_stop_kind(victim.priority, victim.band, victim.stoppable)
    }

    fn may_stop_kind(&self, priority: Priority, band: u32, stoppable: Stoppable) -> bool {
        if priority < self.priority {
            // What takes only what is left over is stopped at once.
            let is_idle = priority == Priority::Idle;
            return stoppable.for_higher || is_idle || (self.outwaits && stoppable.for_patient);
        }
        priority == self.priority && band > self.band && self.is_patient && stoppable.for_equal
    }
}

impl Standing {
    /// Services stay where they are reached; what takes only what is left over may go anywhere.
    pub(crate) fn may_move(&self) -> bool {
        self.stoppable.for_equal || self.priority == Priority::Idle
    }
}
