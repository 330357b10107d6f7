//! What the leader does in its term: it logs what follows from what the agents say and from the time.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ff2_daemon::config::ComputeConfig;
use ff2_fabric::pace;
use ff2_group::{Group, Term};
use ff2_proto::{Code, Status};
use ff2_sched_core::{Event, JobId};
use ff2_sched_machine::{
    Answer, Command, Fact, Links, SchedMachine, State, Told, Warmth, Watch, order_of,
};
use ff2_submit::Order;
use ff2_topology::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits;

/// The scheduler's group on this replica, and its leader's memory if it leads.
#[derive(Clone, Debug)]
pub(crate) struct SchedGroup {
    pub(crate) group: Group<SchedMachine>,
    pub(crate) lease_ms: u32,
    /// 0: nodes are asked to look at themselves only by people.
    validate_every_ms: u64,
    cordon_flapping: bool,
    lead: Arc<Mutex<Option<Arc<Lead>>>>,
}

/// Of one term.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) term: Term,
    pub(crate) watch: Mutex<Watch>,
    pub(crate) warmth: Mutex<Warmth>,
    pub(crate) links: Mutex<Links>,
    /// The last validation of each node that was looked at.
    pub(crate) judged: Mutex<BTreeMap<NodeId, u64>>,
    /// Orders may have changed though nothing was logged.
    pub(crate) news: Notify,
}

impl SchedGroup {
    pub(crate) fn new(group: Group<SchedMachine>, compute: &ComputeConfig) -> Self {
        Self {
            group,
            lease_ms: compute.lease_ms,
            validate_every_ms: compute.validate_every_s * 1_000,
            cordon_flapping: compute.cordon_flapping,
            lead: Arc::default(),
        }
    }

    /// # Errors
    /// NOT_LEADER, with who leads if that is known.
    pub(crate) fn leading(&self) -> Result<Arc<Lead>, Status> {
        let lead = self.lead.lock().clone().filter(|lead| lead.term.check().is_ok());
        lead.ok_or_else(|| {
            let leader = self.group.leadership().borrow().leader.clone();
            Status::not_leader(leader.map(|leader| leader.address))
        })
    }

    /// Looks at the state as it is on this replica.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        let state: Arc<RwLock<State>> = self.group.view();
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        look(&state)
    }

    /// What was handed in with the submission whose first job this is, as long as it is kept.
    pub(crate) fn order_of(&self, first: JobId) -> Option<Order> {
        let text = self.group.read_stale(|kv| order_of(kv, first.0)).flatten()?;
        serde_json::from_str(&text).ok()
    }

    /// Logs a fact of now.
    pub(crate) async fn log(&self, fact: Fact, note: &str) -> Result<Answer, Status> {
        let command = Command { at_ms: wall_ms(), fact, note: note.into() }.encode();
        let answer = tokio::time::timeout(limits::OWN_COMMAND, self.group.propose(command)).await;
        let late = || {
            let detail = format!("the group did not commit within {:?}", limits::OWN_COMMAND);
            Status::new(Code::UnknownOutcome, detail)
        };
        let answer = answer.map_err(|_| late())??;
        Answer::decode(&answer).map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    /// Logs what follows from what was heard.
    pub(crate) async fn log_all(&self, told: Vec<Told>) -> Result<(), Status> {
        if told.is_empty() {
            return Ok(());
        }
        let at_ms = wall_ms();
        let command = |told: Told| {
            tracing::info!(event = ?told.event, note = %told.note, "heard");
            Command { at_ms, fact: Fact::Event(told.event), note: told.note }.encode()
        };
        let commands = told.into_iter().map(command).collect();
        for answer in self.group.propose_all(commands).await? {
            answer?;
        }
        Ok(())
    }

    /// The work of one term; the caller drops it when the term ends.
    pub(crate) async fn lead_term(&self, term: Term) {
        tracing::info!(term = term.number(), "leads the scheduler");
        let secret = secret();
        let watch = Mutex::new(Watch::new(term.now_ms(), self.lease_ms.into(), secret));
        let lead = Arc::new(Lead {
            term,
            watch,
            warmth: Mutex::default(),
            links: Mutex::default(),
            judged: Mutex::default(),
            news: Notify::new(),
        });
        *self.lead.lock() = Some(lead.clone());
        let mut changes = self.group.watch_view();
        loop {
            if let Err(status) = self.round(&lead).await {
                tracing::warn!(%status, "a fact was not logged; it will be proposed again");
            }
            lead.news.notify_waiters();
            changes.mark_unchanged();
            let due = self.look(|state| state.scheduler().next_due());
            let until_due =
                due.map(|due| Duration::from_millis(due.saturating_sub(wall_ms()).max(1)));
            tokio::select! {
                () = pace::pause(limits::LOOK) => {}
                () = tokio::time::sleep(until_due.unwrap_or(limits::LOOK)), if until_due.is_some() => {}
                // Something may be due earlier than it was.
                _ = changes.changed() => {}
            }
        }
    }

    async fn round(&self, lead: &Lead) -> Result<(), Status> {
        let now_ms = lead.term.now_ms();
        let told = self.look(|state| lead.watch.lock().facts(now_ms, state));
        if self.validate_every_ms > 0 {
            let mut watch = lead.watch.lock();
            let now_unix_ms = wall_ms();
            for event in &told {
                // Where a run was cut off, the node may be the reason.
                if let Event::Lost { job, .. } = event.event {
                    let nodes = self.look(|state| nodes_of(state, job));
                    for node in nodes {
                        watch.validate(node, now_unix_ms);
                    }
                }
            }
            watch.validate_older(now_unix_ms.saturating_sub(self.validate_every_ms), now_unix_ms);
        }
        self.log_all(told).await?;
        if self.cordon_flapping {
            let told = self.look(|state| lead.links.lock().facts(now_ms, state));
            self.log_all(told).await?;
        }
        self.tell_inputs(lead).await?;
        let due = self.look(|state| state.scheduler().next_due());
        if due.is_some_and(|due| due <= wall_ms()) {
            self.log(Fact::Event(Event::Tick), "").await?;
        }
        Ok(())
    }
}

fn nodes_of(state: &State, job: JobId) -> Vec<NodeId> {
    let job = state.scheduler().job(job);
    job.and_then(|job| job.placement()).into_iter().flat_map(|lies| lies.nodes()).collect()
}

/// Of one term.
fn secret() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Milliseconds of the Unix clock. The machine lets no time go back.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
