//! One replica of a group as a machine: inputs in, outputs out, no thread, clock or chance in it. The
//! thread of [`crate::Group`] runs it on RocksDB; the simulator runs the same code in memory.
//!
//! A driver does, for all inputs of one wake-up:
//!
//! 1. [`Replica::step`] for each, [`Replica::tick`] if one is due, then [`Replica::turn`] once;
//! 2. while [`Replica::has_ready`]: [`Replica::take_ready`], [`Replica::apply_ready`],
//!    [`Replica::persist_ready`], performing the outputs after each. They are three so that a leader's
//!    messages leave before its own sync, and answers do not wait for the sync of later commands.
//!
//! Before it performs outputs a driver must make [`Replica::commit`] and [`Replica::lease_until`]
//! visible to readers: a follower may serve what a message of ours let it commit, and no lease read
//! here may then miss it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ff2_meta_core::StateMachine;
use ff2_proto::{GroupId, Status, pb};
use raft::{RawNode, Ready, StateRole, eraftpb::HardState};

use crate::{error::GroupError, format, limits, membership, store::LogStore, trace};

mod members;
mod messages;
mod reads;
mod ready;
mod snapshots;
#[cfg(test)]
mod tests;

use reads::Reads;
use snapshots::{Fetching, Sending};

/// What a replica is told at its start.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    pub group: GroupId,
    pub node: u32,
    pub raft_id: u64,
    /// Where peers reach this node.
    pub address: String,
    /// Time between two calls of [`Replica::tick`]. Calls may come later, never earlier.
    pub tick: Duration,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// The same for a leader of whom nobody asks anything; the lease outlives it.
    pub calm_heartbeat_ticks: usize,
    /// Ticks that count as done: groups of a process that count them alike send heartbeats in the same moment.
    pub first_tick: u64,
    pub log_keep_entries: u64,
    /// Followers hear of a commit at once, by a message of its own. Otherwise with the next entries, read
    /// or heartbeat, which spares half of the messages.
    pub broadcast_commits: bool,
    /// Makes election timeouts and read contexts differ between replicas and runs.
    pub seed: u64,
}

impl ReplicaConfig {
    /// The shortest time without a leader before an election.
    pub fn election_timeout(&self) -> Duration {
        self.tick * self.election_ticks as u32
    }

    /// How long a confirmed round lets the leader read without asking. The followers that confirmed
    /// it vote for nobody else in an election timeout less one tick; the rest is for clocks that
    /// run apart.
    pub fn lease(&self) -> Duration {
        self.election_timeout().mul_f64(0.7)
    }

    pub(crate) fn validate(&self) -> Result<(), GroupError> {
        let wrong = |what: &str| Err(GroupError::Config(what.into()));
        if self.raft_id == 0 || self.node == 0 {
            return wrong("raft ids and nodes are numbered from 1");
        }
        if self.tick.is_zero() || self.heartbeat_ticks == 0 {
            return wrong("tick and heartbeat must not be zero");
        }
        if self.election_ticks < 4 * self.heartbeat_ticks || self.election_ticks > 10_000 {
            return wrong("election_ticks must be at least four times heartbeat_ticks");
        }
        if self.calm_heartbeat_ticks < self.heartbeat_ticks
            || self.calm_heartbeat_ticks * 5 > self.election_ticks * 2
        {
            return wrong(
                "calm heartbeats come no more often than others, and twice in an election timeout",
            );
        }
        Ok(())
    }
}

/// What a replica is told. Tickets are the driver's: they come back with the answer.
#[derive(Clone, Debug)]
pub enum Input {
    Propose {
        ticket: u64,
        command: Bytes,
    },
    Read {
        ticket: u64,
    },
    Messages(pb::RaftBatch),
    /// The answer to [`Output::Fetch`].
    Page {
        snapshot: u64,
        page: Result<pb::FetchSnapshotReply, Status>,
    },
    Join {
        ticket: u64,
        request: pb::JoinGroupRequest,
    },
    Remove {
        ticket: u64,
        node: u32,
    },
    Transfer {
        ticket: u64,
        node: u32,
    },
}

/// What a driver performs, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send {
        address: String,
        batch: pb::RaftBatch,
    },
    Fetch {
        address: String,
        request: pb::FetchSnapshotRequest,
    },
    Answer {
        ticket: u64,
        answer: Result<Bytes, Status>,
    },
    /// The applied state of this moment, or any later one, may be read.
    Read {
        ticket: u64,
        may: Result<(), Status>,
    },
    Joined {
        ticket: u64,
        reply: Result<pb::JoinGroupReply, Status>,
    },
    Done {
        ticket: u64,
        done: Result<(), Status>,
    },
    Leadership(Leadership),
    /// Commands were applied, or a snapshot: the machine's view may be another.
    Applied,
    /// The group removed this replica: it takes part in nothing any more.
    Removed,
    /// Going on would be wrong: the driver logs the reason and ends the process.
    Stop(String),
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leadership {
    pub term: u64,
    /// This replica leads and has applied everything that earlier leaders committed.
    pub is_leader: bool,
    pub leader: Option<pb::Member>,
}

