//! A simulated metad: the replicas of group 0 and group 1, and the leader's duties.

mod moving;
mod sessions;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ff2_daemon::config::LeaseConfig;
use ff2_group::{
    LogStore, MemStore,
    replica::{Input, Output, Replica, ReplicaConfig},
};
use ff2_meta_core::{
    MemKv,
    cluster::{self, ClusterMachine, Heard, JoinTurn, LeaseBook, LeaseTimes, Moves, Spares},
    namespace::{self, SessionBook},
};
use ff2_proto::{Code, GroupId, RoutingVersion, Status, pb};
use pb::{cluster_command::Fact, ns_request::Op};
use prost::Message as _;

use crate::{
    joining::{Disk, Joining},
    keeping,
    message::{Answer, Call, Message, RpcId},
    mutation::Mutation,
    names::Names,
    net::Place,
    seen::Seen,
    setting::Setting,
    snapshots::Snapshots,
    table::{self, REPLICAS, Table},
    wishes::Wishes,
    world::{Context, FOUNDERS, Later},
};

/// Fewer ticks and heartbeats than a real metad's, for the same second without a leader before an election.
const RAFT_TICK: Duration = Duration::from_millis(100);
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
const PAGE_TIMEOUT: Duration = Duration::from_millis(400);

#[derive(Debug)]
pub(crate) struct Metad {
    pub(crate) place: Place,
    /// What is on disk while the process is down.
    disks: Option<[Disk; 2]>,
    joining: Option<Joining>,
    running: Option<Running>,
    /// The operator took it out, or did not yet bring it in.
    is_out: bool,
    mutation: Option<Mutation>,
    table: Table,
    pub(crate) wishes: Wishes,
    /// How many of the rebalances that were asked for it has begun.
    rebalanced: u64,
    pub(crate) snapshots: Snapshots,
    /// After so long what stays away is made anew elsewhere; 0: never.
    pub(crate) spares_after_ms: u64,
    /// What is removed is kept for a while.
    pub(crate) keeps: bool,
    /// Sessions that say nothing for a while are ended.
    pub(crate) ends_sessions: bool,
}

#[derive(Debug)]
struct Running {
    cluster: Replica<MemStore, ClusterMachine>,
    namespace: Replica<MemStore, Names>,
    /// The book of the term in which this replica leads group 0.
    book: Option<(u64, LeaseBook)>,
    moves: Moves,
    spares: Spares,
    next_ticket: u64,
    tickets: BTreeMap<u64, Ticket>,
    /// Facts of the book that are not answered yet.
    facts: usize,
    last_stamp_ns: i64,
    /// A step of emptying the trash is not answered yet.
    is_emptying: bool,
    /// Of the term in which this replica leads the namespace.
    sessions: Option<(u64, SessionBook)>,
    /// A step of ending sessions is not answered yet.
    is_expiring: bool,
    /// The snapshot page that each group waits for.
    pages: [Option<u64>; 2],
}

#[derive(Debug)]
enum Ticket {
    Fact,
    Setup,
    LetIn {
        to: Place,
    },
    Remove {
        to: Place,
        rpc: RpcId,
    },
    Join {
        to: Place,
        rpc: RpcId,
    },
    /// A heartbeat is answered only after a quorum confirmed that this replica leads: a lease from a
    /// deposed leader would let a node serve beside its successors.
    Heartbeat {
        to: Place,
        rpc: RpcId,
        term: u64,
        request: pb::HeartbeatRequest,
    },
    Routing {
        to: Place,
        rpc: RpcId,
        since: u64,
    },
    Mutation {
        to: Place,
        rpc: RpcId,
    },
    Emptied,
    Expired,
    /// As a heartbeat: a session that a deposed leader renewed could be ended by its successor.
    Keepalive {
        to: Place,
        rpc: RpcId,
        term: u64,
        request: pb::NsRequest,
    },
    Read {
        to: Place,
        rpc: RpcId,
        request: pb::NsRequest,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Tick,
    PageTimeout { group: u32, snapshot: u64 },
    AskAgain,
}

impl Metad {
    pub(crate) fn new(place: Place, seed: u64, setting: Setting) -> Self {
        let member = |m: Place| pb::Member {
            raft_id: u64::from(m),
            node: m,
            address: m.to_string(),
            incarnation: 0,
        };
        let members = FOUNDERS.map(member);
        let is_out = !FOUNDERS.contains(&place);
        let formed = |group: u64| Disk::formed(place, seed ^ group, &members);
        let disks = (!is_out).then(|| [formed(0), formed(1)]);
        Self {
            place,
            disks,
            joining: None,
            running: None,
            is_out,
            mutation: setting.mutation,
            table: setting.table,
            wishes: Wishes::default(),
            rebalanced: 0,
            snapshots: Snapshots::default(),
            spares_after_ms: 0,
            keeps: false,
            ends_sessions: false,
        }
    }

