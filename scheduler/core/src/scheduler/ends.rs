//! What comes when a run is over.

use crate::{
    event::Decision,
    job::{JobId, Many, Outcome, State, Then},
    limits,
    placement::Placement,
    quota::QuotaKey,
    scheduler::Scheduler,
};

impl Scheduler {
    /// All tasks of a job ended by themselves.
    pub(crate) fn exited(
        &mut self,
        id: JobId,
        attempt: u32,
        succeeded: bool,
        out: &mut Vec<Decision>,
    ) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.attempt == attempt) else { return };
        let then = match &job.state {
            State::Held | State::Pending | State::Claiming => return,
            State::Running { .. } => None,
            State::Stopping { then, .. } => Some(*then),
        };
        let is_service = job.member.is_some_and(|member| matches!(member.of, Many::Service { .. }));
        let again = !succeeded && job.failures < job.spec.restarts;
        if !succeeded {
            job.failures += 1;
        }
        self.release(id);
        let ends = match then {
            // What was asked for comes first: it may have ended just because it was told to.
            Some(Then::End(outcome)) => Some(outcome),
            Some(Then::Requeue | Then::Replace) | None if is_service || again => None,
            Some(Then::Requeue | Then::Replace) | None if succeeded => Some(Outcome::Succeeded),
            Some(Then::Requeue | Then::Replace) | None => Some(Outcome::Failed),
        };
        match ends {
            Some(outcome) => self.end(id, outcome, out),
            None => self.wait_or_go(id),
        }
        self.gone(id, out);
    }

    /// Nothing is left of a run that was told to stop.
    pub(crate) fn stopped(&mut self, id: JobId, attempt: u32, out: &mut Vec<Decision>) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.attempt == attempt) else { return };
        let State::Stopping { then, .. } = job.state else { return };
        let placement = self.release(id);
        match then {
            Then::Requeue => self.wait_or_go(id),
            Then::Replace => self.replace(id, &placement, out),
            Then::End(outcome) => self.end(id, outcome, out),
        }
        self.gone(id, out);
    }

    /// A run that was cut off: the job goes on from its checkpoint, and this counts as no failure of its own.
    pub(crate) fn lost(&mut self, id: JobId, attempt: u32, out: &mut Vec<Decision>) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.attempt == attempt) else { return };
        match job.state {
            State::Held | State::Pending | State::Claiming => {}
            State::Running { .. } => {
                self.release(id);
                self.wait(id);
                self.gone(id, out);
            }
            State::Stopping { .. } => self.stopped(id, attempt, out),
        }
    }

    /// A job without nodes waits, unless others are promised to it.
    fn wait_or_go(&mut self, id: JobId) {
        if self.claims.contains_key(&id) {
            // It keeps what it has of quotas.
            let job = self.jobs.get_mut(&id).expect("the caller has it");
            job.state = State::Claiming;
            self.take_quota(id);
            self.set_timer(id);
        } else {
            self.wait(id);
        }
    }

    /// Takes the nodes of a run back and counts what it had.
    pub(crate) fn release(&mut self, id: JobId) -> Placement {
        self.charge(id);
        self.give_up_slot(id);
        self.runs_no_more(id);
        self.stopping.remove(&id);
        let now = self.now;
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        let (State::Running { placement, started_ms }
        | State::Stopping { placement, started_ms, .. }) = &job.state
        else {
            unreachable!("{id:?} has no nodes to give back")
        };
        let (placement, ran) = (placement.clone(), now - started_ms);
        job.ran_ms += ran;
        job.service_gpu_ms += ran * job.gpus();
        job.state = State::Held;
        let per_node = job.spec.per_node();
        self.timers.set(id, None);
        self.cluster.give(id, &placement, per_node);
        self.across.remove(&id);
        self.blocked.clear();
        self.give_quota(id);
        placement
    }

    /// Counts a job's GPUs with the quotas that it is under, and no more.
    pub(crate) fn take_quota(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        self.quotas.take(&job.spec, job.gpus());
    }

    pub(crate) fn give_quota(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        let freed = self.quotas.give(&job.spec, job.gpus());
        self.unpark(&freed);
    }

    pub(crate) fn unpark(&mut self, freed: &[QuotaKey]) {
        for key in freed {
            let room = self.quotas.get(key);
            let room = room.map_or(u64::MAX, |has| has.limit.saturating_sub(has.used));
            if self.queue.unpark(key, room) {
                self.blocked.clear();
            }
        }
    }

    /// A job that has no nodes and waits for nothing any more.
    pub(crate) fn end(&mut self, id: JobId, outcome: Outcome, out: &mut Vec<Decision>) {
        self.unclaim(id);
        self.leave_queue(id);
        self.timers.set(id, None);
        self.ahead.remove(&id);
        let job = self.jobs.remove(&id).expect("the caller has it");
        assert!(job.placement().is_none(), "{id:?} ends without nodes");
        self.ended.insert(id, outcome);
        if self.ended.len() > limits::ENDED_MAX {
            self.ended.pop_first();
        }
        let account = self.ledger.of(&job.spec);
        account.jobs_ended += 1;
        account.preemptions += u64::from(job.preemptions);
        let last = Box::new(job);
        out.push(Decision::Ended { job: id, outcome, last: last.clone() });
        self.unindex_name(&last, out);
    }
}
