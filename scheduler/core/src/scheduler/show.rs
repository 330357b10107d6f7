//! What others may look at.

use std::collections::{BTreeMap, BTreeSet};

use ff2_topology::{NodeId, ZoneId};

use crate::{
    cluster::NodeState,
    event::Decision,
    job::{Job, JobId, Outcome, Resources, State},
    ledger::Accounts,
    placement::Placement,
    quota::{Allowance, QuotaKey},
    scheduler::Scheduler,
    slots::CheckpointSlot,
    tree::Want,
};

impl Scheduler {
    /// The time of the last fact, ms.
    pub fn now_ms(&self) -> u64 {
        self.now
    }

    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Jobs that have not ended.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// When a running job writes its checkpoints, or one that stops its last; none if it does not run, or told nothing
    /// of them. A running job may have another one after any step.
    pub fn slot(&self, id: JobId) -> Option<CheckpointSlot> {
        self.jobs.get(&id)?.slot
    }

    /// How a job ended, as long as that is remembered.
    pub fn outcome(&self, id: JobId) -> Option<Outcome> {
        self.ended.get(&id).copied()
    }

    /// Jobs that wait in the queue, without those that are held or have nodes promised.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Jobs that run or stop on a node.
    pub fn jobs_on(&self, node: NodeId) -> &[JobId] {
        if self.cluster.knows(node) { self.cluster.jobs(node) } else { &[] }
    }

    /// What a node has for jobs, and what of it they have.
    pub fn size_of(&self, node: NodeId) -> (Resources, Resources) {
        if !self.cluster.knows(node) {
            return (Resources::default(), Resources::default());
        }
        (self.cluster.capacity(node), self.cluster.used(node))
    }

    /// What each task of a job has on a node where it lies.
    pub fn task_on(&self, job: &Job, node: NodeId) -> Resources {
        self.cluster.taken(node, job.spec.per_node(), 1)
    }

    pub fn tags_of(&self, node: NodeId) -> Vec<String> {
        if !self.cluster.knows(node) {
            return Vec::new();
        }
        self.tags.are_of(self.cluster.tags(node)).cloned().collect()
    }

    /// All tags that a node ever had.
    pub fn tags(&self) -> &[String] {
        self.tags.names()
    }

    /// Nodes whose caches hold an input, as far as was told.
    pub fn cached(&self, input: &str) -> Option<&BTreeSet<NodeId>> {
        self.caches.get(input)
    }

    /// Inputs of which it was told that caches hold them.
    pub fn inputs_cached(&self) -> impl Iterator<Item = &String> {
        self.caches.keys()
    }

    pub fn is_spare(&self, node: NodeId) -> bool {
        self.cluster.knows(node) && self.cluster.is_spare(node)
    }

    pub fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.cluster.knows(node).then(|| self.cluster.state(node))
    }

    /// GPUs of nodes that may be used, and how many of them nobody uses or is promised.
    pub fn gpus(&self) -> (u64, u64) {
        (self.cluster.usable_gpus(), self.cluster.free_gpus())
    }

    /// GPU time and cost of all users. What runs is charged once an hour and at its end.
    pub fn accounts(&self) -> &Accounts {
        &self.ledger.accounts
    }

    /// Of a group in the fair share.
    pub fn weight_of(&self, group: &str) -> u32 {
        self.shares.iter().find(|(name, _)| *name == group).map_or(1, |(_, share)| share.weight)
    }

    pub fn quotas(&self) -> BTreeMap<QuotaKey, Allowance> {
        self.quotas.iter().map(|(key, has)| (key.clone(), has)).collect()
    }

    /// How many leaves a placement has nodes at.
    pub fn leaves_of(&self, placement: &Placement) -> usize {
        self.cluster.tree.leaves_of(placement)
    }

    pub fn is_across_zones(&self, placement: &Placement) -> bool {
        self.cluster.tree.is_across(placement)
    }

    /// The most tasks of a gang that fit now, in one zone.
    pub fn largest_gang(&self, task: Resources) -> u64 {
        let room: Vec<u32> =
            self.cluster.ids().map(|node| self.cluster.free(node).room(task)).collect();
        let want = Want { tasks: u32::MAX, zone: None, spread: false, across: false };
        self.cluster.tree.most(&room, want)
    }

    /// When a job that waits starts at the latest, ms, if all that run keep to their limits and nobody goes before it.
    /// None if it does not wait, or jobs without limits are in its way.
    pub fn starts_by(&self, id: JobId) -> Option<u64> {
        let job = self.jobs.get(&id).filter(|job| job.state == State::Pending)?;
        if self.fit(id).is_some() {
            return Some(self.now);
        }
        self.reservation(job).map(|reserved| reserved.at_ms)
    }

    /// The decisions that are in force: what runs was placed, what stops was told so. For a new leader, who does not
    /// know which of them were carried out; agents know an attempt that they have.
    pub fn orders(&self) -> Vec<Decision> {
        self.jobs.values().filter_map(|job| self.order(job)).collect()
    }

    fn order(&self, job: &Job) -> Option<Decision> {
        let (id, attempt) = (job.id, job.attempt);
        match &job.state {
            State::Held | State::Pending | State::Claiming => None,
            State::Running { placement, .. } => Some(self.place_order(job, placement.clone())),
            State::Stopping { killed: true, cause, .. } => {
                Some(Decision::Kill { job: id, attempt, cause: *cause })
            }
            State::Stopping { cause, .. } => {
                // What is left of it.
                let grace_ms = job.killed_at_ms().unwrap_or(0).saturating_sub(self.now);
                Some(Decision::Suspend { job: id, attempt, grace_ms, cause: *cause })
            }
        }
    }

    pub(crate) fn place_order(&self, job: &Job, placement: Placement) -> Decision {
        let tree = &self.cluster.tree;
        let leaves = placement.nodes().filter_map(|node| tree.leaf_of(node));
        let mut zones: Vec<ZoneId> = leaves.map(|leaf| tree.zone_of(leaf)).collect();
        zones.dedup();
        let (attempt, resumes) = (job.attempt, job.attempt > 1);
        Decision::Place { job: job.id, attempt, resumes, placement, zones }
    }
}