    /// It is no part of the cluster and is not started.
    pub(crate) fn is_out(&self) -> bool {
        self.is_out
    }

    /// From now on it may be started, with empty disks.
    pub(crate) fn come_in(&mut self, seeds: [u64; 2]) {
        self.is_out = false;
        self.wipe(seeds);
    }

    pub(crate) fn go_out(&mut self) {
        assert!(!self.is_running(), "who is taken out is stopped first");
        self.is_out = true;
        self.disks = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some() || self.joining.is_some()
    }

    pub(crate) fn has_replicas(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it leads group 0.
    pub(crate) fn leads(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.cluster.leadership().is_leader)
    }

    /// Whether it leads a group that is in a joint configuration.
    pub(crate) fn leads_between(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let Running { cluster, namespace, .. } = running;
        (cluster.leadership().is_leader && !cluster.store().conf().voters_outgoing.is_empty())
            || (namespace.leadership().is_leader
                && !namespace.store().conf().voters_outgoing.is_empty())
    }

    /// The raft ids of its replicas.
    pub(crate) fn raft_ids(&self) -> Option<[u64; 2]> {
        let ids = |r: &Running| [r.cluster.config().raft_id, r.namespace.config().raft_id];
        self.running.as_ref().map(ids)
    }

    /// Whether each group consists of these voters and of nobody else, as far as this replica has
    /// applied its log.
    pub(crate) fn sees_voters(&self, ids: [&[u64]; 2]) -> bool {
        let Some(running) = &self.running else { return false };
        let confs = [running.cluster.store().conf(), running.namespace.store().conf()];
        confs.into_iter().zip(ids).all(|(conf, ids)| {
            let mut voters = conf.voters.clone();
            voters.sort_unstable();
            voters == ids && conf.voters_outgoing.is_empty() && conf.learners.is_empty()
        })
    }

    /// How each group stands, as this replica sees it.
    pub(crate) fn explain(&self) -> Vec<String> {
        let Some(running) = &self.running else { return Vec::new() };
        let groups = [
            (running.cluster.status(), running.cluster.store().conf()),
            (running.namespace.status(), running.namespace.store().conf()),
        ];
        groups.iter().map(|(status, conf)| format!("{status:?}, configuration {conf:?}")).collect()
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        let disks = self.disks.take().expect("a process that is down left its disks");
        let joining = Joining::new(disks);
        if joining.is_over() {
            return self.run(cx, joining);
        }
        joining.ask(cx);
        self.joining = Some(joining);
    }

