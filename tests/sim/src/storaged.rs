//! A simulated storage node: the driver around the CRAQ machines of its targets, as `ff2-storaged` is
//! around real disks and connections.

mod perform;
mod report;
mod scrub;
mod ways;

use std::{collections::BTreeMap, time::Duration};

use ff2_proto::{ChainId, ChainVersion, ChunkId, Code, NodeId, Routing, Status, TargetId, pb};
use ff2_storage_core::cuts::Cuts;
use ff2_storage_core::target::{Attempt, CallId, Input, Now, Reply, Target};
use scrub::Scrub;

use crate::{
    disk::{Content, Disk},
    message::{Answer, Call, ChunkCall, Message, RpcId},
    mutation::Mutation,
    net::Place,
    snapshots,
    world::{Context, Later},
};

/// Until the first join says how often to report.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(50);
/// While nothing is in progress.
const IDLE_TICK: Duration = Duration::from_millis(200);
const CALL_TIMEOUT: Duration = Duration::from_millis(800);
/// A forward waits for the disks of everybody behind.
const FORWARD_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A node, running or not: its disks and what it has written down.
#[derive(Debug)]
pub(crate) struct Storaged {
    pub(crate) place: Place,
    pub(crate) node: u32,
    generations: BTreeMap<TargetId, u64>,
    /// The chain version that each store last took part in.
    versions: BTreeMap<TargetId, u64>,
    pub(crate) disks: BTreeMap<TargetId, Disk>,
    mutation: Option<Mutation>,
    /// It looks at all that is stored from time to time.
    pub(crate) scrubs: bool,
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
    /// Which machine of its store each target is: one that left its chain is made anew.
    runs: BTreeMap<TargetId, u64>,
    /// Store operations in progress.
    storing: BTreeMap<TargetId, usize>,
    next_call: u64,
    callers: BTreeMap<CallId, (Place, RpcId)>,
    /// What the disk read of a call found.
    found: BTreeMap<CallId, Content>,
    asked: BTreeMap<RpcId, Asked>,
    metad: usize,
    heartbeat_at: Duration,
    /// A join or heartbeat is on its way.
    reporting: bool,
    scrub: Scrub,
    cuts: Cuts,
}

/// What an outgoing call was for.
#[derive(Debug)]
enum Asked {
    Join { sent: Duration },
    Heartbeat { sent: Duration },
    Forward { target: TargetId, chunk: ChunkId, attempt: Attempt, copy: bool },
    Query { target: TargetId, chunk: ChunkId, attempt: Attempt },
    Page { target: TargetId, attempt: Attempt },
    Done { target: TargetId, attempt: Attempt },
    Probe { node: NodeId },
}

impl Asked {
    fn target(&self) -> Option<TargetId> {
        match self {
            Self::Join { .. } | Self::Heartbeat { .. } | Self::Probe { .. } => None,
            Self::Forward { target, .. }
            | Self::Query { target, .. }
            | Self::Page { target, .. }
            | Self::Done { target, .. } => Some(*target),
        }
    }
}

/// What a node scheduled for itself.
#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Tick,
    /// The blocks of a new version are synced.
    Written {
        target: TargetId,
        chunk: ChunkId,
    },
    Stored {
        target: TargetId,
        chunk: ChunkId,
        sync: bool,
        result: Result<(), Status>,
    },
    Read {
        target: TargetId,
        run: u64,
        call: CallId,
        found: Result<Content, Status>,
    },
    Timeout(RpcId),
}

