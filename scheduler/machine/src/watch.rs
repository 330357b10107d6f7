//! What the leader keeps in mind of the nodes: who was heard when, with which runs. From that, and from what should
//! run, come the facts that it logs and the orders that it gives.
//!
//! Nothing of it is on record: agents tell all of it again to the next leader.
//!
//! A run is gone from a node
//! - if the agent says that it ended there, or
//! - if the agent does not have it and has carried out orders from when it was to end already: none that it may still
//!   get starts it, or
//! - if the node was silent for longer than its lease: then what ran there was ended by its keepers.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb::{self, RunPhase};
use ff2_sched_core::{Event, Job, JobId, NodeState, Scope, State as Of};
use ff2_topology::NodeId;

use crate::{
    limits,
    state::State,
    validations::{Validate, Validations},
};

/// See the module. Times are of the leader's monotonic clock, ms, but where it says otherwise.
#[derive(Clone, Debug)]
pub struct Watch {
    lease_ms: u64,
    began_ms: u64,
    heard: BTreeMap<NodeId, Heard>,
    /// Runs that are to end, and the version of the state when that was first seen.
    since: BTreeMap<Attempt, u64>,
    /// Runs that ended badly on some node: they are ended on the others.
    doomed: BTreeMap<Attempt, Doom>,
    validations: Validations,
}

type Attempt = (JobId, u32);

#[derive(Clone, Debug)]
struct Heard {
    at_ms: u64,
    seen_version: u64,
    runs: BTreeMap<Attempt, (RunPhase, String)>,
    node: pb::AgentNode,
    /// The number of the last validation, and what it found.
    validation: (u64, String),
}

#[derive(Clone, Debug)]
struct Doom {
    lost: bool,
    note: String,
}

/// A fact to log, and what people should read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub event: Event,
    pub note: String,
}

impl Watch {
    /// At the begin of a term: everybody might have been heard until now. `secret` is drawn for it: nodes that measure
    /// the way between them know each other by what is made of it.
    pub fn new(now_ms: u64, lease_ms: u64, secret: String) -> Self {
        Self {
            lease_ms,
            began_ms: now_ms,
            heard: BTreeMap::new(),
            since: BTreeMap::new(),
            doomed: BTreeMap::new(),
            validations: Validations::new(secret),
        }
    }

    /// Takes in what an agent says.
    pub fn hear(&mut self, now_ms: u64, node: NodeId, request: &pb::AgentSyncRequest) {
        let run = |report: &pb::RunReport| {
            let key = (JobId(report.job), report.attempt);
            (key, (report.phase(), report.note.clone()))
        };
        let heard = Heard {
            at_ms: now_ms,
            seen_version: request.seen_version,
            runs: request.runs.iter().map(run).collect(),
            node: request.node.clone().unwrap_or_default(),
            validation: (request.validated, request.validation.clone()),
        };
        self.heard.insert(node, heard);
        let waits = request.pair.as_ref().map(|pair| (pair.number, pair.address.as_str()));
        self.validations.hear(node, request.validated, waits);
    }

    /// Whether an agent may speak for a node: another one with its name must have been silent for long enough.
    ///
    /// # Errors
    /// Who speaks for it.
    pub fn admit(&self, now_ms: u64, node: NodeId, says: &pb::AgentNode) -> Result<(), String> {
        let Some(heard) = self.heard.get(&node).filter(|heard| heard.node.id != says.id) else {
            return Ok(());
        };
        if self.is_fenced(now_ms, node) {
            return Ok(());
        }
        let (name, host) = (&says.name, &heard.node.host);
        Err(format!(
            "another agent says that it is {name:?}, at {host}: each node has a name and a data_dir of its own"
        ))
    }

    /// Nodes that are not silent.
    pub fn present(&self, now_ms: u64) -> impl Iterator<Item = NodeId> {
        let nodes = self.heard.keys().copied();
        nodes.filter(move |node| self.silence(now_ms, *node) < self.lease_ms / 2)
    }

    /// Asks a node to look at itself. The number is a time, so that of two leaders' the later one is larger.
    pub fn validate(&mut self, node: NodeId, number: u64) -> u64 {
        self.validations.ask(node, number);
        number
    }