    fn run(&mut self, cx: &mut Context<'_>, joined: Joining) {
        let seed = cx.rng.next();
        let Joining { disks: [zero, one], members: [zeros, ones] } = joined;
        let config = |group: u32, raft_id| ReplicaConfig {
            group: GroupId(group),
            node: self.place,
            raft_id,
            address: self.place.to_string(),
            tick: RAFT_TICK,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: HEARTBEAT_TICKS,
            // As often: seeds that were found before keep their meaning.
            calm_heartbeat_ticks: HEARTBEAT_TICKS,
            first_tick: 0,
            // Short, so that followers that were away are fed by snapshots.
            log_keep_entries: 200,
            broadcast_commits: group == 0,
            seed: seed ^ u64::from(group),
        };
        let open = "the store was written by a replica";
        let zero_config = config(0, zero.raft_id);
        let one_config = config(1, one.raft_id);
        let cluster = Replica::new(zero_config, zero.store, ClusterMachine::new(), cx.now);
        let namespace = Replica::new(one_config, one.store, Names::new(self.mutation), cx.now);
        let (mut cluster, mut namespace) = (cluster.expect(open), namespace.expect(open));
        cluster.introduce(zeros);
        namespace.introduce(ones);
        self.running = Some(Running {
            cluster,
            namespace,
            book: None,
            moves: Moves::default(),
            spares: Spares::default(),
            next_ticket: 0,
            tickets: BTreeMap::new(),
            facts: 0,
            last_stamp_ns: 0,
            is_emptying: false,
            sessions: None,
            is_expiring: false,
            pages: [None, None],
        });
        cx.after(RAFT_TICK, Later::Metad(Timer::Tick));
    }

    pub(crate) fn crash(&mut self, cx: &mut Context<'_>) {
        if let Some(joining) = self.joining.take() {
            self.disks = Some(joining.disks);
        }
        let Some(ids) = self.raft_ids() else { return };
        let running = self.running.take().expect("it has replicas");
        let mut lose = |store: MemStore| {
            let kept = cx.rng.within(0..store.unsynced() as u64 + 1) as usize;
            store.crash(kept, cx.rng.next())
        };
        let zero = lose(running.cluster.into_store());
        let one = lose(running.namespace.into_store());
        self.disks = Some([Disk::left(zero, ids[0]), Disk::left(one, ids[1])]);
    }

    /// The disk of a process that is down is replaced by an empty one.
    pub(crate) fn wipe(&mut self, seeds: [u64; 2]) {
        assert!(!self.is_running(), "disks are replaced while the process is down");
        self.disks = Some(seeds.map(|seed| Disk::empty(self.place, seed)));
    }

    /// Index and content of both groups, for the final comparison.
    pub(crate) fn states(&self) -> [(u64, &MemKv); 2] {
        let running = self.running.as_ref().expect("everything runs at the end");
        let (zero, one) = (running.cluster.store(), running.namespace.store());
        [(zero.applied(), zero.kv()), (one.applied(), one.kv())]
    }

    pub(crate) fn routing(&self) -> Option<std::sync::Arc<ff2_proto::Routing>> {
        use ff2_meta_core::StateMachine as _;
        self.running.as_ref().map(|running| running.cluster.machine().view())
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::AskAgain => {
                if let Some(joining) = &self.joining {
                    joining.ask(cx);
                }
            }
            Timer::Tick => {
                cx.after(RAFT_TICK, Later::Metad(Timer::Tick));
                let running = self.running();
                let mut out = Vec::new();
                running.cluster.tick(cx.now, &mut out);
                self.perform(cx, 0, out);
                let mut out = Vec::new();
                self.running().namespace.tick(cx.now, &mut out);
                self.perform(cx, 1, out);
                self.lead(cx);
                self.lead_names(cx);
                self.end_sessions(cx);
                self.drain(cx);
            }
            Timer::PageTimeout { group, snapshot } => {
                let page = Err(Status::new(Code::Timeout, "no page"));
                self.on_page(cx, group, snapshot, page);
            }
        }
    }

    pub(crate) fn on_message(&mut self, cx: &mut Context<'_>, from: Place, message: Message) {
        if let Some(joining) = &mut self.joining {
            if let Message::LetIn { group, reply } = message {
                joining.on_reply(group, reply);
            }
            if let Some(joined) = self.joining.take_if(|joining| joining.is_over()) {
                self.run(cx, joined);
            }
            return;
        }
        match message {
            Message::JoinGroup { request } => {
                let group = request.group;
                let ticket = self.ticket(Ticket::LetIn { to: from });
                self.step(cx, group, Input::Join { ticket, request });
            }
            // It is in already.
            Message::LetIn { .. } => {}
            Message::Raft { group, batch } => self.step(cx, group, Input::Messages(batch)),
            Message::FetchSnapshot { group, request } => {
                let running = self.running();
                let page = match group {
                    0 => running.cluster.store().page(&request),
                    _ => running.namespace.store().page(&request),
                };
                let snapshot = request.snapshot;
                cx.send(from, Message::SnapshotPage { group, snapshot, page });
            }
            Message::SnapshotPage { group, snapshot, page } => {
                self.on_page(cx, group, snapshot, Ok(page));
            }
            Message::Call { rpc, from, call } => self.on_call(cx, from, rpc, call),
            Message::Answer { .. } | Message::Settle { .. } => panic!("a metad asks nobody"),
        }
        self.drain(cx);
    }

