//! Nodes that are promised to a job before they are free.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    event::Decision,
    job::{Cause, JobId, State, Then},
    placement::Placement,
    scheduler::Scheduler,
};

/// A job starts there when all that it waits for have stopped. Of a job that moves it is the place where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) placement: Placement,
    pub(crate) waits_for: BTreeSet<JobId>,
}

impl Scheduler {
    /// Promises nodes to a job that waits, and has the victims stop there.
    pub(crate) fn claim_for(
        &mut self,
        id: JobId,
        placement: Placement,
        victims: Vec<JobId>,
        out: &mut Vec<Decision>,
    ) {
        self.leave_queue(id);
        let job = self.jobs.get_mut(&id).expect("it waits");
        job.state = State::Claiming;
        let spec = job.spec.clone();
        self.set_timer(id);
        self.will_have(id, &placement);
        self.take_quota(id);
        self.cluster.claim(&placement, spec.per_node());
        if self.cluster.tree.is_across(&placement) {
            self.across.insert(id);
        }
        let waits_for = victims.iter().copied().collect();
        self.claims.insert(id, Claim { placement, waits_for });
        for victim in victims {
            self.jobs.get_mut(&victim).expect("it runs").preemptions += 1;
            self.stop(victim, Cause::Preempted { by: id }, Then::Requeue, out);
        }
    }

    /// Promises a running job another place, and has it stop where it is.
    pub(crate) fn claim_move(
        &mut self,
        id: JobId,
        to: Placement,
        cause: Cause,
        out: &mut Vec<Decision>,
    ) {
        let job = self.jobs.get_mut(&id).expect("it runs");
        job.moves += 1;
        let per_node = job.spec.per_node();
        self.cluster.claim(&to, per_node);
        self.claims.insert(id, Claim { placement: to, waits_for: [id].into() });
        self.stop(id, cause, Then::Requeue, out);
    }

    /// A run is gone: whoever waited for it alone starts.
    pub(crate) fn gone(&mut self, stopped: JobId, out: &mut Vec<Decision>) {
        let mut ready = Vec::new();
        for (id, claim) in &mut self.claims {
            if claim.waits_for.remove(&stopped) && claim.waits_for.is_empty() {
                ready.push(*id);
            }
        }
        for id in ready {
            let claim = self.claims.remove(&id).expect("it was just found");
            let job = &self.jobs[&id];
            self.cluster.unclaim(&claim.placement, job.spec.per_node());
            self.start(id, claim.placement, out);
        }
    }

    /// Gives up a claim; its job waits again unless it still stops (a move) or is to end.
    pub(crate) fn unclaim(&mut self, id: JobId) {
        let Some(claim) = self.claims.remove(&id) else { return };
        self.cluster.unclaim(&claim.placement, self.jobs[&id].spec.per_node());
        self.blocked.clear();
        if self.jobs[&id].state == State::Claiming {
            self.across.remove(&id);
            self.give_quota(id);
            self.wait(id);
        }
    }

    /// Gives up all claims that a node or a kind of them is part of.
    pub(crate) fn unclaim_where(&mut self, is_hit: impl Fn(&Claim) -> bool) {
        let hit: Vec<JobId> =
            self.claims.iter().filter(|(_, claim)| is_hit(claim)).map(|(id, _)| *id).collect();
        hit.into_iter().for_each(|id| self.unclaim(id));
    }
}