/// See the module.
pub struct Replica<St: LogStore, S: StateMachine> {
    config: ReplicaConfig,
    raw: RawNode<St>,
    machine: S,
    proposals: Vec<(u64, Bytes)>,
    /// What waits for the entry at an index.
    waiting: BTreeMap<u64, Waiting>,
    reads: Reads,
    ready: Option<Ready>,
    stage: Stage,
    known: Leadership,
    /// The term this replica leads in raft's eyes, which is a little earlier than in `known`.
    leading: Option<u64>,
    hints: BTreeMap<u64, String>,
    /// The term in which a leader transfer began: no lease in it any more, because the message that
    /// lets another replica campaign may arrive at any later time.
    transfer_term: Option<u64>,
    sending: BTreeMap<u64, Sending>,
    fetching: Option<Fetching>,
    /// Until then this replica helps nobody to an election.
    quiet_until: Option<Duration>,
    campaigns: u64,
    ticks: u64,
    /// Something was asked of this replica since its last heartbeat.
    asked: bool,
    /// The tick of each peer's last message, and that at which this replica began to lead.
    heard: BTreeMap<u64, u64>,
    leading_since: u64,
    over: bool,
}

#[derive(Debug)]
struct Waiting {
    term: u64,
    tickets: Vec<u64>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Commands,
    Change,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Idle,
    Taken,
    Applied,
}

impl<St: LogStore, S: StateMachine> std::fmt::Debug for Replica<St, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.raw.raft;
        f.debug_struct("Replica")
            .field("group", &self.config.group)
            .field("raft_id", &raft.id)
            .field("role", &raft.state)
            .field("term", &raft.term)
            .field("commit", &self.commit())
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

impl<St: LogStore, S: StateMachine> Replica<St, S> {
    /// Takes up what is in the store.
    pub fn new(
        config: ReplicaConfig,
        store: St,
        mut machine: S,
        now: Duration,
    ) -> Result<Self, GroupError> {
        config.validate()?;
        store.with_state(|kv| machine.restore(kv));
        // A founding member that is still at the first term has promised nothing to anybody.
        let fresh = store.hard().term == format::BOOT_TERM;
        let quiet_until = (!fresh).then(|| now + config.election_timeout());
        let over = *store.conf() != Default::default()
            && !membership::contains(store.conf(), config.raft_id);
        let alone =
            store.conf().voters == [config.raft_id] && store.conf().voters_outgoing.is_empty();
        let hints = BTreeMap::new();
        let reads = Reads::new(config.raft_id, config.seed);
        let raft_config = raft_config(&config, store.applied());
        let (group, ticks) = (config.group, config.first_tick);
        let raw = RawNode::new(&raft_config, store, &trace::logger(group));
        let mut raw = raw.map_err(|error| GroupError::Raft { group, reason: error.to_string() })?;
        if alone {
            // Nobody else could win: no reason to wait for a timeout.
            raw.campaign().expect("a sole voter can campaign");
        }
        Ok(Self {
            config,
            raw,
            machine,
            proposals: Vec::new(),
            waiting: BTreeMap::new(),
            reads,
            ready: None,
            stage: Stage::Idle,
            known: Leadership::default(),
            leading: None,
            hints,
            transfer_term: None,
            sending: BTreeMap::new(),
            fetching: None,
            quiet_until,
            campaigns: 0,
            ticks,
            asked: false,
            heard: BTreeMap::new(),
            leading_since: 0,
            over,
        })
    }

    /// Addresses of members, for a replica that has not got the membership record yet.
    pub fn introduce(&mut self, members: Vec<pb::Member>) {
        for member in members {
            self.learn_address(member);
        }
    }

    /// Takes an input in. Effects that need no disk may follow at once, the rest with the next ready.
    pub fn step(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        assert_eq!(self.stage, Stage::Idle, "a ready is handled to its end first");
        self.asked |= !matches!(input, Input::Messages(_));
        match input {
            Input::Propose { ticket, command } => self.proposals.push((ticket, command)),
            Input::Read { ticket } => self.reads.ask(ticket, now),
            Input::Messages(batch) if !self.over => self.step_batch(now, batch, out),
            Input::Messages(_) => {}
            Input::Page { snapshot, page } => self.step_page(snapshot, page, out),
            Input::Join { ticket, request } => {
                let reply = self.join(&request);
                out.push(Output::Joined { ticket, reply });
            }
            Input::Remove { ticket, node } => self.remove(ticket, node, out),
            Input::Transfer { ticket, node } => {
                let done = self.transfer(node);
                out.push(Output::Done { ticket, done });
            }
        }
    }