    fn on_page(
        &mut self,
        cx: &mut Context<'_>,
        group: u32,
        snapshot: u64,
        page: Result<pb::FetchSnapshotReply, Status>,
    ) {
        // One answer for each request: the page, or its timeout.
        let waits = &mut self.running().pages[group as usize];
        if waits.take_if(|waiting| *waiting == snapshot).is_some() {
            self.step(cx, group, Input::Page { snapshot, page });
        }
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("events of a crashed process are dropped")
    }

    fn ticket(&mut self, ticket: Ticket) -> u64 {
        let running = self.running();
        running.next_ticket += 1;
        running.tickets.insert(running.next_ticket, ticket);
        running.next_ticket
    }

    fn step(&mut self, cx: &mut Context<'_>, group: u32, input: Input) {
        let mut out = Vec::new();
        let running = self.running();
        match group {
            0 => running.cluster.step(cx.now, input, &mut out),
            _ => running.namespace.step(cx.now, input, &mut out),
        }
        self.perform(cx, group, out);
    }

    /// Runs both replicas until they have nothing left to do.
    fn drain(&mut self, cx: &mut Context<'_>) {
        macro_rules! group {
            ($number:literal, $replica:ident) => {
                let mut out = Vec::new();
                self.running().$replica.turn(cx.now, &mut out);
                self.perform(cx, $number, out);
                while self.running().$replica.has_ready() {
                    let mut out = Vec::new();
                    self.running().$replica.take_ready(cx.now, &mut out);
                    self.running().$replica.apply_ready(cx.now, &mut out);
                    self.running().$replica.persist_ready(cx.now, &mut out);
                    self.perform(cx, $number, out);
                }
            };
        }
        group!(0, cluster);
        group!(1, namespace);
    }

    fn perform(&mut self, cx: &mut Context<'_>, group: u32, outputs: Vec<Output>) {
        let place = |address: &str| address.parse::<Place>().expect("addresses are places");
        for output in outputs {
            match output {
                Output::Send { address, batch } => {
                    cx.send(place(&address), Message::Raft { group, batch });
                }
                Output::Fetch { address, request } => {
                    let snapshot = request.snapshot;
                    self.running().pages[group as usize] = Some(snapshot);
                    cx.send(place(&address), Message::FetchSnapshot { group, request });
                    let timer = Timer::PageTimeout { group, snapshot };
                    cx.after(PAGE_TIMEOUT, Later::Metad(timer));
                }
                Output::Answer { ticket, answer } => self.on_applied(cx, ticket, answer),
                Output::Read { ticket, may } => self.on_readable(cx, ticket, may),
                Output::Leadership(_) | Output::Applied => {}
                Output::Joined { ticket, reply } => {
                    let Some(Ticket::LetIn { to }) = self.running().tickets.remove(&ticket) else {
                        panic!("who is let in has asked");
                    };
                    cx.send(to, Message::LetIn { group, reply });
                }
                Output::Done { ticket, done } => {
                    let Some(Ticket::Remove { to, rpc }) = self.running().tickets.remove(&ticket)
                    else {
                        panic!("a removal was asked for");
                    };
                    cx.send(to, Message::Answer { rpc, answer: Answer::Removed(done) });
                }
                // It takes part in nothing any more; the operator stops it.
                Output::Removed => {}
                Output::Stop(reason) => panic!("a replica stops: {reason}"),
            }
        }
    }

