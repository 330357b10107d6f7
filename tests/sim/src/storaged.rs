//! A simulated storage node: the driver around the CRAQ machines of its targets, as `ff2-storaged` is
//! around real disks and connections.

use std::{collections::BTreeMap, time::Duration};

use ff2_proto::{ChainId, ChainVersion, Code, NodeId, Routing, Status, TargetId, pb};
use ff2_storage_core::target::{Attempt, CallId, Forward, Input, Now, Output, Reply, Target};

use crate::{
    disk::{Content, Disk, Wait},
    message::{Answer, Call, ChunkCall, Message, RpcId},
    net::Place,
    world::{Context, Later},
};

/// Until the first join says how often to report.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(50);
const CALL_TIMEOUT: Duration = Duration::from_millis(800);
/// A forward waits for the disks of everybody behind.
const FORWARD_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A node, running or not: its disks and what it has written down.
#[derive(Debug)]
pub(crate) struct Storaged {
    pub(crate) place: Place,
    pub(crate) node: u32,
    generations: BTreeMap<TargetId, u64>,
    pub(crate) disks: BTreeMap<TargetId, Disk>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    incarnation: u64,
    joined: bool,
    routing: Routing,
    lease_until: Duration,
    lease_ms: u32,
    heartbeat: Duration,
    targets: BTreeMap<TargetId, Target<Content>>,
    next_call: u64,
    callers: BTreeMap<CallId, (Place, RpcId)>,
    /// What the disk read of a call found.
    found: BTreeMap<CallId, Content>,
    asked: BTreeMap<RpcId, Asked>,
    metad: usize,
    heartbeat_at: Duration,
    /// A join or heartbeat is on its way.
    reporting: bool,
}

/// What an outgoing call was for.
#[derive(Debug)]
enum Asked {
    Join { sent: Duration },
    Heartbeat { sent: Duration },
    Forward { target: TargetId, chunk: ff2_proto::ChunkId, attempt: Attempt, copy: bool },
    Query { target: TargetId, chunk: ff2_proto::ChunkId, attempt: Attempt },
    Page { target: TargetId, attempt: Attempt },
    Done { target: TargetId, attempt: Attempt },
}

/// What a node scheduled for itself.
#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Tick,
    /// The blocks of a new version are synced.
    Written {
        target: TargetId,
        chunk: ff2_proto::ChunkId,
    },
    Stored {
        target: TargetId,
        chunk: ff2_proto::ChunkId,
        sync: bool,
    },
    Read {
        target: TargetId,
        call: CallId,
        content: Content,
    },
    Timeout(RpcId),
}