    /// Asks all nodes to look at themselves whose last validation is older than this, Unix ms.
    pub fn validate_older(&mut self, than_ms: u64, now_unix_ms: u64) {
        for node in self.heard.keys() {
            if self.validations.number(*node) < than_ms {
                self.validations.ask(*node, now_unix_ms);
            }
        }
    }

    /// The validation that a node was asked for; 0: none.
    pub fn asked(&self, node: NodeId) -> u64 {
        self.validations.number(node)
    }

    /// What a node has to do for that now. The way is measured to one that is idle and near, if there is any.
    pub fn validate_now(&mut self, now_ms: u64, state: &State, node: NodeId) -> Validate {
        let near = |other: NodeId| {
            let is_busy = !state.scheduler().jobs_on(other).is_empty();
            (is_busy, state.place(other) != state.place(node), other)
        };
        let mut others: Vec<NodeId> = self.present(now_ms).collect();
        others.sort_by_cached_key(|other| near(*other));
        self.validations.order(now_ms, node, others.into_iter())
    }

    /// For whom a node has to wait for that, and the token of the two.
    pub fn serves(&self, node: NodeId) -> Option<(u64, String)> {
        self.validations.serves(node)
    }

    /// The number of the last validation of a node, and what it found.
    pub fn validation(&self, node: NodeId) -> Option<(u64, &str)> {
        let (number, found) = &self.heard.get(&node)?.validation;
        (*number > 0).then_some((*number, found))
    }

    pub(crate) fn is_doomed(&self, job: JobId, attempt: u32) -> bool {
        self.doomed.contains_key(&(job, attempt))
    }

    /// How many runs are ended everywhere because they ended badly somewhere.
    pub fn doomed(&self) -> usize {
        self.doomed.len()
    }

    /// What a node said of itself, and how long ago, ms.
    pub fn said(&self, now_ms: u64, node: NodeId) -> Option<(&pb::AgentNode, u64)> {
        let heard = self.heard.get(&node)?;
        Some((&heard.node, now_ms.saturating_sub(heard.at_ms)))
    }

    /// What a job says of itself, where its first rank runs.
    pub fn says(&self, job: &Job) -> Option<&str> {
        self.told(job)?.lines().next().filter(|line| !line.is_empty())
    }

    /// The chart that a job gives of itself (docs/JOBS.md), as it gave it.
    pub fn chart(&self, job: &Job) -> Option<&str> {
        self.told(job)?.lines().nth(1)
    }

    fn told(&self, job: &Job) -> Option<&str> {
        let first = job.placement()?.nodes().next()?;
        let (phase, note) = self.heard.get(&first)?.runs.get(&(job.id, job.attempt))?;
        (*phase == RunPhase::RunRunning).then_some(note)
    }

    fn silence(&self, now_ms: u64, node: NodeId) -> u64 {
        let last = self.heard.get(&node).map_or(self.began_ms, |heard| heard.at_ms);
        now_ms.saturating_sub(last)
    }

    /// Whatever ran there has been ended for want of a lease.
    fn is_fenced(&self, now_ms: u64, node: NodeId) -> bool {
        self.silence(now_ms, node) > self.lease_ms + limits::FENCE_MARGIN_MS
    }

    /// The facts that follow from what all nodes said, and did not say.
    pub fn facts(&mut self, now_ms: u64, state: &State) -> Vec<Told> {
        let mut told = Vec::new();
        let scheduler = state.scheduler();
        let nodes: Vec<NodeId> = state.topology().nodes().map(|(id, _)| id).collect();
        for node in nodes {
            let Some(is) = scheduler.node_state(node) else { continue };
            let becomes = match (is, self.is_fenced(now_ms, node)) {
                (NodeState::Up, true) => NodeState::Down,
                // It is not to be used when it comes back.
                (NodeState::Cordoned, true) => NodeState::Quarantined,
                (NodeState::Down, false) if self.heard.contains_key(&node) => NodeState::Up,
                _ => continue,
            };
            let note = match becomes {
                NodeState::Up => String::new(),
                _ => format!("silent for {} s", self.silence(now_ms, node) / 1_000),
            };
            let event = Event::Node { scope: Scope::Node(node), state: becomes };
            told.push(Told { event, note });
        }
        let mut open = BTreeSet::new();
        for job in scheduler.jobs().filter(|job| job.placement().is_some()) {
            open.insert((job.id, job.attempt));
            told.extend(self.judge(now_ms, state, job));
        }
        self.since.retain(|run, _| open.contains(run));
        self.doomed.retain(|run, _| open.contains(run));
        told
    }