    fn on_call(&mut self, cx: &mut Context<'_>, from: Place, rpc: RpcId, call: Call) {
        match call {
            Call::Join(request) => self.on_join(cx, from, rpc, request),
            Call::Heartbeat(request) => {
                let term = self.running().cluster.leadership().term;
                let ticket = self.ticket(Ticket::Heartbeat { to: from, rpc, term, request });
                self.step(cx, 0, Input::Read { ticket });
            }
            Call::Routing { since } => {
                let ticket = self.ticket(Ticket::Routing { to: from, rpc, since });
                self.step(cx, 0, Input::Read { ticket });
            }
            Call::Votes { group, node } => {
                let votes = self.votes(group, node);
                cx.send(from, Message::Answer { rpc, answer: Answer::Votes(votes) });
            }
            Call::Remove { group, node } => {
                let ticket = self.ticket(Ticket::Remove { to: from, rpc });
                self.step(cx, group, Input::Remove { ticket, node });
            }
            Call::Namespace(request) if namespace::is_mutation(&request) => {
                self.propose_mutation(cx, from, rpc, request);
            }
            Call::Namespace(request) if matches!(request.op, Some(Op::Keepalive(_))) => {
                let term = self.running().namespace.leadership().term;
                let ticket = self.ticket(Ticket::Keepalive { to: from, rpc, term, request });
                self.step(cx, 1, Input::Read { ticket });
            }
            Call::Namespace(request) => {
                let ticket = self.ticket(Ticket::Read { to: from, rpc, request });
                self.step(cx, 1, Input::Read { ticket });
            }
            Call::Chunk { .. } => panic!("a metad holds no chunks"),
        }
    }

    fn votes(&mut self, group: u32, node: Place) -> Result<bool, Status> {
        let running = self.running();
        let (leads, status) = match group {
            0 => (running.cluster.leadership().is_leader, running.cluster.status()),
            _ => (running.namespace.leadership().is_leader, running.namespace.status()),
        };
        if !leads {
            return Err(Status::not_leader(None));
        }
        Ok(status.members.iter().any(|member| member.node == node && member.voter))
    }

    fn propose_mutation(
        &mut self,
        cx: &mut Context<'_>,
        to: Place,
        rpc: RpcId,
        request: pb::NsRequest,
    ) {
        let ticket = self.ticket(Ticket::Mutation { to, rpc });
        self.propose_names(cx, ticket, request);
    }

    fn propose_names(&mut self, cx: &mut Context<'_>, ticket: u64, request: pb::NsRequest) {
        let layout = pb::Layout {
            table: 1,
            table_version: 1,
            chunk_size: ff2_proto::limits::CHUNK_SIZE_MIN,
            stripe: 1,
            seed: 0,
        };
        let seed = cx.rng.next();
        // Where times count, all have one wall clock; what runs apart is what leases go by.
        let now = if self.keeps { cx.world_now } else { cx.now };
        let running = self.running();
        running.last_stamp_ns = (running.last_stamp_ns + 1).max(now.as_nanos() as i64);
        let stamp = running.last_stamp_ns;
        let mut command = namespace::stamp(request, stamp, seed, Some(layout));
        if self.keeps {
            command.level = ff2_proto::LEVEL;
        }
        let command = Bytes::from(command.encode_to_vec());
        self.step(cx, 1, Input::Propose { ticket, command });
    }

    fn on_join(&mut self, cx: &mut Context<'_>, to: Place, rpc: RpcId, request: pb::JoinRequest) {
        let routing = self.routing().expect("it runs");
        let refusal = match self.book(cx) {
            None => Some(self.not_leader()),
            Some(book) => match book.join(millis(cx.now), &routing, &request) {
                JoinTurn::Now => None,
                JoinTurn::AfterJudgement | JoinTurn::Taken => Some(Code::Busy.into()),
            },
        };
        if let Some(status) = refusal {
            return cx.send(to, Message::Answer { rpc, answer: Answer::Joined(Err(status)) });
        }
        self.propose(cx, Fact::Join(request), Ticket::Join { to, rpc });
    }

