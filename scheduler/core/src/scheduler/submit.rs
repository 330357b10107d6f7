//! Submissions, cancellations, and what members of one submission have to do with each other.

use std::collections::BTreeSet;

use ff2_topology::NodeId;

use crate::{
    event::{Decision, Refusal},
    job::{Cause, Job, JobId, JobSpec, Many, Member, Outcome, Priority, State, Then},
    limits,
    quota::{QuotaKey, Quotas},
    scheduler::Scheduler,
    tree::Want,
};

impl Scheduler {
    pub(crate) fn submit(&mut self, spec: JobSpec, out: &mut Vec<Decision>) {
        if let Err(refusal) = self.admit(&spec) {
            out.push(Decision::Refused(refusal));
            return;
        }
        let count = members(spec.many);
        let first = JobId(self.next_job);
        out.push(Decision::Accepted { first, count });
        for index in 0..count {
            self.admit_member(&spec, first, index);
        }
        for id in self.all_of(first) {
            self.settle(id, out);
        }
        self.let_members_go(first);
        if self.reserved.is_some() {
            // Others of its shape may have been too long for what is free until then.
            self.blocked.remove(&self.shape(&spec));
        }
        // What goes before others by its priority does not wait for the next round of plans.
        let goes_first = |id: &JobId| self.jobs[id].spec.priority < spec.priority;
        if spec.priority > Priority::Normal && self.running.iter().any(goes_first) {
            self.hurry(JobId(first.0 + u64::from(count) - 1));
        }
    }

    /// Whether a submission could ever run.
    fn admit(&self, spec: &JobSpec) -> Result<(), Refusal> {
        let task = spec.task;
        if spec.tasks == 0 || (task.gpus == 0 && task.cpus == 0) {
            return Err(Refusal::Empty);
        }
        let count = match spec.many {
            Many::One => 1,
            Many::Array { count, .. } => count,
            Many::Service { min, max } if min <= max => max,
            Many::Service { .. } => 0,
        };
        if count == 0 || count > limits::MEMBERS_MAX {
            return Err(Refusal::Members(spec.many));
        }
        let waiting = self.jobs.len() as u64;
        if waiting + u64::from(count) > limits::JOBS_MAX {
            return Err(Refusal::QueueFull { waiting });
        }
        self.tags.find(&spec.needs).map_err(Refusal::NoSuchTag)?;
        let shape = self.shape(spec);
        let room = |node: NodeId| match self.cluster.suits(node, shape) {
            true => {
                let all = self.cluster.capacity(node);
                self.cluster.room_in(node, all, spec.per_node()).min(spec.tasks)
            }
            false => 0,
        };
        let room: Vec<u32> = self.cluster.ids().map(room).collect();
        if room.iter().all(|room| *room == 0) {
            return Err(Refusal::TaskTooLarge);
        }
        let across = self.config.across_zones > 0;
        let want = Want { tasks: spec.tasks, zone: spec.zone, spread: spec.reads_much, across };
        if spec.tasks > limits::TASKS_MAX || self.cluster.tree.lay(&room, want).is_none() {
            let most = self.cluster.tree.most(&room, want);
            return Err(Refusal::GangTooLarge { wanted: spec.tasks, most });
        }
        let gpus = self.most_gpus(spec);
        if let Some((key, has)) = self.quotas.never_allows(spec, gpus) {
            let (key, limit) = (key.clone(), has.limit);
            return Err(Refusal::AboveQuota { key, gpus, limit });
        }
        let known = |job: JobId| self.jobs.contains_key(&job) || self.ended.contains_key(&job);
        match spec.after.of.iter().find(|dependency| !known(dependency.job)) {
            Some(unknown) => Err(Refusal::NoSuchDependency(unknown.job)),
            None => Ok(()),
        }
    }