    /// As [`Self::facts`], as far as the runs of one node are concerned.
    pub fn facts_of(&mut self, now_ms: u64, state: &State, node: NodeId) -> Vec<Told> {
        let mut told = Vec::new();
        for id in state.scheduler().jobs_on(node) {
            if let Some(job) = state.scheduler().job(*id) {
                told.extend(self.judge(now_ms, state, job));
            }
        }
        told
    }

    fn judge(&mut self, now_ms: u64, state: &State, job: &Job) -> Option<Told> {
        let placement = job.placement()?;
        let (id, attempt) = (job.id, job.attempt);
        let run = (id, attempt);
        let is_running = matches!(job.state, Of::Running { .. });
        let phase = |node| Some(&self.heard.get(&node)?.runs.get(&run)?.0);
        if placement.nodes().all(|node| phase(node) == Some(&RunPhase::RunSucceeded)) {
            let event = Event::Exited { job: id, attempt, succeeded: true };
            return Some(Told { event, note: String::new() });
        }
        if is_running && !self.doomed.contains_key(&run) {
            let doom = placement.nodes().find_map(|node| self.doom(state, node, run))?;
            self.doomed.insert(run, doom);
        }
        let since = *self.since.entry(run).or_insert(state.version());
        if !placement.nodes().all(|node| self.is_gone(now_ms, node, run, since)) {
            return None;
        }
        let doom = self.doomed.get(&run);
        let note = doom.map_or_else(String::new, |doom| doom.note.clone());
        let event = match doom {
            Some(doom) if is_running && !doom.lost => {
                Event::Exited { job: id, attempt, succeeded: false }
            }
            Some(_) if is_running => Event::Lost { job: id, attempt },
            _ => Event::Stopped { job: id, attempt },
        };
        Some(Told { event, note })
    }

    /// Whether a run that should go on has ended badly on a node.
    fn doom(&self, state: &State, node: NodeId, run: Attempt) -> Option<Doom> {
        let (phase, note) = self.heard.get(&node)?.runs.get(&run)?;
        let lost = match phase {
            RunPhase::RunUnknown | RunPhase::RunRunning | RunPhase::RunSucceeded => return None,
            RunPhase::RunFailed => false,
            RunPhase::RunStopped | RunPhase::RunLost => true,
        };
        Some(Doom { lost, note: format!("on {}: {note}", state.name(node)) })
    }

    fn is_gone(&self, now_ms: u64, node: NodeId, run: Attempt, since: u64) -> bool {
        if self.is_fenced(now_ms, node) {
            return true;
        }
        let Some(heard) = self.heard.get(&node) else { return false };
        match heard.runs.get(&run) {
            Some((phase, _)) => !matches!(phase, RunPhase::RunUnknown | RunPhase::RunRunning),
            None => heard.seen_version >= since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_MS: u64 = 10_000;
    const NODE: NodeId = NodeId(0);

    fn says(id: &str) -> pb::AgentNode {
        pb::AgentNode {
            name: "gpu1".into(),
            id: id.into(),
            host: "10.0.0.1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn of_two_agents_of_one_name_the_first_stays() {
        let mut watch = Watch::new(0, LEASE_MS, String::new());
        assert_eq!(watch.admit(0, NODE, &says("a")), Ok(()), "nobody was heard");
        let request = pb::AgentSyncRequest { node: Some(says("a")), ..Default::default() };
        watch.hear(1_000, NODE, &request);
        assert_eq!(watch.admit(2_000, NODE, &says("a")), Ok(()), "after a restart it is the same");
        let refused = watch.admit(2_000, NODE, &says("b")).expect_err("the first may have runs");
        assert!(refused.contains("10.0.0.1"), "{refused}");
        let over = 1_000 + LEASE_MS + limits::FENCE_MARGIN_MS;
        assert!(watch.admit(over, NODE, &says("b")).is_err(), "not a moment before it is fenced");
        assert_eq!(watch.admit(over + 1, NODE, &says("b")), Ok(()));
    }
}