    fn propose(&mut self, cx: &mut Context<'_>, fact: Fact, ticket: Ticket) {
        let ticket = self.ticket(ticket);
        let command = pb::ClusterCommand { now_ms: millis(cx.now), fact: Some(fact), level: 0 };
        let command = Bytes::from(command.encode_to_vec());
        self.step(cx, 0, Input::Propose { ticket, command });
    }

    fn not_leader(&mut self) -> Status {
        let leader = self.running().cluster.leadership().leader.clone();
        Status::not_leader(leader.map(|member| member.address))
    }

    /// The lease book, if this replica leads group 0; a new one in each term.
    fn book(&mut self, cx: &Context<'_>) -> Option<&mut LeaseBook> {
        let running = self.running();
        let leadership = running.cluster.leadership();
        if !leadership.is_leader {
            running.book = None;
            return None;
        }
        let term = leadership.term;
        if running.book.as_ref().is_none_or(|(of, _)| *of != term) {
            running.book = Some((term, LeaseBook::new(times(), millis(cx.now))));
            running.moves = Moves::default();
            running.spares = Spares::default();
            running.facts = 0;
        }
        running.book.as_mut().map(|(_, book)| book)
    }

    /// What a leader of group 0 does from time to time.
    fn lead(&mut self, cx: &mut Context<'_>) {
        let routing = self.routing().expect("it runs");
        let outstanding = self.running().facts > 0;
        let Some(book) = self.book(cx) else { return };
        if outstanding {
            return;
        }
        let mut facts = Vec::new();
        book.tick(millis(cx.now), &routing, &mut facts);
        for fact in facts {
            self.running().facts += 1;
            self.propose(cx, fact, Ticket::Fact);
        }
        if self.running().facts == 0
            && let Some(fact) = setup(&routing, self.table)
        {
            self.running().facts += 1;
            self.propose(cx, fact, Ticket::Setup);
        }
        if self.running().facts == 0
            && let Some(fact) = self.made_anew(cx, &routing)
        {
            cx.seen.insert(Seen::SpareTaken);
            self.running().facts += 1;
            self.propose(cx, fact, Ticket::Fact);
        }
        if self.running().facts == 0
            && let Some(fact) = self.moving(cx, &routing)
        {
            self.running().facts += 1;
            self.propose(cx, fact, Ticket::Fact);
        }
    }

    /// What a leader of the namespace does from time to time.
    fn lead_names(&mut self, cx: &mut Context<'_>) {
        let is_hasty = self.mutation == Some(Mutation::Trash);
        let kept = if is_hasty { Duration::ZERO } else { keeping::KEPT };
        let keeps = self.keeps;
        let running = self.running();
        if !keeps || running.is_emptying || !running.namespace.leadership().is_leader {
            return;
        }
        let next =
            running.namespace.store().with_state(|kv| keeping::empty(kv, cx.world_now, kept));
        if let Some(op) = next {
            running.is_emptying = true;
            let ticket = self.ticket(Ticket::Emptied);
            let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
            self.propose_names(cx, ticket, request);
        }
    }

    fn on_applied(&mut self, cx: &mut Context<'_>, ticket: u64, answer: Result<Bytes, Status>) {
        let routing = self.routing().expect("it runs");
        let running = self.running();
        match running.tickets.remove(&ticket).expect("each ticket is answered once") {
            Ticket::Fact | Ticket::Setup => running.facts = running.facts.saturating_sub(1),
            Ticket::Join { to, rpc } => {
                let joined = answer.and_then(|bytes| {
                    let reply = pb::ClusterReply::decode(bytes).expect("a reply of the machine");
                    ff2_proto::status::check(reply.status)?;
                    Ok(pb::JoinReply {
                        node_id: reply.node_id,
                        lease_ms: times().lease_ms,
                        heartbeat_ms: times().heartbeat_ms,
                        routing: Some(cluster::delta(&routing, RoutingVersion(0))),
                        ..Default::default()
                    })
                });
                cx.send(to, Message::Answer { rpc, answer: Answer::Joined(joined) });
            }
            Ticket::Mutation { to, rpc } => {
                let reply =
                    answer.map(|bytes| pb::NsReply::decode(bytes).expect("a reply of the machine"));
                cx.send(to, Message::Answer { rpc, answer: Answer::Namespace(reply) });
            }
            Ticket::Emptied => {
                running.is_emptying = false;
                let reply = answer.ok().and_then(|bytes| pb::NsReply::decode(bytes).ok());
                if reply.is_some_and(|reply| reply.trash_emptied > 0) {
                    cx.seen.insert(Seen::TrashEmptied);
                }
            }
            Ticket::Expired => running.is_expiring = false,
            other => panic!("{other:?} proposes nothing"),
        }
    }

