//! What somebody says by hand of a job: to wait, to go on, or to give its place to others.

use crate::{
    event::Decision,
    job::{Cause, JobId, State, Then},
    scheduler::Scheduler,
};

impl Scheduler {
    pub(crate) fn hold(&mut self, id: JobId, out: &mut Vec<Decision>) {
        for id in self.all_of(id) {
            self.hold_one(id, out);
        }
    }

    fn hold_one(&mut self, id: JobId, out: &mut Vec<Decision>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.on_hold = true;
        match &mut job.state {
            State::Held => {}
            State::Pending => {
                self.leave_queue(id);
                self.jobs.get_mut(&id).expect("it was just there").since_ms = self.now;
                self.put_on_hold(id);
            }
            State::Claiming => self.unclaim(id),
            State::Running { .. } => self.stop(id, Cause::Asked, Then::Requeue, out),
            State::Stopping { then, .. } => {
                if *then == Then::Replace {
                    *then = Then::Requeue;
                }
                self.unclaim(id);
            }
        }
    }

    /// It is in no queue and has no nodes: others of its array may go in its place.
    pub(crate) fn put_on_hold(&mut self, id: JobId) {
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        job.state = State::Held;
        // It goes by its turn when it is let go.
        job.ahead = false;
        let first = job.member.map_or(id, |member| member.first);
        self.ahead.remove(&id);
        self.set_timer(id);
        self.let_members_go(first);
    }

    pub(crate) fn resume(&mut self, id: JobId) {
        for id in self.all_of(id) {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.on_hold = false;
            let first = job.member.map_or(id, |member| member.first);
            self.let_members_go(first);
        }
    }

    pub(crate) fn requeue(&mut self, id: JobId, out: &mut Vec<Decision>) {
        for id in self.all_of(id) {
            let runs = self.jobs.get(&id).is_some_and(|j| matches!(j.state, State::Running { .. }));
            if runs {
                self.stop(id, Cause::Asked, Then::Requeue, out);
            }
        }
    }
}
