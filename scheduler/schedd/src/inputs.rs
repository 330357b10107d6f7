//! What jobs read, and which nodes have it in their caches: the leader asks the agents.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::Status;
use ff2_sched_core::{JobId, State as Of};
use ff2_sched_machine::{Asker, State, Told};

use crate::{
    leader::{Lead, SchedGroup, wall_ms},
    limits,
};

impl SchedGroup {
    /// Asks for what a submission reads, unless it is known, and gives the nodes a moment to answer. A job is placed
    /// without that if they do not.
    pub(crate) async fn ask_of(&self, lead: &Lead, inputs: &[String], asker: Asker) {
        let paths = {
            let warmth = lead.warmth.lock();
            let new = inputs.iter().filter(|path| !warmth.knows(path));
            new.map(|path| (path.clone(), asker)).collect::<Vec<_>>()
        };
        if paths.is_empty() {
            return;
        }
        lead.warmth.lock().ask(lead.term.now_ms(), wall_ms(), paths);
        lead.news.notify_waiters();
        while !is_settled(lead) {
            tokio::time::sleep(limits::INPUTS_LOOK).await;
        }
        if let Err(status) = self.tell_inputs(lead).await {
            tracing::warn!(%status, "what nodes have cached was not logged");
        }
    }

    /// Logs what nodes answered, and asks anew for what waiting jobs read.
    pub(crate) async fn tell_inputs(&self, lead: &Lead) -> Result<(), Status> {
        if !is_settled(lead) {
            return Ok(());
        }
        let events = self.look(|state| lead.warmth.lock().facts(state));
        let told = events.into_iter().map(|event| Told { event, note: String::new() });
        self.log_all(told.collect()).await?;
        let now_ms = lead.term.now_ms();
        if !lead.warmth.lock().is_due(now_ms, limits::INPUTS_STEP_MS) {
            return Ok(());
        }
        let waiting = self.look(waiting);
        let paths = waiting.into_iter().filter_map(|(path, first)| {
            let who = self.order_of(first)?.submitter;
            Some((path, Asker { uid: who.uid, gid: who.gid }))
        });
        let paths: BTreeMap<String, Asker> = paths.collect();
        let mut warmth = lead.warmth.lock();
        warmth.keep(|path| paths.contains_key(path));
        warmth.ask(now_ms, wall_ms(), paths);
        Ok(())
    }
}

fn is_settled(lead: &Lead) -> bool {
    let now_ms = lead.term.now_ms();
    let present: Vec<_> = lead.watch.lock().present(now_ms).collect();
    lead.warmth.lock().is_settled(now_ms, present)
}

/// What waiting jobs read, and the first of a submission that does.
fn waiting(state: &State) -> BTreeSet<(String, JobId)> {
    let waits = |job: &&ff2_sched_core::Job| matches!(job.state, Of::Held | Of::Pending);
    let jobs = state.scheduler().jobs().filter(waits);
    let named = jobs.flat_map(|job| {
        let first = job.member.map_or(job.id, |member| member.first);
        job.spec.inputs.iter().map(move |input| (input.clone(), first))
    });
    named.collect()
}
