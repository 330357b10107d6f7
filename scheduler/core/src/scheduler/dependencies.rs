//! Jobs that come after others.

use crate::{
    dependency::{After, Dependency, Met},
    event::Decision,
    job::{Job, JobId, Outcome, State},
    scheduler::Scheduler,
};

impl Scheduler {
    /// Makes anew what finds a job by those it comes after, by its submission, and by its name.
    pub(crate) fn index_name(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        for dependency in &job.spec.after.of {
            if self.jobs.contains_key(&dependency.job) {
                self.dependents.entry(dependency.job).or_default().insert(id);
            }
        }
        let named = (job.spec.user.clone(), job.spec.name.clone());
        self.named.entry(named).or_default().insert(id);
        self.members.entry(first_of(job)).or_default().insert(id);
    }

    /// Forgets a job that has ended there, and lets go who came after it.
    pub(crate) fn unindex_name(&mut self, job: &Job, out: &mut Vec<Decision>) {
        let id = job.id;
        self.forget_dependencies(id, &job.spec.after);
        let first = first_of(job);
        if let Some(others) = self.members.get_mut(&first) {
            others.remove(&id);
            if others.is_empty() {
                self.members.remove(&first);
            }
        }
        let named = (job.spec.user.clone(), job.spec.name.clone());
        let others = self.named.get_mut(&named).expect("every job is found by its name");
        others.remove(&id);
        let next = others.first().copied();
        if next.is_none() {
            self.named.remove(&named);
        }
        self.let_members_go(first);
        if let Some(next) = next.filter(|next| self.jobs[next].spec.after.singleton) {
            self.let_members_go(first_of(&self.jobs[&next]));
        }
        for dependent in self.dependents.remove(&id).unwrap_or_default() {
            self.settle(dependent, out);
        }
    }

    /// A job runs: it may be the first time, which others wait for.
    pub(crate) fn dependency_began(&mut self, id: JobId, out: &mut Vec<Decision>) {
        if self.jobs[&id].attempt != 1 {
            return;
        }
        for dependent in self.dependents.get(&id).cloned().unwrap_or_default() {
            self.settle(dependent, out);
            let goes = self.jobs.get(&dependent).is_some_and(|job| job.state == State::Pending);
            self.let_go |= goes;
        }
    }

    fn forget_dependencies(&mut self, id: JobId, after: &After) {
        for Dependency { job, .. } in &after.of {
            if let Some(others) = self.dependents.get_mut(job) {
                others.remove(&id);
                if others.is_empty() {
                    self.dependents.remove(job);
                }
            }
        }
    }

    /// Looks what a job comes after. It may go, or will never run.
    pub(crate) fn settle(&mut self, id: JobId, out: &mut Vec<Decision>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut after = job.spec.after.clone();
        let met = after.settle(
            |dependency| {
                let other = self.jobs.get(&dependency.job);
                dependency.must.met(other, self.ended.get(&dependency.job).copied())
            },
            |dependency| self.jobs.get(&dependency.job)?.began_ms,
        );
        let open = after.clone();
        let job = self.jobs.get_mut(&id).expect("it was there");
        let before = std::mem::replace(&mut job.spec.after, after);
        self.forget_dependencies(id, &before);
        for Dependency { job, .. } in open.of.iter().filter(|on| self.jobs.contains_key(&on.job)) {
            self.dependents.entry(*job).or_default().insert(id);
        }
        match met {
            Met::Yes => {
                self.set_timer(id);
                self.let_members_go(first_of(&self.jobs[&id]));
            }
            Met::NotYet => {}
            Met::No => self.end(id, Outcome::DependencyFailed, out),
        }
    }

    /// The first of a user's jobs of one name, if that was submitted before this one.
    pub(crate) fn earlier_of_name(&self, job: &Job) -> Option<JobId> {
        let named = (job.spec.user.clone(), job.spec.name.clone());
        let first = *self.named.get(&named)?.first()?;
        (first < first_of(job)).then_some(first)
    }
}

fn first_of(job: &Job) -> JobId {
    job.member.map_or(job.id, |member| member.first)
}
