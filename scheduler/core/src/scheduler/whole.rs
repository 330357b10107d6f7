//! Jobs with whole nodes, which know how many GPUs they have only when they have nodes; and nodes of other sizes.

use ff2_topology::NodeId;

use crate::{
    job::{JobId, JobSpec, State},
    placement::Placement,
    scheduler::Scheduler,
};

impl Scheduler {
    /// Takes in what a node has for jobs now. One that is not known or does not compute is passed over.
    pub(crate) fn resize(&mut self, node: NodeId, cpus: u32, memory: u32) {
        let before = self.cluster.knows(node).then(|| self.cluster.capacity(node));
        if before.is_none_or(|before| (before.cpus, before.memory) == (cpus, memory)) {
            return;
        }
        self.unclaim_where(|claim| claim.placement.has(node));
        if self.reserved.as_ref().is_some_and(|reserved| reserved.placement.has(node)) {
            self.reserved = None;
        }
        self.cluster.resize(node, cpus, memory);
        self.blocked.clear();
        self.expect_whole_nodes();
    }

    /// The least GPUs that a job needs, by the smallest nodes if it has whole ones.
    pub(crate) fn least_gpus(&self, spec: &JobSpec) -> u64 {
        if !spec.exclusive {
            return spec.gpus();
        }
        self.gpus_of_whole(spec).iter().take(spec.tasks as usize).sum()
    }

    /// The most GPUs that a job may get: what quotas have to have room for before it is known where it goes.
    pub(crate) fn most_gpus(&self, spec: &JobSpec) -> u64 {
        if !spec.exclusive {
            return spec.gpus();
        }
        self.gpus_of_whole(spec).iter().rev().take(spec.tasks as usize).sum()
    }

    /// Of the nodes that it may have, whoever is there, the smallest first.
    fn gpus_of_whole(&self, spec: &JobSpec) -> Vec<u64> {
        let shape = self.shape(spec);
        let nodes = self.cluster.ids().filter(|node| self.cluster.suits(*node, shape));
        let sizes = nodes.map(|node| self.cluster.capacity(node));
        let fitting = sizes.filter(|size| spec.task.fits_in(*size));
        let mut gpus: Vec<u64> = fitting.map(|size| size.gpus.into()).collect();
        gpus.sort_unstable();
        gpus
    }

    /// A job has no nodes: if it wants whole ones it may get the largest.
    pub(crate) fn may_have(&mut self, id: JobId) {
        let spec = &self.jobs[&id].spec;
        let most = spec.exclusive.then(|| self.most_gpus(spec));
        self.jobs.get_mut(&id).expect("it was just there").whole_gpus = most;
    }

    /// It is known which nodes a job gets.
    pub(crate) fn will_have(&mut self, id: JobId, placement: &Placement) {
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        if job.spec.exclusive {
            job.whole_gpus = Some(self.cluster.gpus_of(placement, job.spec.per_node()));
        }
    }

    /// Nodes have become others: so may be those that jobs get which wait for whole ones.
    pub(crate) fn expect_whole_nodes(&mut self) {
        let waits = |state: &State| matches!(state, State::Held | State::Pending);
        let jobs = self.jobs.values().filter(|job| job.spec.exclusive && waits(&job.state));
        let jobs: Vec<JobId> = jobs.map(|job| job.id).collect();
        let expected =
            |this: &Self| -> Vec<u64> { jobs.iter().map(|id| this.jobs[id].gpus()).collect() };
        let before = expected(self);
        jobs.iter().for_each(|id| self.may_have(*id));
        if expected(self) == before {
            return;
        }
        // It may be that a quota has room for them now.
        let keys: Vec<_> = self.quotas.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            if self.queue.unpark(&key, u64::MAX) {
                self.blocked.clear();
            }
        }
    }
}
