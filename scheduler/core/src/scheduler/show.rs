//! What others may look at.

use std::collections::BTreeMap;

use ff2_topology::NodeId;

use crate::{
    cluster::NodeState,
    job::{Job, JobId, Outcome},
    ledger::Accounts,
    placement::Placement,
    quota::{Allowance, QuotaKey},
    scheduler::Scheduler,
};

impl Scheduler {
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Jobs that have not ended.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// How a job ended, as long as that is remembered.
    pub fn outcome(&self, id: JobId) -> Option<Outcome> {
        self.ended.get(&id).copied()
    }

    /// Jobs that wait in the queue, without those that are held or have nodes promised.
    pub fn waiting(&self) -> usize {
        self.queue.len()
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
}
