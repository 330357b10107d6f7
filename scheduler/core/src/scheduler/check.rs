//! What must hold after each step, whatever happened.

use std::collections::BTreeMap;

use ff2_topology::NodeId;

use crate::{
    cluster::NodeState,
    job::{Job, JobId, Resources, State},
    quota::Quotas,
    scheduler::Scheduler,
};

impl Scheduler {
    /// Looks through everything: for tests and simulations, as it takes as long as there are jobs and nodes.
    ///
    /// # Panics
    /// If anything does not hold.
    pub fn check(&self) {
        self.check_nodes();
        self.check_jobs();
        self.check_claims();
        self.check_quotas();
        self.check_slots();
        let across = self.jobs.iter().filter(|(id, job)| {
            let claimed = self.claims.get(id).map(|claim| &claim.placement);
            let mut lies = job.placement().into_iter().chain(claimed);
            lies.any(|placement| self.cluster.tree.is_across(placement))
        });
        let across: Vec<JobId> = across.map(|(id, _)| *id).collect();
        assert!(across.iter().eq(self.across.iter()), "jobs across zones: {across:?}");
        assert!(across.len() <= self.config.across_zones as usize, "{across:?} lie across zones");
    }

    /// No node has more than it holds, by tasks that run and those that it is promised to.
    fn check_nodes(&self) {
        let (mut used, mut later) = (BTreeMap::new(), BTreeMap::new());
        let add = |sums: &mut BTreeMap<NodeId, Resources>, node, more: Resources| {
            let sum = sums.entry(node).or_default();
            *sum = sum.with(more);
        };
        for job in self.jobs.values() {
            let goes = matches!(job.state, State::Stopping { .. });
            for slot in job.placement().into_iter().flat_map(|placement| &placement.slots) {
                let needs = self.cluster.taken(slot.node, job.spec.per_node(), slot.tasks);
                add(&mut used, slot.node, needs);
                if !goes {
                    add(&mut later, slot.node, needs);
                }
                let runs = matches!(job.state, State::Running { .. });
                let state = self.cluster.state(slot.node);
                let may_run = matches!(state, NodeState::Up | NodeState::Cordoned);
                assert!(!runs || may_run, "{:?} runs on {:?}, {state:?}", job.id, slot.node);
            }
        }
        for (id, claim) in &self.claims {
            for slot in &claim.placement.slots {
                let per_node = self.jobs[id].spec.per_node();
                let needs = self.cluster.taken(slot.node, per_node, slot.tasks);
                add(&mut later, slot.node, needs);
                let state = self.cluster.state(slot.node);
                assert_eq!(state, NodeState::Up, "{id:?} is promised {:?}", slot.node);
            }
        }
        for node in self.cluster.ids() {
            let of = |sums: &BTreeMap<_, _>| sums.get(&node).copied().unwrap_or_default();
            let (used, later) = (of(&used), of(&later));
            let capacity = self.cluster.capacity(node);
            assert_eq!(used, self.cluster.used(node), "{node:?} is counted wrong");
            // What becomes smaller keeps what it has, and gets nothing new.
            let is_closed = !self.cluster.may_be_used(node);
            assert!(
                used.fits_in(capacity) || is_closed,
                "{node:?} is overfull: {used:?} of {capacity:?}"
            );
            assert!(
                later.fits_in(capacity) || self.cluster.is_overfull(node),
                "{node:?} is promised twice: {later:?} of {capacity:?}"
            );
        }
        let (all, leaves, whole) = self.cluster.recounted();
        let counted = self.cluster.counted();
        assert_eq!(counted, (&all[..], &leaves[..], &whole[..]), "the counts by free GPUs");
    }

    /// Who was promised nodes has room there as soon as those are gone that it waits for, whoever else still stops.
    fn check_claims(&self) {
        for (id, claim) in &self.claims {
            let per_node = self.jobs[id].spec.per_node();
            for slot in &claim.placement.slots {
                let node = slot.node;
                let stays = |other: &&JobId| !claim.waits_for.contains(other);
                let mut used = self.cluster.taken(node, per_node, slot.tasks);
                for other in self.cluster.jobs(node).iter().filter(stays) {
                    let job = &self.jobs[other];
                    let slots = job.placement().into_iter().flat_map(|p| &p.slots);
                    let tasks = slots.filter(|slot| slot.node == node).map(|slot| slot.tasks);
                    let has = self.cluster.taken(node, job.spec.per_node(), tasks.sum());
                    used = used.with(has);
                }
                let capacity = self.cluster.capacity(node);
                assert!(used.fits_in(capacity), "{id:?} will have no room on {node:?}: {used:?}");
            }
        }
    }