    fn on_readable(&mut self, cx: &mut Context<'_>, ticket: u64, may: Result<(), Status>) {
        let routing = self.routing().expect("it runs");
        match self.running().tickets.remove(&ticket).expect("each ticket is answered once") {
            Ticket::Heartbeat { to, rpc, term, request } => {
                let reply = may.and_then(|()| self.renew(cx, &routing, term, request));
                cx.send(to, Message::Answer { rpc, answer: Answer::Heartbeat(reply) });
            }
            Ticket::Routing { to, rpc, since } => {
                let delta = may.map(|()| cluster::delta(&routing, RoutingVersion(since)));
                cx.send(to, Message::Answer { rpc, answer: Answer::Routing(delta) });
            }
            Ticket::Read { to, rpc, request } => {
                let store = self.running().namespace.store();
                let reply = may.map(|()| store.with_state(|kv| namespace::query(kv, &request)));
                cx.send(to, Message::Answer { rpc, answer: Answer::Namespace(reply) });
            }
            Ticket::Keepalive { to, rpc, term, request } => {
                let reply = may.and_then(|()| self.keep_session(cx, term, &request));
                cx.send(to, Message::Answer { rpc, answer: Answer::Namespace(reply) });
            }
            other => panic!("{other:?} reads nothing"),
        }
    }

    fn renew(
        &mut self,
        cx: &Context<'_>,
        routing: &ff2_proto::Routing,
        term: u64,
        request: pb::HeartbeatRequest,
    ) -> Result<pb::HeartbeatReply, Status> {
        let since = request.routing_version;
        let same_term = self.running().cluster.leadership().term == term;
        let Some(book) = self.book(cx).filter(|_| same_term) else {
            return Err(self.not_leader());
        };
        match book.heartbeat(millis(cx.now), routing, request) {
            Heard::Renewed => Ok(pb::HeartbeatReply {
                lease_ms: times().lease_ms,
                routing: Some(cluster::delta(routing, RoutingVersion(since))),
            }),
            Heard::MustJoin => Err(Status::new(Code::NotServing, "join first")),
            Heard::Dying => Err(Status::new(Code::Busy, "being declared dead")),
        }
    }
}

/// As a cluster is configured if nobody says otherwise.
fn times() -> LeaseTimes {
    let LeaseConfig { lease_ms, heartbeat_ms, .. } = LeaseConfig::default();
    LeaseTimes { lease_ms, heartbeat_ms }
}

fn millis(at: Duration) -> u64 {
    at.as_millis() as u64
}

/// What a person would do once: name the cluster, lay out a table, make a volume.
fn setup(routing: &ff2_proto::Routing, table: Table) -> Option<Fact> {
    if routing.cluster_id.is_empty() {
        return Some(Fact::Bootstrap(pb::Bootstrap {
            level: ff2_proto::LEVEL,
            cluster_id: "sim".into(),
            lease_ms: times().lease_ms,
            heartbeat_ms: times().heartbeat_ms,
        }));
    }
    let disks = cluster::placeable_disks(routing);
    if routing.tables.is_empty() && disks.len() == table::NODES {
        return Some(Fact::CreateTable(pb::CreateTable {
            replicas: REPLICAS,
            description: "sim".into(),
            chains: table.chains(&disks),
        }));
    }
    None
}
