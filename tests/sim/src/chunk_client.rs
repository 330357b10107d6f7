//! A client that writes and reads cells of chunks, and remembers what it was told.

use std::time::Duration;

use ff2_proto::{
    ChainVersion, ChunkId, Code, InodeId, NodeId, Routing, Status, TargetId, limits, pb,
    routing::ChainExt,
};
use ff2_storage_core::target::{Change, ReadAnswer, Reply, Update};

use crate::{
    disk::CELL,
    history::{Action, Operation},
    message::{Answer, Call, ChunkCall, Message, RpcId},
    net::Place,
    world::{Context, Later},
};

/// Chunks that all clients share: few, so that they meet.
const CHUNKS: u64 = 6;
const CELLS: u64 = 2;
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// A register: one cell of one chunk.
pub(crate) type Register = (ChunkId, u64);

#[derive(Debug)]
pub(crate) struct ChunkClient {
    pub(crate) place: Place,
    session: u64,
    seq: u64,
    routing: Routing,
    current: Option<Current>,
    /// What was done, in order of calls; an operation without a return was never answered.
    pub(crate) history: Vec<(Register, Operation)>,
    pub(crate) stopping: bool,
    metad: usize,
    waiting: Option<RpcId>,
    asked_routing: bool,
    /// The target the last attempt went to did not answer: try another.
    avoid: Option<u64>,
}

#[derive(Clone, Debug)]
struct Current {
    chunk: ChunkId,
    cell: u64,
    /// `None`: a read.
    write: Option<u64>,
    record: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Next,
    Timeout(RpcId),
}

impl ChunkClient {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            session: u64::from(place),
            seq: 0,
            routing: Routing::default(),
            current: None,
            history: Vec::new(),
            stopping: false,
            metad: 0,
            waiting: None,
            asked_routing: false,
            avoid: None,
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        cx.after(Duration::from_millis(10), Later::ChunkClient(Timer::Next));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none()
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
            if self.stopping {
                return;
            }
            self.begin(cx);
        }
        let current = self.current.clone().expect("begun above");
        let chains: Vec<&pb::Chain> = self.routing.chains.values().collect();
        let chain = chains[(current.chunk.inode.0 % chains.len() as u64) as usize];
        let members: Vec<&pb::ChainMember> = match current.write {
            Some(_) => chain.head().into_iter().collect(),
            None => chain.serving().collect(),
        };
        let fresh: Vec<_> =
            members.iter().copied().filter(|m| Some(m.target) != self.avoid).collect();
        let choice = if fresh.is_empty() { &members } else { &fresh };
        let Some(&member) = cx.rng.pick(choice) else {
            return self.ask_routing(cx);
        };
        let address = self.routing.address(NodeId(member.node)).and_then(|a| a.parse().ok());
        let Some(to) = address else { return self.ask_routing(cx) };
        let call = match current.write {
            None => ChunkCall::Read(current.chunk),
            Some(value) => ChunkCall::Update(Update {
                chain_version: ChainVersion(chain.version),
                chunk: current.chunk,
                change: Change::Write {
                    offset: current.cell as u32 * CELL,
                    length: CELL,
                    payload: vec![value],
                },
                chunk_size: limits::CHUNK_SIZE_MIN,
                tag: Some(pb::UpdateTag { session: self.session, channel: 0, seq: self.seq }),
            }),
        };
        let target = TargetId(member.target);
        self.avoid = Some(member.target);
        self.ask(cx, to, Call::Chunk { target, call });
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        let chunk = ChunkId { inode: InodeId(100 + cx.rng.within(0..CHUNKS)), index: 0 };
        let cell = cx.rng.within(0..CELLS);
        let write = cx.rng.chance(55).then(|| {
            self.seq += 1;
            // Different from every other write of any client, and never 0.
            u64::from(self.place) << 32 | self.seq
        });
        let action = write.map_or(Action::Read(0), Action::Write);
        self.history.push(((chunk, cell), Operation { action, called: cx.now, returned: None }));
        self.current = Some(Current { chunk, cell, write, record: self.history.len() - 1 });
        self.avoid = None;
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
                cx.rng.within(1..20)
            }
            Answer::Chunk(Reply::Update(Ok(_)), _) => self.finish(cx, 0),
            Answer::Chunk(Reply::Read(Ok(found)), content) => {
                let cell = self.current.as_ref().map_or(0, |current| current.cell);
                let value = match found {
                    ReadAnswer::Absent => 0,
                    ReadAnswer::Data => content.get(cell as usize).copied().unwrap_or(0),
                };
                self.finish(cx, value)
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
        cx.rng.within(5..80)
    }

    fn finish(&mut self, cx: &mut Context<'_>, value: u64) -> u64 {
        let current = self.current.take().expect("an answer ends what was begun");
        let operation = &mut self.history[current.record].1;
        operation.returned = Some(cx.now);
        if current.write.is_none() {
            operation.action = Action::Read(value);
        }
        self.avoid = None;
        cx.rng.within(5..120)
    }
}
