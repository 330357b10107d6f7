//! Other numbers of replicas for a service.

use std::collections::BTreeSet;

use crate::{
    event::{Decision, Refusal},
    job::{JobId, JobSpec, Many, Member, Priority, State},
    limits,
    scheduler::Scheduler,
};

/// The priority of a service is that of the replicas that are always there.
fn priority_of(index: u32, min: u32, service: Priority) -> Priority {
    if index < min { service } else { Priority::Idle }
}

impl Scheduler {
    pub(crate) fn scale(&mut self, first: JobId, min: u32, max: u32, out: &mut Vec<Decision>) {
        let Some(members) = self.members.get(&first).cloned() else { return };
        let Some(one) = members.first().map(|id| self.jobs[id].clone()) else { return };
        let Many::Service { .. } = one.spec.many else { return };
        if min > max || max == 0 || max > limits::MEMBERS_MAX {
            return;
        }
        let of = Many::Service { min, max };
        let mut spec = one.spec.clone();
        // Of a replica that is always there, or of one that is not: the priority of the service is that of the former.
        let always = members.iter().map(|id| &self.jobs[id].spec).find(|spec| !spec.preemptible);
        (spec.many, spec.preemptible) = (of, true);
        spec.priority = always.map_or(Priority::Normal, |always| always.priority);
        if let Some(refusal) = self.scale_beyond_quota(&members, min, max, spec.priority) {
            out.push(Decision::Refused(refusal));
            return;
        }
        let mut indexes = BTreeSet::new();
        for id in &members {
            // It may have ended with one that it came after.
            let Some(job) = self.jobs.get_mut(id) else { continue };
            let index = job.member.map_or(0, |member| member.index);
            if index >= max {
                self.cancel_one(*id, out);
                continue;
            }
            indexes.insert(index);
            job.member = Some(Member { first, index, of });
            let before = job.spec.clone();
            job.spec.many = of;
            job.spec.preemptible = index >= min;
            job.spec.priority = priority_of(index, min, spec.priority);
            self.priority_changed(*id, &before);
        }
        for index in (0..max).filter(|index| !indexes.contains(index)) {
            let id = self.admit_member(&spec, first, index);
            out.push(Decision::Accepted { first: id, count: 1 });
        }
        self.let_members_go(first);
    }

    /// Moves a job to the queue's place, and to the quotas, that its new priority has.
    fn priority_changed(&mut self, id: JobId, before: &JobSpec) {
        let job = &self.jobs[&id];
        match job.state {
            State::Held => {}
            State::Pending => self.requeue_in_order(id),
            State::Claiming | State::Running { .. } | State::Stopping { .. } => {
                let freed = self.quotas.give(before, job.gpus());
                self.take_quota(id);
                self.unpark(&freed);
            }
        }
    }

    /// Replicas that wait are held by quotas as all that waits; those with nodes go to the quotas of their new priority
    /// at once, which must have room for them.
    fn scale_beyond_quota(
        &self,
        members: &BTreeSet<JobId>,
        min: u32,
        max: u32,
        service: Priority,
    ) -> Option<Refusal> {
        let members = members.iter().filter_map(|id| self.jobs.get(id));
        let changed = members.filter_map(|job| {
            let index = job.member.map_or(0, |member| member.index);
            let priority = priority_of(index, min, service);
            let has = job.placement().is_some() || job.state == State::Claiming;
            (has && index < max && priority != job.spec.priority).then_some((job, priority))
        });
        let changed: Vec<_> = changed.collect();
        let mut quotas = self.quotas.clone();
        for (job, _) in &changed {
            quotas.give(&job.spec, job.gpus());
        }
        for (job, priority) in changed {
            let spec = JobSpec { priority, ..job.spec.clone() };
            if let Some((key, has)) = quotas.blocks(&spec, job.gpus()) {
                let (key, gpus, used, limit) = (key.clone(), job.gpus(), has.used, has.limit);
                return Some(Refusal::ScaledAboveQuota { key, gpus, used, limit });
            }
            quotas.take(&spec, job.gpus());
        }
        None
    }
}
