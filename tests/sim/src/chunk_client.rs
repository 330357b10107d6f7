//! A client that writes, reads and cuts chunks, and remembers what it was told.

use std::time::Duration;

use ff2_proto::{
    ChainVersion, ChunkId, Code, InodeId, NodeId, Routing, Status, TargetId, limits, pb,
    routing::ChainExt,
};
use ff2_storage_core::target::{Change, ReadAnswer, Reply, Update};

use crate::{
    audit::Audit,
    disk::CELL,
    history::{Action, CELLS, Operation},
    message::{Answer, Call, ChunkCall, Message, RpcId},
    net::Place,
    pace::Pace,
    snapshots,
    world::{Context, Later},
};

/// Chunks that all clients share: few, so that they meet.
const CHUNKS: u64 = 6;
/// How long a chunk is used that is removed later.
const AGE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// What was done to a chunk, and which place answered.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) chunk: ChunkId,
    pub(crate) operation: Operation,
    pub(crate) by: Place,
}

#[derive(Debug)]
pub(crate) struct ChunkClient {
    pub(crate) place: Place,
    session: u64,
    seq: u64,
    routing: Routing,
    current: Option<Current>,
    /// In order of calls; an operation without a return was never answered.
    pub(crate) history: Vec<Done>,
    pub(crate) stopping: bool,
    /// Of the client that looks at every replica when the load is over.
    audit: Option<Audit>,
    metad: usize,
    waiting: Option<RpcId>,
    asked_routing: bool,
    /// The target the last attempt went to did not answer: try another.
    avoid: Option<u64>,
    pace: Pace,
}

#[derive(Clone, Debug)]
struct Current {
    chunk: ChunkId,
    action: Action,
    record: usize,
    /// Only this target is asked.
    only: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Next,
    Timeout(RpcId),
}

impl ChunkClient {
    pub(crate) fn new(place: Place, pace: Pace, audits: bool) -> Self {
        Self {
            place,
            session: u64::from(place),
            seq: 0,
            routing: Routing::default(),
            current: None,
            history: Vec::new(),
            stopping: false,
            audit: audits.then(Audit::default),
            metad: 0,
            waiting: None,
            asked_routing: false,
            avoid: None,
            pace,
        }
    }

