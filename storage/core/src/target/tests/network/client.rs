//! Clients: each does one operation after the other and tries until it has an answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use ff2_proto::{ChunkId, Code, Status, limits as shared, pb, routing::ChainExt};

use super::{CHUNKS, Event, MS, Network, Origin, Request};
use crate::target::{
    Change, Reply, Update,
    tests::{
        chunk, cv,
        history::{Action, Op},
    },
};

const OPS: u64 = 30;
const PATIENCE: u64 = 5_000 * MS;

#[derive(Debug)]
pub(super) struct Client {
    session: u64,
    op: u64,
    attempt: u64,
    chain: Option<pb::Chain>,
    current: Option<Doing>,
    history: Vec<(u32, Op)>,
    last_failure: Option<Status>,
}

#[derive(Clone, Debug)]
struct Doing {
    index: u32,
    kind: Kind,
    called: u64,
    /// Chain versions under which it was tried.
    tried: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Set(u64),
    Remove,
    /// Bytes behind the register, so that partial writes meet each other.
    Noise(u64),
    Cut,
}

impl Client {
    pub(super) fn new(n: u64) -> Self {
        Self {
            session: n + 1,
            op: 0,
            attempt: 0,
            chain: None,
            current: None,
            history: Vec::new(),
            last_failure: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.op > OPS
    }

    pub(super) fn history(&self, index: u32) -> impl Iterator<Item = Op> {
        self.history.iter().filter(move |(i, _)| *i == index).map(|(_, op)| *op)
    }

    pub(super) fn explain(&self) -> String {
        format!(
            "client {}: op {}, {:?}, last failure {:?}",
            self.session, self.op, self.current, self.last_failure
        )
    }

    fn update(&self, doing: &Doing, version: u64) -> Update<Bytes> {
        let change = match doing.kind {
            Kind::Read => unreachable!("a read is no update"),
            Kind::Set(value) => {
                let payload = Bytes::copy_from_slice(&value.to_le_bytes());
                Change::Write { offset: 0, length: 8, payload }
            }
            Kind::Noise(value) => {
                let payload = Bytes::copy_from_slice(&value.to_le_bytes());
                Change::Write { offset: 8 + 4 * (value % 8) as u32, length: 8, payload }
            }
            Kind::Remove => Change::Remove,
            Kind::Cut => Change::Truncate { length: 0 },
        };
        let tag =
            pb::UpdateTag { session: self.session, channel: 0, seq: self.op, ack_below: self.op };
        Update {
            chain_version: cv(version),
            chunk: place(doing.index),
            change,
            chunk_size: shared::CHUNK_SIZE_MIN,
            tag: Some(tag),
        }
    }
}

fn place(index: u32) -> ChunkId {
    chunk(7, index)
}

impl Network {
    pub(super) fn next_op(&mut self, n: usize) {
        let now = self.now;
        let kind = match self.dice.below(20) {
            0..9 => Kind::Read,
            9..15 => Kind::Set(self.dice.roll() | 1),
            15..18 => Kind::Noise(self.dice.roll()),
            18 => Kind::Remove,
            _ => Kind::Cut,
        };
        let index = self.dice.below(u64::from(CHUNKS)) as u32;
        let client = &mut self.clients[n];
        client.op += 1;
        if client.is_done() {
            return;
        }
        client.current = Some(Doing { index, kind, called: now, tried: BTreeSet::new() });
        let op = client.op;
        self.at(0, Event::TryOp { client: n, op });
    }

    pub(super) fn try_op(&mut self, n: usize, op: u64) {
        if self.clients[n].op != op || self.clients[n].current.is_none() {
            return;
        }
        // Routing is fresh most of the time.
        if self.clients[n].chain.is_none() || self.dice.chance(70) {
            self.clients[n].chain = Some(self.manager.chain.clone());
        }
        let client = &mut self.clients[n];
        client.attempt += 1;
        let attempt = client.attempt;
        let chain = client.chain.clone().expect("just set");
        let doing = client.current.as_mut().expect("an operation is under way");
        doing.tried.insert(chain.version);
        let doing = doing.clone();
        let serving: Vec<u64> = chain.serving().map(|member| member.target).collect();
        let origin = Origin::Client { client: n, op };
        if !serving.is_empty() {
            let (to, request) = match doing.kind {
                Kind::Read => {
                    let to = serving[self.dice.below(serving.len() as u64) as usize];
                    (to, Request::Read(place(doing.index)))
                }
                Kind::Set(_) | Kind::Remove | Kind::Noise(_) | Kind::Cut => {
                    let update = self.clients[n].update(&doing, chain.version);
                    (serving[0], Request::Update(update))
                }
            };
            self.send(Event::Request { to, origin, request });
        }
        self.at(300 * MS, Event::GiveUp { client: n, op, attempt });
    }

    pub(super) fn op_timed_out(&mut self, n: usize, op: u64, attempt: u64) {
        let client = &self.clients[n];
        if client.op == op && client.attempt == attempt && client.current.is_some() {
            self.again(n, op);
        }
    }

    fn again(&mut self, n: usize, op: u64) {
        let doing = self.clients[n].current.clone().expect("an operation is under way");
        if self.now > doing.called + PATIENCE && self.in_chaos() {
            self.finish(n, None);
            return;
        }
        let pause = 5 * MS + self.dice.below(80 * MS);
        self.at(pause, Event::TryOp { client: n, op });
    }

    pub(super) fn op_answered(&mut self, n: usize, op: u64, reply: Reply, value: u64) {
        if self.clients[n].op != op || self.clients[n].current.is_none() {
            return;
        }
        match reply {
            Reply::Read(Ok(_)) => self.finish(n, Some(value)),
            Reply::Update(Ok(_)) => self.finish(n, Some(0)),
            Reply::Read(Err(status)) | Reply::Update(Err(status)) => {
                let is_final = matches!(status.code, Code::NoSpace | Code::StaleUpdate);
                if let Some(chain) = status.chain.as_deref() {
                    let known = self.clients[n].chain.as_ref().map_or(0, |chain| chain.version);
                    if chain.version > known {
                        self.clients[n].chain = Some(chain.clone());
                    }
                }
                self.clients[n].last_failure = Some(status);
                self.clients[n].attempt += 1;
                if is_final { self.finish(n, None) } else { self.again(n, op) }
            }
            reply => panic!("a client got {reply:?}"),
        }
    }

    /// `value`: what was read; None: nobody knows what became of it.
    fn finish(&mut self, n: usize, value: Option<u64>) {
        let now = self.now;
        let client = &mut self.clients[n];
        let doing = client.current.take().expect("an operation is under way");
        let action = match doing.kind {
            Kind::Read => value.map(Action::Get),
            Kind::Set(set) => Some(Action::Set(set)),
            Kind::Remove | Kind::Cut => Some(Action::Set(0)),
            Kind::Noise(_) => None,
        };
        if let Some(action) = action {
            let op = Op { called: doing.called, returned: value.map(|_| now), action };
            client.history.push((doing.index, op));
            if doing.tried.len() > 1 && !matches!(doing.kind, Kind::Read) {
                // The one hole in exactly-once (see `tags`): its entry goes with a removed chunk, and
                // tombstones are not durable.
                client.history.push((doing.index, Op { returned: None, ..op }));
            }
        }
        let pause = self.dice.below(150 * MS);
        self.at(pause, Event::NextOp { client: n });
    }
}