    /// One tick of raft's clock, and what is done from time to time.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        assert_eq!(self.stage, Stage::Idle, "a ready is handled to its end first");
        if self.over {
            return;
        }
        self.ticks += 1;
        let timeout = self.election_timeout_ticks();
        self.raw.raft.set_randomized_election_timeout(timeout);
        let due = self.raw.tick();
        if due && self.raw.raft.state != StateRole::Leader {
            self.campaigns += 1;
        }
        self.reads.tick(now, self.is_beat(self.ticks), self.config.election_timeout());
        if self.ticks.is_multiple_of(self.config.heartbeat_ticks as u64) {
            self.asked = false;
        }
        self.watch_sending();
        self.renew_term();
        self.reconcile();
        self.compact();
        self.observe(out);
    }

    /// A leader of whom nobody asks anything sends heartbeats less often.
    fn is_beat(&self, tick: u64) -> bool {
        let config = &self.config;
        let ticks = if self.asked { config.heartbeat_ticks } else { config.calm_heartbeat_ticks };
        tick.is_multiple_of(ticks as u64)
    }

    /// Ticks from now on that would change nothing but raft's count of them, if nothing comes in. They may
    /// be made up together later, before anything else is taken in: so that a group that nobody uses need
    /// not wake for each.
    pub fn calm_ticks(&self) -> u32 {
        let raft = &self.raw.raft;
        let is_busy = self.over
            || !self.proposals.is_empty()
            || !self.waiting.is_empty()
            || !self.sending.is_empty()
            || self.fetching.is_some()
            || self.transfer_term.is_some()
            || self.reads.are_asked();
        match raft.state {
            _ if is_busy => 0,
            StateRole::Leader => {
                let next = |calm: &u32| self.is_beat(self.ticks + u64::from(*calm) + 1);
                (0..).find(next).unwrap_or(0)
            }
            // The last two before an election come one by one: what arrived meanwhile is taken in between.
            StateRole::Follower if raft.leader_id != 0 => {
                let timeout = self.election_timeout_ticks();
                u32::try_from(timeout.saturating_sub(raft.election_elapsed + 2)).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Hands to raft what gathered: commands in as few entries as they fit, reads in one round.
    pub fn turn(&mut self, now: Duration, out: &mut Vec<Output>) {
        assert_eq!(self.stage, Stage::Idle, "a ready is handled to its end first");
        self.observe(out);
        self.propose_gathered(out);
        self.start_round(now);
        self.finish_reads(now, out);
    }

    /// Raft waits this long without a leader; drawn anew for every term, role and try, but from the
    /// seed, where raft-rs itself would draw from the thread's generator.
    fn election_timeout_ticks(&self) -> usize {
        let raft = &self.raw.raft;
        let role = raft.state as u64;
        let parts = [self.config.seed, raft.id, raft.term, role, self.campaigns];
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        let draw = xxhash_rust::xxh3::xxh3_64(&bytes);
        let ticks = self.config.election_ticks;
        ticks + (draw % ticks as u64) as usize
    }

    /// Commands that gathered would be proposed by the next turn.
    pub fn may_propose(&self) -> bool {
        let is_busy = self.leading.is_some() && !self.over && !self.waiting.is_empty();
        let many = self.proposals.len() >= limits::PROPOSALS_AT_ONCE;
        !self.proposals.is_empty() && (many || !is_busy)
    }

    /// While a batch is on its way to the disks of a quorum, those that come wait for each other: few
    /// askers that wait for their answers would otherwise fill each batch, and each sync, with one
    /// command.
    fn propose_gathered(&mut self, out: &mut Vec<Output>) {
        if !self.may_propose() {
            return;
        }
        let (tickets, commands): (Vec<u64>, Vec<Bytes>) = self.proposals.drain(..).unzip();
        if self.leading.is_none() || self.over {
            let status = self.not_leader();
            let refused = |ticket| Output::Answer { ticket, answer: Err(status.clone()) };
            return out.extend(tickets.into_iter().map(refused));
        }
        let mut from = 0;
        while from < commands.len() {
            let (data, taken) = crate::commands::pack(&commands[from..]);
            let tickets = tickets[from..from + taken].to_vec();
            from += taken;
            if self.raw.propose(Vec::new(), data).is_ok() {
                self.wait_for_last(tickets, Kind::Commands);
            } else {
                let busy = Status::new(pb::Code::Busy, "too much is on its way to the replicas");
                let refused = |ticket| Output::Answer { ticket, answer: Err(busy.clone()) };
                out.extend(tickets.into_iter().map(refused));
            }
        }
    }

    /// The tickets wait for the entry that was just proposed.
    fn wait_for_last(&mut self, tickets: Vec<u64>, kind: Kind) {
        let raft = &self.raw.raft;
        let waiting = Waiting { term: raft.term, tickets, kind };
        let old = self.waiting.insert(raft.raft_log.last_index(), waiting);
        assert!(old.is_none(), "a leader appends to its own log");
    }

    /// Notices a change of role or leader.
    fn observe(&mut self, out: &mut Vec<Output>) {
        let raft = &self.raw.raft;
        let leading = (raft.state == StateRole::Leader).then_some(raft.term);
        if leading != self.leading {
            if self.leading.is_some() {
                self.step_down(out);
            }
            self.leading = leading;
            self.leading_since = self.ticks;
            self.reads.role_changed();
        }
        let raft = &self.raw.raft;
        let is_leader = leading.is_some() && raft.apply_to_current_term();
        let known_leader = self.known.leader.as_ref().map_or(0, |member| member.raft_id);
        if (raft.term, is_leader, raft.leader_id)
            != (self.known.term, self.known.is_leader, known_leader)
        {
            let leader = (raft.leader_id != 0).then(|| self.member(raft.leader_id));
            self.known = Leadership { term: raft.term, is_leader, leader };
            out.push(Output::Leadership(self.known.clone()));
        }
    }

    fn step_down(&mut self, out: &mut Vec<Output>) {
        let lost = Status::new(pb::Code::UnknownOutcome, "the leader stepped down before it knew");
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            answer_all(waiting, &lost, out);
        }
        for (_, sending) in std::mem::take(&mut self.sending) {
            self.raw.mut_store().unpin(sending.snapshot);
        }
    }

    fn not_leader(&self) -> Status {
        let leader = self.raw.raft.leader_id;
        let known = leader != 0 && leader != self.raw.raft.id && !self.over;
        Status::not_leader(known.then(|| self.address_of(leader)).flatten())
    }

    /// Lets go of log that no follower is likely to need.
    fn compact(&mut self) {
        let keep = self.config.log_keep_entries;
        let index = self.raw.store().truncatable(keep);
        let first = self.raw.store().first_index().expect("stores do not fail");
        // In steps, so that the deletion is paid once for many entries.
        if index >= first + keep / 8 + 16 {
            let batch = crate::store::StoreBatch { truncate: Some(index), ..Default::default() };
            self.raw.mut_store().write(batch, false);
        }
    }

    /// The hard state to write with this applied index: commit is never behind it on disk.
    fn hard_with(&self, applied: u64, hard: Option<&HardState>) -> HardState {
        let mut hard = hard.unwrap_or_else(|| self.raw.store().hard()).clone();
        hard.commit = hard.commit.max(applied).max(self.raw.store().hard().commit);
        hard
    }

    pub fn has_ready(&self) -> bool {
        !self.over && self.raw.has_ready()
    }

    /// What raft knows to be committed; followers may know it as soon as outputs are performed.
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub fn applied(&self) -> u64 {
        self.raw.store().applied()
    }

    /// Until then this replica is the only one that can answer, if it answers from a state that has
    /// applied [`Self::commit`].
    pub fn lease_until(&self) -> Option<Duration> {
        self.leading.and(self.reads.lease_until())
    }

    pub fn store(&self) -> &St {
        self.raw.store()
    }

    /// Ends the replica; the simulator goes on with the store after a crash.
    pub fn into_store(self) -> St {
        self.raw.raft.r.raft_log.store
    }

    pub fn machine(&self) -> &S {
        &self.machine
    }

    pub fn leadership(&self) -> &Leadership {
        &self.known
    }

    /// The group removed this replica.
    pub fn is_removed(&self) -> bool {
        self.over
    }

    pub fn config(&self) -> &ReplicaConfig {
        &self.config
    }
}

fn answer_all(waiting: Waiting, status: &Status, out: &mut Vec<Output>) {
    for ticket in waiting.tickets {
        out.push(match waiting.kind {
            Kind::Commands => Output::Answer { ticket, answer: Err(status.clone()) },
            Kind::Change => Output::Done { ticket, done: Err(status.clone()) },
        });
    }
}

fn raft_config(config: &ReplicaConfig, applied: u64) -> raft::Config {
    raft::Config {
        id: config.raft_id,
        election_tick: config.election_ticks,
        // Heartbeats are the rounds that renew the lease (`reads.rs`), and raft's own only a second net.
        heartbeat_tick: config.election_ticks - 1,
        skip_bcast_commit: !config.broadcast_commits,
        applied,
        max_size_per_msg: limits::MESSAGE_BYTES_MAX,
        max_inflight_msgs: limits::MESSAGES_INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        read_only_option: raft::ReadOnlyOption::Safe,
        // Off: it would merge messages without any bound on their size. Commands are grouped instead.
        batch_append: false,
        max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: limits::APPLY_BYTES_MAX,
        ..Default::default()
    }
}