    /// When the load is over.
    pub(crate) fn looks_at_nothing(&mut self) {
        self.audit = None;
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        cx.after(Duration::from_millis(10), Later::ChunkClient(Timer::Next));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.audit.as_ref().is_none_or(|audit| audit.is_over())
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Next => self.attempt(cx),
            Timer::Timeout(rpc) => self.on_answer(cx, rpc, Answer::Silence),
        }
    }

    fn attempt(&mut self, cx: &mut Context<'_>) {
        if self.waiting.is_some() {
            return;
        }
        if self.routing.chains.is_empty() || self.asked_routing {
            return self.ask_routing(cx);
        }
        if self.current.is_none() {
            if self.stopping && !self.begin_audit(cx) {
                return;
            }
            if !self.stopping {
                self.begin(cx);
            }
        }
        let Some(current) = self.current.clone() else { return self.ask_routing(cx) };
        let chain = chain_of(&self.routing, current.chunk);
        if let Some(only) = current.only
            && chain.members.iter().all(|member| member.target != only)
        {
            // It was moved since: the one in its place is looked at in another pass.
            self.audit.iter_mut().for_each(Audit::again);
            self.current = None;
            return self.ask_routing(cx);
        }
        let members: Vec<&pb::ChainMember> = match current.action {
            Action::Read { .. } => chain.serving().collect(),
            Action::Write { .. } | Action::Cut { .. } | Action::Remove => {
                chain.head().into_iter().collect()
            }
        };
        let may = |m: &&pb::ChainMember| current.only.is_none_or(|only| m.target == only);
        let members: Vec<_> = members.into_iter().filter(may).collect();
        let fresh: Vec<_> =
            members.iter().copied().filter(|m| Some(m.target) != self.avoid).collect();
        let choice = if fresh.is_empty() { &members } else { &fresh };
        let Some(&member) = cx.rng.pick(choice) else {
            return self.ask_routing(cx);
        };
        let address = self.routing.address(NodeId(member.node)).and_then(|a| a.parse().ok());
        let Some(to) = address else { return self.ask_routing(cx) };
        let call = self.call(&current, chain.version);
        let target = TargetId(member.target);
        self.avoid = Some(member.target);
        self.history[current.record].by = to;
        self.ask(cx, to, Call::Chunk { target, call });
    }

    fn call(&self, current: &Current, chain_version: u64) -> ChunkCall {
        let change = match current.action {
            Action::Read { .. } => return ChunkCall::Read(current.chunk),
            Action::Write { cell, value } => {
                Change::Write { offset: cell as u32 * CELL, length: CELL, payload: vec![value] }
            }
            Action::Remove => Change::Remove,
            Action::Cut { from } => Change::Truncate { length: from as u32 * CELL },
        };
        ChunkCall::Update(Update {
            chain_version: ChainVersion(chain_version),
            chunk: current.chunk,
            change,
            chunk_size: limits::CHUNK_SIZE_MIN,
            tag: Some(pb::UpdateTag {
                session: self.session,
                channel: 0,
                seq: self.seq,
                ack_below: self.seq,
            }),
        })
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        let age = age(cx.now);
        let mut chunk = match cx.rng.within(0..8) {
            0 => mortal(age),
            _ => numbered(cx.rng.within(0..CHUNKS)),
        };
        let cell = cx.rng.within(0..CELLS as u64) as usize;
        let action = match cx.rng.within(0..100) {
            0..4 if age > 0 => {
                chunk = mortal(cx.rng.within(0..age));
                Action::Remove
            }
            0..45 => Action::Read { cell, value: 0 },
            // Different from what every other write of any client writes, and never 0.
            45..94 => Action::Write { cell, value: u64::from(self.place) << 32 | (self.seq + 1) },
            _ => Action::Cut { from: cell },
        };
        if !matches!(action, Action::Read { .. }) {
            self.seq += 1;
        }
        let past = snapshots::readable(&self.routing);
        if matches!(action, Action::Read { .. }) && !past.is_empty() && cx.rng.chance(40) {
            chunk = chunk.at(*cx.rng.pick(&past).expect("there are some"));
        }
        self.record(cx, chunk, action, None);
    }

    fn record(&mut self, cx: &Context<'_>, chunk: ChunkId, action: Action, only: Option<u64>) {
        let operation = Operation { action, called: cx.now, returned: None };
        self.history.push(Done { chunk, operation, by: 0 });
        self.current = Some(Current { chunk, action, record: self.history.len() - 1, only });
        self.avoid = None;
    }

    /// The next look at a replica. False: there is none.
    fn begin_audit(&mut self, cx: &Context<'_>) -> bool {
        let Some(audit) = &mut self.audit else { return false };
        if audit.is_over() {
            return false;
        }
        if let Some((chunk, target)) = audit.next(cx.now, &self.routing) {
            self.record(cx, chunk, Action::Read { cell: 0, value: 0 }, Some(target));
        }
        self.audit.as_ref().is_some_and(|audit| !audit.is_over())
    }

    fn ask_routing(&mut self, cx: &mut Context<'_>) {
        self.asked_routing = true;
        let to = cx.metads[self.metad % cx.metads.len()];
        let since = self.routing.version.0;
        self.ask(cx, to, Call::Routing { since });
    }

    fn ask(&mut self, cx: &mut Context<'_>, to: Place, call: Call) {
        let rpc = cx.next_rpc();
        self.waiting = Some(rpc);
        cx.send(to, Message::Call { rpc, from: self.place, call });
        cx.after(TIMEOUT, Later::ChunkClient(Timer::Timeout(rpc)));
    }

    pub(crate) fn on_answer(&mut self, cx: &mut Context<'_>, rpc: RpcId, answer: Answer) {
        if self.waiting.take_if(|waiting| *waiting == rpc).is_none() {
            return;
        }
        let pause = match answer {
            Answer::Routing(Ok(delta)) => {
                self.asked_routing = false;
                self.routing.apply(delta);
                if self.stopping { 200 } else { cx.rng.within(1..20) }
            }
            Answer::Chunk(Reply::Update(Ok(_)), _) => self.finish(cx, &Vec::new()),
            Answer::Chunk(Reply::Read(Ok(found)), content) => {
                let content = if found == ReadAnswer::Data { content } else { Vec::new() };
                self.finish(cx, &content)
            }
            Answer::Chunk(Reply::Update(Err(status)) | Reply::Read(Err(status)), _) => {
                self.refused(cx, &status)
            }
            _ => {
                self.metad += 1;
                self.asked_routing = true;
                cx.rng.within(5..60)
            }
        };
        cx.after(Duration::from_millis(pause), Later::ChunkClient(Timer::Next));
    }

    fn refused(&mut self, cx: &mut Context<'_>, status: &Status) -> u64 {
        assert_ne!(status.code, Code::StaleUpdate, "the channel has one update in flight");
        let newer = status.chain.as_ref().is_some_and(|chain| self.routing.apply_chain(chain));
        if !newer && !matches!(status.code, Code::PendingVersion | Code::Busy) {
            self.asked_routing = true;
        }
        if status.code == Code::Corrupt
            && let Some(audit) = self.audit.as_mut().filter(|_| self.stopping)
        {
            // Its repair is under way; everything is looked at once more.
            audit.again();
            self.current = None;
        }
        cx.rng.within(5..80)
    }

    fn finish(&mut self, cx: &mut Context<'_>, content: &[u64]) -> u64 {
        let current = self.current.take().expect("an answer ends what was begun");
        let operation = &mut self.history[current.record].operation;
        operation.returned = Some(cx.now);
        if let Action::Read { cell, value } = &mut operation.action {
            *value = content.get(*cell).copied().unwrap_or(0);
        }
        self.avoid = None;
        if self.stopping { 1 } else { self.pace.pause_ms(cx.rng) }
    }
}

fn numbered(number: u64) -> ChunkId {
    ChunkId::new(InodeId(100 + number), 0)
}

/// The chunk that is used in this age, and only removed in later ones.
fn mortal(age: u64) -> ChunkId {
    ChunkId::new(InodeId(1_000 + age), 0)
}

fn age(now: Duration) -> u64 {
    now.as_secs() / AGE.as_secs()
}

/// Whatever clients may have used so far.
pub(crate) fn all_chunks(now: Duration) -> impl Iterator<Item = ChunkId> {
    (0..CHUNKS).map(numbered).chain((0..=age(now)).map(mortal))
}

/// The chain that a chunk lies on.
pub(crate) fn chain_of(routing: &Routing, chunk: ChunkId) -> &pb::Chain {
    let place = (chunk.inode.0 % routing.chains.len() as u64) as usize;
    routing.chains.values().nth(place).expect("a cluster that has chains")
}