impl Storaged {
    pub(crate) fn new(place: Place, mutation: Option<Mutation>) -> Self {
        Self {
            place,
            node: 0,
            generations: BTreeMap::new(),
            versions: BTreeMap::new(),
            disks: BTreeMap::new(),
            mutation,
            scrubs: false,
            running: None,
        }
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
            runs: BTreeMap::new(),
            storing: BTreeMap::new(),
            next_call: 0,
            callers: BTreeMap::new(),
            found: BTreeMap::new(),
            asked: BTreeMap::new(),
            metad: cx.rng.within(0..cx.metads.len() as u64) as usize,
            heartbeat_at: cx.now,
            reporting: false,
            cuts: Cuts::default(),
            scrub: Scrub::default(),
        });
        cx.after(Duration::from_millis(1), Later::Storaged(Timer::Tick));
    }

    pub(crate) fn crash(&mut self, cx: &mut Context<'_>) {
        self.running = None;
        for disk in self.disks.values_mut() {
            disk.crash(cx.rng);
        }
    }

    /// The disks of a node that is down are replaced by empty ones: all of them, or the one of a target
    /// (whose index is damaged, so that a start would refuse it).
    pub(crate) fn wipe(&mut self, only: Option<TargetId>) {
        assert!(self.running.is_none(), "disks are replaced while the process is down");
        let stays = |target: &TargetId| only.is_some_and(|only| only != *target);
        self.disks.retain(|target, _| stays(target));
        self.generations.retain(|target, _| stays(target));
        self.versions.retain(|target, _| stays(target));
    }

    pub(crate) fn has_lease(&self, at: Duration) -> bool {
        self.running.as_ref().is_some_and(|running| at < running.lease_until)
    }

    /// Whether this target answers clients, but for the lease: one that found damage, or that leaves its chain,
    /// does not, although the cluster has not heard of it yet.
    pub(crate) fn serves(&self, target: TargetId) -> bool {
        let machine = self.running.as_ref().and_then(|running| running.targets.get(&target));
        machine.is_some_and(|machine| machine.role().serves() && machine.retired() == 0)
    }

    /// Whether a version on one of its disks is not what was written.
    pub(crate) fn is_damaged(&self) -> bool {
        self.disks.values().any(Disk::is_damaged)
    }

    /// Whether all that is committed can be read.
    pub(crate) fn reads_well(&self) -> bool {
        self.disks.values().all(|disk| disk.contents().is_ok())
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
        let of_target = match &timer {
            Timer::Written { target, .. }
            | Timer::Stored { target, .. }
            | Timer::Read { target, .. } => Some(*target),
            Timer::Tick | Timer::Timeout(_) => None,
        };
        if of_target.is_some_and(|target| !self.running().targets.contains_key(&target)) {
            // It was given up meanwhile.
            return;
        }
        match timer {
            Timer::Tick => self.tick(cx),
            Timer::Written { target, chunk } => {
                self.disks.get_mut(&target).expect("it was written to").written(chunk);
                let delay = cx.disk_delay();
                let stored = Timer::Stored { target, chunk, sync: true, result: Ok(()) };
                cx.after(delay, Later::Storaged(stored));
            }
            Timer::Stored { target, chunk, sync, result } => {
                if sync {
                    self.disks.get_mut(&target).expect("it was written to").sync();
                }
                *self.running().storing.get_mut(&target).expect("counted when it began") -= 1;
                self.step(cx, target, Input::Stored { chunk, result });
            }
            Timer::Read { target, run, call, found } => {
                if self.running().runs[&target] != run {
                    return;
                }
                let result = found.map(|content| {
                    self.running().found.insert(call, content);
                });
                self.step(cx, target, Input::ReadDone { call, result });
            }
            Timer::Timeout(rpc) => self.on_answer(cx, rpc, Answer::Silence),
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.report(cx);
        self.probe(cx);
        self.scrub(cx);
        let targets: Vec<TargetId> = self.running().targets.keys().copied().collect();
        let mut is_idle = true;
        for id in targets {
            let now = self.now(cx);
            let mut out = Vec::new();
            let target = self.running().targets.get_mut(&id).expect("listed");
            target.tick(now, &mut out);
            is_idle &= target.live_chunks() == 0 && !target.is_source();
            self.perform(cx, id, out);
            self.bring_back(cx, id);
        }
        cx.after(if is_idle { IDLE_TICK } else { TICK }, Later::Storaged(Timer::Tick));
    }

    /// A target that left its chain to have a chunk repaired starts anew, once nothing of it is in
    /// progress any more.
    fn bring_back(&mut self, cx: &mut Context<'_>, id: TargetId) {
        let running = self.running();
        let is_storing = running.storing.get(&id).is_some_and(|count| *count > 0);
        if is_storing || !running.targets[&id].may_return() {
            return;
        }
        let old = running.targets.remove(&id).expect("looked at above");
        running.asked.retain(|_, asked| asked.target() != Some(id));
        running.heartbeat_at = cx.now;
        let record = running.routing.targets[&id].clone();
        self.open(&record, old.suspects().collect());
        self.tell(cx, &record);
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("events of a crashed process are dropped")
    }

    fn now(&mut self, cx: &Context<'_>) -> Now {
        let is_unfenced = self.mutation == Some(Mutation::Fence);
        Now { at: cx.now, lease: is_unfenced || cx.now < self.running().lease_until }
    }

    fn ask(&mut self, cx: &mut Context<'_>, to: Place, call: Call, limit: Duration, asked: Asked) {
        let rpc = cx.next_rpc();
        self.running().asked.insert(rpc, asked);
        cx.send(to, Message::Call { rpc, from: cx.place, call });
        cx.after(limit, Later::Storaged(Timer::Timeout(rpc)));
    }

    pub(crate) fn on_call(&mut self, cx: &mut Context<'_>, from: Place, rpc: RpcId, call: Call) {
        let Call::Chunk { target, mut call } = call else {
            panic!("a storage node is asked about chunks");
        };
        if !self.running().targets.contains_key(&target) {
            let status = Status::new(Code::NoSuchTarget, "not created here yet");
            let reply = Reply::Update(Err(status));
            return cx
                .send(from, Message::Answer { rpc, answer: Answer::Chunk(reply, Vec::new()) });
        }
        self.mutate(target, &mut call);
        let running = self.running();
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

    /// Breaks a call as planted.
    fn mutate(&mut self, target: TargetId, call: &mut ChunkCall) {
        match self.mutation {
            Some(Mutation::VersionCheck) => {
                let present = self.chain_version(target);
                match call {
                    ChunkCall::Update(update) => update.chain_version = present,
                    ChunkCall::Forward(forward) => forward.chain_version = present,
                    ChunkCall::Query { chain_version, .. }
                    | ChunkCall::SyncDone { chain_version } => *chain_version = present,
                    ChunkCall::SyncPage(request) => request.chain_version = present,
                    ChunkCall::Read(_) => {}
                }
            }
            Some(Mutation::OnceChunks) => {
                if let ChunkCall::Update(update) = call {
                    update.tag = None;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn on_settle(
        &mut self,
        cx: &mut Context<'_>,
        target: TargetId,
        mut chain_version: ChainVersion,
        (from, outcomes): (TargetId, Vec<ff2_storage_core::target::Outcome>),
    ) {
        if !self.running().targets.contains_key(&target) {
            return;
        }
        if self.mutation == Some(Mutation::VersionCheck) {
            chain_version = self.chain_version(target);
        }
        self.step(cx, target, Input::Settle { chain_version, from, outcomes });
    }

    fn step(&mut self, cx: &mut Context<'_>, id: TargetId, input: Input<Content>) {
        let now = self.now(cx);
        let mut out = Vec::new();
        let target = self.running().targets.get_mut(&id).expect("the target runs here");
        target.step(now, input, &mut out);
        if target.role().takes_updates() {
            let version = target.chain().version;
            self.versions.insert(id, version);
        }
        self.perform(cx, id, out);
    }

    fn chain_version(&mut self, id: TargetId) -> ChainVersion {
        ChainVersion(self.running().targets[&id].chain().version)
    }

    /// Removes the targets that were given up, creates new ones and tells all of them their chains.
    fn follow_routing(&mut self, cx: &mut Context<'_>) {
        let node = self.node;
        let known: Vec<TargetId> = self.disks.keys().copied().collect();
        for id in known {
            let record = self.running().routing.targets.get(&id);
            if record.is_some_and(|target| target.chain == 0 && target.node == 0) {
                self.remove(id);
            }
        }
        let here: Vec<pb::Target> =
            self.running().routing.targets.values().filter(|t| t.node == node).cloned().collect();
        for target in here {
            let id = TargetId(target.id);
            if !self.running().targets.contains_key(&id) {
                self.disks.entry(id).or_default();
                self.generations.entry(id).or_insert_with(|| cx.rng.next() | 1);
                self.open(&target, Vec::new());
                self.running().heartbeat_at = cx.now;
            }
            self.tell(cx, &target);
        }
    }

    /// Whether it retires comes with the chain, as a lease that is valid comes with both.
    fn tell(&mut self, cx: &mut Context<'_>, target: &pb::Target) {
        let id = TargetId(target.id);
        if self.mutation != Some(Mutation::Retire) {
            self.step(cx, id, Input::Retire(target.retiring));
        }
        if self.mutation != Some(Mutation::Keep) {
            let told = snapshots::told(&self.running().routing);
            self.step(cx, id, Input::Snapshots(told));
        }
        let chain = self.running().routing.chains[&ChainId(target.chain)].clone();
        self.step(cx, id, Input::Chain(chain));
    }

    /// The store of a target that the cluster gave up goes with all that was in progress.
    fn remove(&mut self, id: TargetId) {
        self.disks.remove(&id);
        self.generations.remove(&id);
        self.versions.remove(&id);
        let running = self.running();
        running.targets.remove(&id);
        running.storing.remove(&id);
        running.asked.retain(|_, asked| asked.target() != Some(id));
    }

    /// A store serves only under a version made from now on: what it missed, or whether another store
    /// was here before it, is for the cluster to judge first.
    fn open(&mut self, target: &pb::Target, suspects: Vec<ChunkId>) {
        let id = TargetId(target.id);
        let mutation = self.mutation;
        if self.running().targets.contains_key(&id) {
            return;
        }
        let disk = self.disks.get_mut(&id).expect("a target that is opened has a disk");
        if mutation == Some(Mutation::Checksum) {
            disk.blind();
        }
        let loaded = disk.load();
        let noted = self.versions.get(&id).copied().unwrap_or(0);
        let chain = self.running().routing.chains[&ChainId(target.chain)].version;
        let serve_after = ChainVersion(chain.max(noted));
        let machine = Target::new(id, ChainId(target.chain), serve_after, loaded);
        self.running().targets.insert(id, machine.with_suspects(suspects));
        *self.running().runs.entry(id).or_default() += 1;
    }
}