    /// A gang has all of its tasks or none, and each job is where its state says.
    fn check_jobs(&self) {
        for (id, job) in &self.jobs {
            let claim = self.claims.get(id);
            let is_queued = self.queue.rank(*id).is_some();
            let tasks = job.placement().map(crate::Placement::tasks);
            assert!(
                tasks.is_none_or(|tasks| tasks == job.spec.tasks),
                "{id:?} has {tasks:?} tasks"
            );
            let mut nodes: Vec<_> = job.placement().into_iter().flat_map(|p| p.nodes()).collect();
            let several = nodes.len();
            nodes.sort_unstable();
            nodes.dedup();
            assert_eq!(nodes.len(), several, "{id:?} has a node twice");
            assert_eq!(is_queued, job.state == State::Pending, "{id:?} waits, or does not");
            assert_eq!(self.running.contains(id), matches!(job.state, State::Running { .. }));
            assert_eq!(self.stopping.contains(id), matches!(job.state, State::Stopping { .. }));
            match &job.state {
                State::Held | State::Pending | State::Running { .. } => {
                    assert!(claim.is_none(), "{id:?} needs no promise");
                }
                State::Claiming => assert!(claim.is_some(), "{id:?} waits for nothing"),
                State::Stopping { .. } => {}
            }
            assert!(!self.ended.contains_key(id), "{id:?} has ended and has not");
            self.check_whole(job);
        }
        for (id, claim) in &self.claims {
            assert!(!claim.waits_for.is_empty(), "{id:?} could start");
            assert_eq!(claim.placement.tasks(), self.jobs[id].spec.tasks);
            for other in &claim.waits_for {
                let stops = matches!(self.jobs[other].state, State::Stopping { .. });
                assert!(stops, "{id:?} waits for {other:?}, which does not stop");
            }
        }
        let limited =
            self.running.iter().filter_map(|id| Some((self.ends_at(&self.jobs[id])?, *id)));
        assert_eq!(self.ends, limited.collect(), "when runs end is counted wrong");
        assert_eq!(
            self.queue.len(),
            self.jobs.values().filter(|j| j.state == State::Pending).count()
        );
    }

    /// Who has whole nodes is alone there, and is charged for all that these have.
    fn check_whole(&self, job: &Job) {
        assert_eq!(job.whole_gpus.is_some(), job.spec.exclusive, "{:?} has whole nodes", job.id);
        let Some(nodes) = job.placement().filter(|_| job.spec.exclusive) else {
            let most = self.most_gpus(&job.spec);
            let waits = matches!(job.state, State::Held | State::Pending);
            assert!(!waits || job.gpus() == most, "{:?} may get {most} GPUs", job.id);
            return;
        };
        let gpus = nodes.nodes().map(|node| u64::from(self.cluster.capacity(node).gpus));
        assert_eq!(job.gpus(), gpus.sum::<u64>(), "{:?} is charged for what it has", job.id);
        for node in nodes.nodes() {
            assert_eq!(self.cluster.jobs(node), [job.id], "{:?} is alone on {node:?}", job.id);
        }
    }

    /// Who runs has the slot that it asked for, and nowhere is written more than there may be. Who stops has one if it
    /// was not killed at once.
    fn check_slots(&self) {
        for (id, job) in &self.jobs {
            let runs = matches!(job.state, State::Running { .. });
            let (stops, saves) =
                (matches!(job.state, State::Stopping { .. }), job.spec.checkpoint.is_some());
            let is_right = match job.slot {
                Some(_) => saves && (runs || stops),
                None => !(saves && runs),
            };
            assert!(is_right, "{id:?} has a slot, or should: {:?}", job.slot);
        }
        assert_eq!(self.wheel, self.counted_slots(), "the wheel is counted wrong");
        let (peak, limit) = (self.wheel.peak(), self.wheel.limit());
        let mean = self.wheel.mean();
        assert!(peak <= limit, "checkpoints write {peak} bytes/s, and {mean} in the mean");
    }

    fn check_quotas(&self) {
        for (key, has) in self.quotas.iter() {
            let counts = |id: &JobId| {
                let job = &self.jobs[id];
                let has = job.placement().is_some() || job.state == State::Claiming;
                has && Quotas::applies(key, &job.spec)
            };
            let ids = self.jobs.keys().filter(|id| counts(id));
            let used: u64 = ids.map(|id| self.jobs[id].gpus()).sum();
            assert_eq!(used, has.used, "{key:?} is counted wrong");
        }
    }
}