impl Storaged {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, node: 0, generations: BTreeMap::new(), disks: BTreeMap::new(), running: None }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        self.running = Some(Running {
            incarnation: cx.rng.next() | 1,
            joined: false,
            routing: Routing::default(),
            lease_until: Duration::ZERO,
            lease_ms: 0,
            heartbeat: JOIN_PAUSE,
            targets: BTreeMap::new(),
            next_call: 0,
            callers: BTreeMap::new(),
            found: BTreeMap::new(),
            asked: BTreeMap::new(),
            metad: cx.rng.within(0..3) as usize,
            heartbeat_at: cx.now,
            reporting: false,
        });
        cx.after(Duration::from_millis(1), Later::Storaged(Timer::Tick));
    }

    pub(crate) fn crash(&mut self, cx: &mut Context<'_>) {
        self.running = None;
        for disk in self.disks.values_mut() {
            disk.crash(cx.rng);
        }
    }

    /// As [`Storaged::crash`], and the disks are replaced by empty ones.
    pub(crate) fn wipe(&mut self) {
        assert!(self.running.is_none(), "disks are replaced while the process is down");
        self.disks.clear();
        self.generations.clear();
    }

    pub(crate) fn has_lease(&self, at: Duration) -> bool {
        self.running.as_ref().is_some_and(|running| at < running.lease_until)
    }

    /// The newest routing that it was told.
    pub(crate) fn routing(&self) -> Option<&Routing> {
        self.running.as_ref().map(|running| &running.routing)
    }

    /// Nothing waits, nothing is being changed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.targets.values().all(|t| t.live_chunks() == 0))
    }

    pub(crate) fn explain(&self) -> Vec<String> {
        let targets = self.running.iter().flat_map(|r| r.targets.values());
        targets
            .flat_map(|t| {
                let head = format!("{:?} {:?} at {}", t.id(), t.role(), t.chain().version);
                std::iter::once(head).chain(t.explain())
            })
            .collect()
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Tick => self.tick(cx),
            Timer::Written { target, chunk } => {
                self.disks.get_mut(&target).expect("it was written to").written(chunk);
                let delay = cx.disk_delay();
                let stored = Timer::Stored { target, chunk, sync: true };
                cx.after(delay, Later::Storaged(stored));
            }
            Timer::Stored { target, chunk, sync } => {
                if sync {
                    self.disks.get_mut(&target).expect("it was written to").sync();
                }
                self.step(cx, target, Input::Stored { chunk, result: Ok(()) });
            }
            Timer::Read { target, call, content } => {
                if let Some(running) = &mut self.running {
                    running.found.insert(call, content);
                }
                self.step(cx, target, Input::ReadDone { call, result: Ok(()) });
            }
            Timer::Timeout(rpc) => self.on_answer(cx, rpc, Answer::Silence),
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        cx.after(TICK, Later::Storaged(Timer::Tick));
        self.report(cx);
        let targets: Vec<TargetId> = self.running().targets.keys().copied().collect();
        for id in targets {
            let now = self.now(cx);
            let mut out = Vec::new();
            self.running().targets.get_mut(&id).expect("listed").tick(now, &mut out);
            self.perform(cx, id, out);
        }
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("events of a crashed process are dropped")
    }

    fn now(&mut self, cx: &Context<'_>) -> Now {
        Now { at: cx.now, lease: cx.now < self.running().lease_until }
    }

    /// Joins, or sends the heartbeat that is due.
    fn report(&mut self, cx: &mut Context<'_>) {
        let node = self.node;
        let generations = self.generations.clone();
        let disk = self.disk_record();
        let running = self.running();
        if running.reporting || cx.now < running.heartbeat_at {
            return;
        }
        running.reporting = true;
        running.heartbeat_at = cx.now + running.heartbeat;
        let sent = cx.now;
        let (asked, call) = if running.joined {
            let targets = running
                .targets
                .values()
                .map(|target| {
                    let report = target.report();
                    pb::TargetReport {
                        target: target.id().0,
                        local_state: report.local_state.into(),
                        generation: generations[&target.id()],
                        chain_version: report.chain_version,
                        ..Default::default()
                    }
                })
                .collect();
            let request = pb::HeartbeatRequest {
                node_id: node,
                incarnation: running.incarnation,
                targets,
                disks: vec![disk],
                routing_version: running.routing.version.0,
                ..Default::default()
            };
            (Asked::Heartbeat { sent }, Call::Heartbeat(request))
        } else {
            let request = pb::JoinRequest {
                node_id: node,
                role: pb::NodeRole::Storaged.into(),
                address: cx.place.to_string(),
                disks: vec![disk],
                incarnation: running.incarnation,
                ..Default::default()
            };
            (Asked::Join { sent }, Call::Join(request))
        };
        let metad = cx.metads[running.metad];
        self.ask(cx, metad, call, CALL_TIMEOUT, asked);
    }

    fn disk_record(&self) -> pb::Disk {
        let uuid = bytes::Bytes::from(vec![self.place as u8; 16]);
        pb::Disk { uuid, capacity_bytes: 1 << 30, ..Default::default() }
    }

    fn ask(&mut self, cx: &mut Context<'_>, to: Place, call: Call, limit: Duration, asked: Asked) {
        let rpc = cx.next_rpc();
        self.running().asked.insert(rpc, asked);
        cx.send(to, Message::Call { rpc, from: cx.place, call });
        cx.after(limit, Later::Storaged(Timer::Timeout(rpc)));
    }

    pub(crate) fn on_call(&mut self, cx: &mut Context<'_>, from: Place, rpc: RpcId, call: Call) {
        let Call::Chunk { target, call } = call else {
            panic!("a storage node is asked about chunks");
        };
        let running = self.running();
        if !running.targets.contains_key(&target) {
            let status = Status::new(Code::NoSuchTarget, "not created here yet");
            let reply = Reply::Update(Err(status));
            return cx
                .send(from, Message::Answer { rpc, answer: Answer::Chunk(reply, Vec::new()) });
        }
        running.next_call += 1;
        let id = CallId(running.next_call);
        running.callers.insert(id, (from, rpc));
        let input = match call {
            ChunkCall::Update(update) => Input::Update { call: id, update },
            ChunkCall::Forward(forward) => Input::Forward { call: id, forward },
            ChunkCall::Read(chunk) => Input::Read { call: id, chunk },
            ChunkCall::Query { chain_version, chunk } => {
                Input::Query { call: id, chain_version, chunk }
            }
            ChunkCall::SyncPage(request) => Input::SyncPage { call: id, request },
            ChunkCall::SyncDone { chain_version } => Input::SyncDone { call: id, chain_version },
        };
        self.step(cx, target, input);
    }

    pub(crate) fn on_settle(
        &mut self,
        cx: &mut Context<'_>,
        target: TargetId,
        input: Input<Content>,
    ) {
        if self.running().targets.contains_key(&target) {
            self.step(cx, target, input);
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, id: TargetId, input: Input<Content>) {
        let now = self.now(cx);
        let mut out = Vec::new();
        let target = self.running().targets.get_mut(&id).expect("the target runs here");
        target.step(now, input, &mut out);
        self.perform(cx, id, out);
    }

    fn perform(&mut self, cx: &mut Context<'_>, id: TargetId, outputs: Vec<Output<Content>>) {
        for output in outputs {
            match output {
                Output::Store { chunk, op } => {
                    let disk = self.disks.get_mut(&id).expect("every target has a disk");
                    let stored = |sync| Timer::Stored { target: id, chunk, sync };
                    let (delay, timer) = match disk.take(chunk, op) {
                        Wait::Blocks => (cx.disk_delay(), Timer::Written { target: id, chunk }),
                        Wait::Log => (cx.disk_delay(), stored(true)),
                        Wait::Nothing => (Duration::from_micros(20), stored(false)),
                    };
                    cx.after(delay, Later::Storaged(timer));
                }
                Output::Forward { to, attempt, forward } => {
                    self.forward(cx, id, &to, attempt, forward, false);
                }
                Output::ForwardFull { to, attempt, copy } => {
                    let found = self.disks[&id].pending(copy.chunk);
                    self.send_copy(cx, id, &to, attempt, copy, found, false);
                }
                Output::Copy { to, attempt, copy } => {
                    let found = self.disks[&id].committed(copy.chunk);
                    self.send_copy(cx, id, &to, attempt, copy, found, true);
                }
                Output::CopyRemoval { to, attempt, forward } => {
                    self.forward(cx, id, &to, attempt, forward, true);
                }
                Output::Settle { to, outcome } => {
                    let chain_version = self.chain_version(id);
                    let target = TargetId(to.target);
                    let message = Message::Settle { target, chain_version, from: id, outcome };
                    if let Some(place) = self.place_of(&to) {
                        cx.send(place, message);
                    }
                }
                Output::Query { to, attempt, chunk } => {
                    let chain_version = self.chain_version(id);
                    let call = ChunkCall::Query { chain_version, chunk };
                    self.ask_target(cx, &to, call, Asked::Query { target: id, chunk, attempt });
                }
                Output::Read { call, chunk } => {
                    let content = self.disks[&id].committed(chunk);
                    let content = content.map_or_else(Vec::new, |(_, content)| content);
                    let timer = Timer::Read { target: id, call, content };
                    let delay = cx.read_delay();
                    cx.after(delay, Later::Storaged(timer));
                }
                Output::SyncPage { to, attempt, request } => {
                    let call = ChunkCall::SyncPage(request);
                    self.ask_target(cx, &to, call, Asked::Page { target: id, attempt });
                }
                Output::SyncDone { to, attempt } => {
                    let chain_version = self.chain_version(id);
                    let call = ChunkCall::SyncDone { chain_version };
                    self.ask_target(cx, &to, call, Asked::Done { target: id, attempt });
                }
                Output::Reply { call, reply } => {
                    let running = self.running();
                    let content = running.found.remove(&call).unwrap_or_default();
                    if let Some((to, rpc)) = running.callers.remove(&call) {
                        let answer = Answer::Chunk(reply, content);
                        cx.send(to, Message::Answer { rpc, answer });
                    }
                }
                Output::Changed => self.running().heartbeat_at = cx.now,
            }
        }
    }

    fn chain_version(&mut self, id: TargetId) -> ChainVersion {
        ChainVersion(self.running().targets[&id].chain().version)
    }

    fn place_of(&mut self, member: &pb::ChainMember) -> Option<Place> {
        self.running().routing.address(NodeId(member.node)).and_then(|a| a.parse().ok())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one use for each of two outputs, alike but for the source"
    )]
    fn send_copy(
        &mut self,
        cx: &mut Context<'_>,
        id: TargetId,
        to: &pb::ChainMember,
        attempt: Attempt,
        copy: ff2_storage_core::target::FullCopy,
        found: Option<(ff2_storage_core::target::UpdateId, Content)>,
        committed: bool,
    ) {
        let chunk = copy.chunk;
        match found.filter(|(update, _)| *update == copy.id) {
            Some((_, content)) => {
                let forward = copy.with_payload(content);
                self.forward(cx, id, to, attempt, forward, committed);
            }
            None => {
                let status = Status::new(Code::Busy, "the store is at another version");
                let asked = Asked::Forward { target: id, chunk, attempt, copy: committed };
                self.conclude(cx, asked, Answer::Chunk(Reply::Update(Err(status)), Vec::new()));
            }
        }
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_>,
        id: TargetId,
        to: &pb::ChainMember,
        attempt: Attempt,
        forward: Forward<Content>,
        copy: bool,
    ) {
        let asked = Asked::Forward { target: id, chunk: forward.chunk, attempt, copy };
        self.ask_target(cx, to, ChunkCall::Forward(forward), asked);
    }

    fn ask_target(
        &mut self,
        cx: &mut Context<'_>,
        to: &pb::ChainMember,
        call: ChunkCall,
        asked: Asked,
    ) {
        let target = TargetId(to.target);
        let limit = match asked {
            Asked::Forward { .. } => FORWARD_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        match self.place_of(to) {
            Some(place) => self.ask(cx, place, Call::Chunk { target, call }, limit, asked),
            None => self.conclude(cx, asked, Answer::Silence),
        }
    }

    pub(crate) fn on_answer(&mut self, cx: &mut Context<'_>, rpc: RpcId, answer: Answer) {
        if let Some(asked) = self.running().asked.remove(&rpc) {
            self.conclude(cx, asked, answer);
        }
    }

    fn conclude(&mut self, cx: &mut Context<'_>, asked: Asked, answer: Answer) {
        let silence = || Status::new(Code::Unreachable, "no answer");
        match asked {
            Asked::Join { sent } => self.on_joined(cx, sent, answer),
            Asked::Heartbeat { sent } => self.on_heartbeat(cx, sent, answer),
            Asked::Forward { target, chunk, attempt, copy } => {
                let result = match answer {
                    Answer::Chunk(Reply::Update(result), _) => result.map(drop),
                    _ => Err(silence()),
                };
                let input = match copy {
                    true => Input::Copied { chunk, attempt, result },
                    false => Input::Forwarded { chunk, attempt, result },
                };
                self.step(cx, target, input);
            }
            Asked::Query { target, chunk, attempt } => {
                let result = match answer {
                    Answer::Chunk(Reply::Query(result), _) => result,
                    Answer::Chunk(Reply::Update(Err(status)), _) => Err(status),
                    _ => Err(silence()),
                };
                self.step(cx, target, Input::Queried { chunk, attempt, result });
            }
            Asked::Page { target, attempt } => {
                let result = match answer {
                    Answer::Chunk(Reply::SyncPage(result), _) => result,
                    Answer::Chunk(Reply::Update(Err(status)), _) => Err(status),
                    _ => Err(silence()),
                };
                self.step(cx, target, Input::Paged { attempt, result });
            }
            Asked::Done { target, attempt } => {
                let result = match answer {
                    Answer::Chunk(Reply::SyncDone(result), _) => result,
                    Answer::Chunk(Reply::Update(Err(status)), _) => Err(status),
                    _ => Err(silence()),
                };
                self.step(cx, target, Input::SyncEnded { attempt, result });
            }
        }
    }

    fn on_joined(&mut self, cx: &mut Context<'_>, sent: Duration, answer: Answer) {
        self.running().reporting = false;
        let reply = match answer {
            Answer::Joined(Ok(reply)) => reply,
            Answer::Joined(Err(status)) => return self.other_metad(cx, &status),
            _ => return self.other_metad(cx, &Code::Unreachable.into()),
        };
        self.node = reply.node_id;
        let running = self.running();
        running.joined = true;
        running.lease_ms = reply.lease_ms;
        running.heartbeat = Duration::from_millis(reply.heartbeat_ms.into());
        running.lease_until = sent + Duration::from_millis(u64::from(reply.lease_ms) / 2);
        running.heartbeat_at = cx.now;
        let routing = reply.routing.expect("a join is answered with the routing");
        running.routing.apply(routing);
        let node = self.node;
        let known: Vec<TargetId> = self.disks.keys().copied().collect();
        for id in known {
            let Some(target) = self.running().routing.targets.get(&id).cloned() else { continue };
            assert_eq!(target.node, node, "targets do not move between nodes");
            self.open(&target);
        }
        self.follow_routing(cx);
    }

    fn on_heartbeat(&mut self, cx: &mut Context<'_>, sent: Duration, answer: Answer) {
        let running = self.running();
        running.reporting = false;
        match answer {
            Answer::Heartbeat(Ok(reply)) => {
                let half = Duration::from_millis(u64::from(running.lease_ms) / 2);
                running.lease_until = running.lease_until.max(sent + half);
                if running.routing.apply(reply.routing.unwrap_or_default()) {
                    self.follow_routing(cx);
                }
            }
            Answer::Heartbeat(Err(status)) if status.code == Code::NotServing => {
                // The cluster does not know this incarnation (any more).
                running.joined = false;
                running.heartbeat_at = cx.now + running.heartbeat / 4;
            }
            Answer::Heartbeat(Err(status)) => self.other_metad(cx, &status),
            _ => self.other_metad(cx, &Code::Unreachable.into()),
        }
    }

    fn other_metad(&mut self, cx: &mut Context<'_>, status: &Status) {
        let hint = status.leader_address.as_ref().and_then(|address| address.parse().ok());
        let hinted = hint.and_then(|place: Place| cx.metads.iter().position(|&m| m == place));
        let pause = Duration::from_millis(cx.rng.within(20..150));
        let running = self.running();
        running.metad = hinted.unwrap_or((running.metad + 1) % cx.metads.len());
        running.heartbeat_at = cx.now + pause;
    }

    /// Creates new targets and tells all of them their chains.
    fn follow_routing(&mut self, cx: &mut Context<'_>) {
        let node = self.node;
        let here: Vec<pb::Target> =
            self.running().routing.targets.values().filter(|t| t.node == node).cloned().collect();
        for target in here {
            let id = TargetId(target.id);
            if !self.running().targets.contains_key(&id) {
                self.disks.entry(id).or_default();
                self.generations.entry(id).or_insert_with(|| cx.rng.next() | 1);
                self.open(&target);
                self.running().heartbeat_at = cx.now;
            }
            let chain = self.running().routing.chains[&ChainId(target.chain)].clone();
            self.step(cx, id, Input::Chain(chain));
        }
    }

    /// A store serves only under a version made from now on: what it missed, or whether another store
    /// was here before it, is for the cluster to judge first.
    fn open(&mut self, target: &pb::Target) {
        let id = TargetId(target.id);
        if self.running().targets.contains_key(&id) {
            return;
        }
        let loaded = self.disks[&id].load();
        let chain = self.running().routing.chains[&ChainId(target.chain)].version;
        let serve_after = ChainVersion(chain);
        let machine = Target::new(id, ChainId(target.chain), serve_after, loaded);
        self.running().targets.insert(id, machine);
    }
}
