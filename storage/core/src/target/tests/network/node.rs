//! One node: a machine, its disk, and the driver's duties.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ff2_proto::{ChainId, ChunkId, Code, Status, TargetId, pb};

use super::{Event, MS, Network, Origin, RPC_TIMEOUT, Request, event::What};
use crate::target::{
    CallId, Forward, Input, Now, Output, Outputs, Reply, StoreOp, Target,
    tests::{Dice, cv, disk::Disk},
};

#[derive(Debug)]
pub(super) struct Node {
    id: u64,
    pub(super) life: u64,
    pub(super) target: Option<Target<Bytes>>,
    pub(super) disk: Disk,
    pub(super) lease_until: u64,
    pub(super) is_cut: bool,
    pub(super) reports: u64,
    pub(super) heard_report: u64,
    calls: BTreeMap<CallId, Origin>,
    values: BTreeMap<CallId, u64>,
    next_call: u64,
}

impl Node {
    pub(super) fn new(id: u64, serve_after: u64) -> Self {
        let mut node = Self {
            id,
            life: 0,
            target: None,
            disk: Disk::default(),
            lease_until: 0,
            is_cut: false,
            reports: 0,
            heard_report: 0,
            calls: BTreeMap::new(),
            values: BTreeMap::new(),
            next_call: 0,
        };
        node.start(serve_after);
        node
    }

    pub(super) fn start(&mut self, serve_after: u64) {
        self.life += 1;
        self.calls.clear();
        self.values.clear();
        self.lease_until = 0;
        let loaded = self.disk.load();
        self.target = Some(Target::new(TargetId(self.id), ChainId(1), cv(serve_after), loaded));
    }

    pub(super) fn crash(&mut self, dice: &mut Dice) {
        self.target = None;
        self.life += 1;
        self.disk.crash(dice);
    }

    pub(super) fn accept(&mut self, origin: Origin, request: Request) -> Input<Bytes> {
        self.next_call += 1;
        let call = CallId(self.next_call);
        self.calls.insert(call, origin);
        match request {
            Request::Update(update) => Input::Update { call, update },
            Request::Forward(forward) => Input::Forward { call, forward },
            Request::Read(chunk) => Input::Read { call, chunk },
            Request::Query(chain_version, chunk) => Input::Query { call, chain_version, chunk },
            Request::Page(request) => Input::SyncPage { call, request },
            Request::SyncDone(chain_version) => Input::SyncDone { call, chain_version },
            Request::Settle(chain_version, from, outcome) => {
                self.calls.remove(&call);
                Input::Settle { chain_version, from, outcomes: vec![outcome] }
            }
        }
    }

    pub(super) fn read(&mut self, call: CallId, chunk: ChunkId) {
        let bytes = self.disk.committed(chunk).map(|c| c.bytes.clone()).unwrap_or_default();
        let mut first = [0; 8];
        let length = bytes.len().min(8);
        first[..length].copy_from_slice(&bytes[..length]);
        self.values.insert(call, u64::from_le_bytes(first));
    }

    pub(super) fn step(&mut self, now: u64, input: Input<Bytes>) -> Outputs<Bytes> {
        let mut out = Vec::new();
        let moment = self.moment(now);
        if let Some(target) = &mut self.target {
            target.step(moment, input, &mut out);
            target.check();
        }
        out
    }

    pub(super) fn tick(&mut self, now: u64) -> Outputs<Bytes> {
        let mut out = Vec::new();
        let moment = self.moment(now);
        if let Some(target) = &mut self.target {
            target.tick(moment, &mut out);
        }
        out
    }

    fn moment(&self, now: u64) -> Now {
        Now { at: Duration::from_micros(now), lease: now < self.lease_until }
    }

    pub(super) fn is_quiet(&self, chain: &pb::Chain) -> bool {
        let quiet = |target: &Target<Bytes>| {
            target.live_chunks() == 0 && target.chain().version == chain.version
        };
        self.target.as_ref().is_some_and(quiet)
    }

    pub(super) fn explain(&self) -> String {
        match &self.target {
            None => format!("node {}: down", self.id),
            Some(target) => format!(
                "node {}: {:?} at {}, {:?}",
                self.id,
                target.role(),
                target.chain().version,
                target.explain()
            ),
        }
    }
}

impl Network {
    pub(super) fn step(&mut self, id: u64, input: Input<Bytes>) {
        let now = self.now;
        let out = self.nodes.get_mut(&id).unwrap().step(now, input);
        self.perform(id, out);
    }

    pub(super) fn perform(&mut self, id: u64, out: Outputs<Bytes>) {
        for output in out {
            self.perform_one(id, output);
        }
    }

