//! What the leader of group 0 keeps in memory and does in its term: the lease book, and the facts
//! that come out of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use ff2_fabric::pace;
use ff2_group::Term;
use ff2_meta_core::cluster::{
    Heard, JoinTurn, LeaseBook, LeaseTimes, Moves, NodeVitals, Space, Spares,
};
use ff2_proto::{NodeId, Routing, Status, pb, status::Code};
use parking_lot::Mutex;
use pb::cluster_command::Fact;
use tokio::sync::Notify;

use super::ClusterGroup;
use crate::limits;

/// The present term's memory, if this metad leads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lead {
    now: Arc<Mutex<Option<Arc<ClusterLead>>>>,
}

impl Lead {
    pub(crate) fn get(&self) -> Option<Arc<ClusterLead>> {
        self.now.lock().clone().filter(|lead| lead.term.check().is_ok())
    }
}

/// A leader's memory of one term.
#[derive(Debug)]
pub(crate) struct ClusterLead {
    term: Term,
    book: Mutex<LeaseBook>,
    spares: Mutex<Spares>,
    moves: Mutex<Moves>,
    history: Mutex<VecDeque<Throughput>>,
    /// The book is not calm any more.
    stirred: Notify,
}

/// The cluster's traffic at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    pub(crate) read_bytes_per_s: u64,
    pub(crate) write_bytes_per_s: u64,
}

impl ClusterLead {
    pub(super) fn check(&self) -> Result<(), Status> {
        self.term.check()
    }

    pub(super) fn heartbeat(&self, routing: &Routing, request: pb::HeartbeatRequest) -> Heard {
        // The clock is read under the lock: a heartbeat that waited for it is not older than it says.
        let mut book = self.book.lock();
        let now = self.term.now_ms();
        let heard = book.heartbeat(now, routing, request);
        if !book.is_calm(now, routing) {
            self.stirred.notify_one();
        }
        heard
    }

    pub(super) fn join(&self, routing: &Routing, request: &pb::JoinRequest) -> JoinTurn {
        self.stirred.notify_one();
        let mut book = self.book.lock();
        book.join(self.term.now_ms(), routing, request)
    }

    pub(super) fn is_leaving(&self, routing: &Routing, node: NodeId) -> bool {
        self.book.lock().is_leaving(routing, node)
    }

    pub(super) fn is_known(&self, routing: &Routing, version: u64) -> bool {
        self.book.lock().is_known(routing, version)
    }

    pub(super) fn are_held(&self, routing: &Routing, version: u64) -> bool {
        self.book.lock().are_held(routing, version)
    }

    pub(crate) fn vitals(&self, node: NodeId) -> NodeVitals {
        self.book.lock().vitals(self.term.now_ms(), node)
    }

    /// Oldest first.
    pub(crate) fn history(&self) -> Vec<Throughput> {
        self.history.lock().iter().copied().collect()
    }

    fn is_calm(&self, routing: &Routing) -> bool {
        self.book.lock().is_calm(self.term.now_ms(), routing)
    }

    fn tick(&self, routing: &Routing) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.book.lock().tick(self.term.now_ms(), routing, &mut facts);
        facts
    }

    /// What was away for so long that it is made anew elsewhere.
    fn spare(&self, routing: &Routing, after: Duration) -> Option<Fact> {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let now = self.term.now_ms();
        let space = || self.space(routing);
        self.spares.lock().tick(now, after_ms, routing, space).map(Fact::ReplaceTarget)
    }

    /// The next step of what is moved.
    fn step_of_moves(&self, routing: &Routing) -> Option<Fact> {
        let now = self.term.now_ms();
        self.moves.lock().tick(now, routing, &self.book.lock())
    }

    pub(crate) fn space(&self, routing: &Routing) -> Space {
        self.book.lock().space(routing)
    }

    fn sample(&self, routing: &Routing) {
        let mut sum = Throughput::default();
        for node in routing.nodes.keys() {
            let load = self.vitals(*node).load;
            sum.read_bytes_per_s += load.read_bytes_per_s;
            sum.write_bytes_per_s += load.write_bytes_per_s;
        }
        let mut history = self.history.lock();
        if history.len() == limits::HISTORY_SAMPLES {
            history.pop_front();
        }
        history.push_back(sum);
    }
}