    pub(crate) fn admit_member(&mut self, spec: &JobSpec, first: JobId, index: u32) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        let mut spec = spec.clone();
        if let Many::Service { min, .. } = spec.many {
            if index < min {
                spec.preemptible = false;
            } else {
                spec.priority = Priority::Idle;
            }
        }
        let of = spec.many;
        let member = (of != Many::One).then_some(Member { first, index, of });
        let job = Job {
            id,
            spec,
            member,
            state: State::Held,
            attempt: 0,
            failures: 0,
            submitted_ms: self.now,
            began_ms: None,
            since_ms: self.now,
            ran_ms: 0,
            service_gpu_ms: 0,
            ahead: false,
            on_hold: false,
            charged_ms: self.now,
            preemptions: 0,
            moves: 0,
            slot: None,
            whole_gpus: None,
        };
        self.jobs.insert(id, job);
        self.may_have(id);
        self.index_name(id);
        id
    }

    /// Lets members of a submission wait in the queue, as many as may at once, once all came that they come after.
    pub(crate) fn let_members_go(&mut self, first: JobId) {
        let Some(members) = self.members.get(&first) else { return };
        let Some(one) = members.first().map(|id| &self.jobs[id]) else { return };
        let at_once = match one.spec.many {
            Many::Array { at_once, .. } if at_once > 0 => at_once as usize,
            Many::Array { .. } | Many::One | Many::Service { .. } => usize::MAX,
        };
        let held = |id: &&JobId| self.jobs[id].state == State::Held;
        let gone = if at_once == usize::MAX {
            0
        } else {
            members.len() - members.iter().filter(held).count()
        };
        let may_run = |id: &&JobId| {
            let job = &self.jobs[id];
            let is_first = || self.earlier_of_name(job).is_none();
            !job.on_hold
                && job.spec.after.of.is_empty()
                && job.spec.after.not_before_ms <= self.now
                && (!job.spec.after.singleton || is_first())
        };
        let go = members.iter().filter(held).filter(may_run);
        let go: Vec<JobId> = go.take(at_once.saturating_sub(gone)).copied().collect();
        for id in go {
            self.wait(id);
        }
    }

    /// A job, or all of an array or service whose first it is or was.
    pub(crate) fn cancel(&mut self, id: JobId, out: &mut Vec<Decision>) {
        self.all_of(id).into_iter().for_each(|id| self.cancel_one(id, out));
    }

    /// A job, and all of a submission whose first it is or was.
    pub(crate) fn all_of(&self, id: JobId) -> BTreeSet<JobId> {
        let members = self.members.get(&id).cloned().unwrap_or_default();
        members.into_iter().chain([id]).collect()
    }

    pub(crate) fn cancel_one(&mut self, id: JobId, out: &mut Vec<Decision>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match &mut job.state {
            State::Held | State::Pending | State::Claiming => {
                self.end(id, Outcome::Cancelled, out);
            }
            State::Running { .. } => {
                self.stop(id, Cause::Cancelled, Then::End(Outcome::Cancelled), out);
            }
            State::Stopping { then, .. } => {
                *then = Then::End(Outcome::Cancelled);
                self.unclaim(id);
            }
        }
    }

    pub(crate) fn set_quota(&mut self, key: QuotaKey, limit: Option<u64>) {
        let has = self.jobs.values().filter(|job| {
            Quotas::applies(&key, &job.spec)
                && (job.placement().is_some() || job.state == State::Claiming)
        });
        let used = has.map(Job::gpus).sum();
        self.quotas.set(key.clone(), limit, used);
        // Who was parked under it is looked at anew.
        if self.queue.unpark(&key, u64::MAX) {
            self.blocked.clear();
        }
    }

    pub(crate) fn set_cached(&mut self, input: String, nodes: Vec<NodeId>) {
        if nodes.is_empty() {
            self.caches.remove(&input);
        } else {
            self.caches.insert(input, nodes.into_iter().collect());
        }
    }
}

fn members(many: Many) -> u32 {
    match many {
        Many::One => 1,
        Many::Array { count, .. } => count,
        Many::Service { max, .. } => max,
    }
}