    fn perform_one(&mut self, id: u64, output: Output<Bytes>) {
        let life = self.nodes[&id].life;
        self.note(&output);
        match output {
            Output::Store { chunk, op } => {
                let delay = self.dice.below(3 * MS);
                self.at(delay, Event::Store { node: id, life, chunk, op });
            }
            Output::Forward { to, attempt, forward } => {
                let what = What::Forward { chunk: forward.chunk, attempt };
                self.ask(id, to, what, Request::Forward(forward));
            }
            Output::ForwardFull { to, attempt, copy } => {
                let what = What::Forward { chunk: copy.chunk, attempt };
                let content = self.nodes[&id].disk.pending(copy.chunk);
                let content = content.filter(|content| content.id == copy.id).cloned();
                self.send_copy(id, to, what, content.map(|c| copy.with_payload(c.bytes.into())));
            }
            Output::Copy { to, attempt, copy } => {
                let what = What::Copy { chunk: copy.chunk, attempt };
                let content = self.nodes[&id].disk.committed(copy.chunk);
                let content = content.filter(|content| content.id == copy.id).cloned();
                self.send_copy(id, to, what, content.map(|c| copy.with_payload(c.bytes.into())));
            }
            Output::CopyRemoval { to, attempt, forward } => {
                let what = What::Copy { chunk: forward.chunk, attempt };
                self.ask(id, to, what, Request::Forward(forward));
            }
            Output::Settle { to, outcome } => {
                let version = self.nodes[&id].target.as_ref().unwrap().chain().version;
                let request = Request::Settle(cv(version), TargetId(id), outcome);
                self.send(Event::Request { to: to.target, origin: Origin::Nobody, request });
            }
            Output::Query { to, attempt, chunk } => {
                let version = self.nodes[&id].target.as_ref().unwrap().chain().version;
                self.ask(
                    id,
                    to,
                    What::Query { chunk, attempt },
                    Request::Query(cv(version), chunk),
                );
            }
            Output::Read { call, chunk } => {
                let delay = self.dice.below(3 * MS);
                self.at(delay, Event::DiskRead { node: id, life, call, chunk });
            }
            Output::SyncPage { to, attempt, request } => {
                self.ask(id, to, What::Page { attempt }, Request::Page(request));
            }
            Output::SyncDone { to, attempt } => {
                let version = self.nodes[&id].target.as_ref().unwrap().chain().version;
                self.ask(id, to, What::SyncDone { attempt }, Request::SyncDone(cv(version)));
            }
            Output::Reply { call, reply } => self.reply(id, call, reply),
            Output::Changed => self.send_report(id),
        }
    }

    fn note(&mut self, output: &Output<Bytes>) {
        match output {
            Output::ForwardFull { .. } => self.saw("forward whole"),
            Output::Copy { .. } => self.saw("copy"),
            Output::CopyRemoval { .. } => self.saw("copy of removal"),
            Output::Query { .. } => self.saw("query"),
            Output::Settle { outcome, .. } if !outcome.committed => self.saw("outcome dropped"),
            Output::Reply { reply: Reply::Update(Err(status)), .. } => match status.code {
                Code::MissingUpdate => self.saw("missing base"),
                Code::Busy => self.saw("refused copy"),
                _ => {}
            },
            Output::Forward { .. }
            | Output::Settle { .. }
            | Output::Store { .. }
            | Output::Read { .. }
            | Output::SyncPage { .. }
            | Output::SyncDone { .. }
            | Output::Reply { .. }
            | Output::Changed => {}
        }
    }

    fn send_copy(
        &mut self,
        id: u64,
        to: pb::ChainMember,
        what: What,
        forward: Option<Forward<Bytes>>,
    ) {
        match forward {
            Some(forward) => self.ask(id, to, what, Request::Forward(forward)),
            None => {
                let life = self.nodes[&id].life;
                let input = what.failed(Status::new(Code::Busy, "the version moved on"));
                self.at(1, Event::Local { node: id, life, input });
            }
        }
    }

    fn ask(&mut self, id: u64, to: pb::ChainMember, what: What, request: Request) {
        let life = self.nodes[&id].life;
        let origin = Origin::Node { node: id, life, what };
        self.send(Event::Request { to: to.target, origin, request });
        let input = what.failed(Status::new(Code::Timeout, "no answer"));
        self.at(RPC_TIMEOUT, Event::Local { node: id, life, input });
    }

    fn reply(&mut self, id: u64, call: CallId, reply: Reply) {
        let node = self.nodes.get_mut(&id).unwrap();
        let origin = node.calls.remove(&call).expect("a call is answered once");
        let value = node.values.remove(&call).unwrap_or(0);
        self.send(Event::Answer { origin, reply, value });
    }

    pub(super) fn store(&mut self, id: u64, life: u64, chunk: ChunkId, op: &StoreOp<Bytes>) {
        if self.nodes[&id].life != life {
            return;
        }
        let chaos = self.in_chaos();
        let is_full = chaos
            && matches!(op, StoreOp::Prepare { .. })
            && self.dice.chance(self.faults.full_disk);
        let result = if is_full {
            self.saw("full disk");
            Err(Status::new(Code::NoSpace, "the disk is full"))
        } else {
            self.nodes.get_mut(&id).unwrap().disk.perform(chunk, op);
            Ok(())
        };
        self.step(id, Input::Stored { chunk, result });
    }
}