impl ClusterGroup {
    /// The work of one term; the caller drops it when the term ends.
    pub(crate) async fn lead_term(&self, term: Term) {
        tracing::info!(term = term.number(), "leads the cluster group");
        let times =
            LeaseTimes { lease_ms: self.lease.lease_ms, heartbeat_ms: self.lease.heartbeat_ms };
        let book = Mutex::new(LeaseBook::new(times, term.now_ms()));
        let lead = Arc::new(ClusterLead {
            term: term.clone(),
            book,
            spares: Mutex::default(),
            moves: Mutex::default(),
            history: Mutex::default(),
            stirred: Notify::new(),
        });
        *self.lead.now.lock() = Some(lead.clone());
        let mut sampled = term.age();
        let mut quiet_since = term.age();
        loop {
            match self.round(&lead).await {
                Ok(false) => {}
                Ok(true) => quiet_since = term.age(),
                Err(status) => {
                    quiet_since = term.age();
                    tracing::warn!(%status, "a fact was not logged; it will be proposed again");
                }
            }
            if term.age() - sampled >= limits::HISTORY_STEP {
                sampled = term.age();
                lead.sample(&self.routing());
            }
            if term.age() - quiet_since >= limits::QUIET_AFTER && lead.is_calm(&self.routing()) {
                let heartbeat = Duration::from_millis(self.lease.heartbeat_ms.into());
                tokio::select! {
                    () = pace::pause(pace::rounded(heartbeat)) => continue,
                    () = lead.stirred.notified() => {}
                }
            }
            pace::pause(self.tick_interval()).await;
        }
    }

    /// Often enough that a death is declared soon after its lease, and a report logged soon after it
    /// came.
    fn tick_interval(&self) -> Duration {
        let interval = Duration::from_millis(u64::from(self.lease.heartbeat_ms) / 3);
        interval.clamp(Duration::from_millis(10), pace::SLOT * 2)
    }

    /// Proposes what there is to propose; whether it was anything.
    async fn round(&self, lead: &ClusterLead) -> Result<bool, Status> {
        let routing = self.routing();
        if routing.cluster_id.is_empty() {
            let fact = pb::Bootstrap {
                level: ff2_fabric::level::known(),
                cluster_id: self.cluster_id.clone(),
                lease_ms: self.lease.lease_ms,
                heartbeat_ms: self.lease.heartbeat_ms,
            };
            self.propose_own(lead, Fact::Bootstrap(fact)).await?;
            return Ok(true);
        }
        if routing.cluster_id != self.cluster_id {
            let detail = format!("the data folder is of cluster {}", routing.cluster_id);
            return Err(Status::new(Code::WrongCluster, detail));
        }
        let mut proposed = false;
        for fact in lead.tick(&routing) {
            tell(&fact);
            self.propose_own(lead, fact).await?;
            proposed = true;
        }
        if !self.replace_after.is_zero()
            && let Some(fact) = lead.spare(&routing, self.replace_after)
        {
            tell(&fact);
            self.propose_own(lead, fact).await?;
            proposed = true;
        }
        if let Some(fact) = lead.step_of_moves(&self.routing()) {
            tell(&fact);
            self.propose_own(lead, fact).await?;
            proposed = true;
        }
        Ok(proposed)
    }

    /// A fact of this term: it must not be logged by a later one, whose leader may have heard more.
    async fn propose_own(&self, lead: &ClusterLead, fact: Fact) -> Result<(), Status> {
        lead.term.check()?;
        self.propose_within(fact, limits::OWN_COMMAND).await?;
        Ok(())
    }
}

/// One log line for each event that an operator may look for.
fn tell(fact: &Fact) {
    match fact {
        Fact::NodesChanged(fact) => {
            if !fact.dead.is_empty() {
                tracing::warn!(nodes = ?fact.dead, "these nodes are dead: their lease ended");
            }
            if !fact.alive.is_empty() {
                tracing::info!(nodes = ?fact.alive, "these nodes are heard again");
            }
        }
        Fact::TargetsReported(fact) => {
            tracing::info!(node = fact.node_id, targets = fact.targets.len(), "targets changed");
        }
        Fact::ReplaceTarget(fact) => {
            let (target_id, node) = (fact.target, fact.node);
            tracing::warn!(target_id, node, "away for too long: made anew on that node");
        }
        Fact::MoveTarget(fact) => {
            tracing::info!(target_id = fact.target, node = fact.node, "moves to that node");
        }
        Fact::AddTarget(fact) => {
            tracing::info!(chain = fact.chain, node = fact.node, "gets a replica on that node");
        }
        Fact::AbandonTarget(fact) => {
            tracing::warn!(target_id = fact.target, "a move is given up: its new place is no good");
        }
        Fact::RetireTarget(fact) => {
            tracing::info!(target_id = fact.target, stay = fact.stay, "leaves its chain");
        }
        Fact::TakeOutTarget(fact) => {
            tracing::info!(target_id = fact.target, "is out of its chain, which serves without it");
        }
        Fact::SetRebalancing(fact) => {
            tracing::info!(on = fact.on, "the targets are spread as evenly as they can be");
        }
        _ => {}
    }
}
