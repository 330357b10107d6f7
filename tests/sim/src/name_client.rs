//! A client that changes a folder of its own, in which nothing may fail, and shares one file's mtime
//! with the others as a register.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use ff2_proto::{ROOT_INODE, Retry, Status, pb, status};
use pb::ns_request::Op;

use crate::{
    history::{Action, Operation},
    keeping::{self, NAMES_MAX},
    message::{Answer, Call, Message, RpcId},
    net::Place,
    pace::Pace,
    seen::Seen,
    world::{Context, Later},
};

const TIMEOUT: Duration = Duration::from_millis(1_500);
/// In every time that a client sets, and beyond what the clock reaches, in ns.
const WRITTEN: u64 = 1 << 62;
/// The shared file.
const SHARED: &[u8] = b"shared";

#[derive(Debug)]
pub(crate) struct NameClient {
    pub(crate) place: Place,
    session: u64,
    seq: u64,
    folder: u64,
    shared: u64,
    /// The names that must be in the folder.
    pub(crate) names: BTreeSet<Bytes>,
    current: Option<(pb::NsRequest, Goal)>,
    pub(crate) history: Vec<Operation>,
    pub(crate) problems: Vec<String>,
    pub(crate) stopping: bool,
    waiting: Option<RpcId>,
    metad: usize,
    counter: u64,
    pace: Pace,
    /// The last operation of all reads the register in peace.
    read_last: bool,
    /// Quotas and the trash are in use, and told of so far.
    pub(crate) keeps: bool,
    told: usize,
    /// When the present operation was begun: it may be done long before it is answered.
    begun: Duration,
    /// What it removed last, and when at the earliest.
    removed: Option<(Bytes, Duration)>,
    /// Names that were not in the trash although they were removed a moment ago.
    pub(crate) missed: Vec<Bytes>,
}

#[derive(Clone, Debug)]
enum Goal {
    Session,
    Folder,
    /// Somebody makes the shared file, everybody looks it up.
    MakeShared,
    FindShared,
    Added(Bytes),
    Removed(Bytes),
    /// The folder is full.
    Beyond,
    Told,
    Kept(Bytes, Duration),
    Renamed(Bytes, Bytes),
    Register(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Next,
    Timeout(RpcId),
}

impl NameClient {
    pub(crate) fn new(place: Place, pace: Pace) -> Self {
        Self {
            place,
            session: 0,
            seq: 0,
            folder: 0,
            shared: 0,
            names: BTreeSet::new(),
            current: None,
            history: Vec::new(),
            problems: Vec::new(),
            stopping: false,
            waiting: None,
            metad: 0,
            counter: 0,
            pace,
            read_last: false,
            keeps: false,
            told: 0,
            begun: Duration::ZERO,
            removed: None,
            missed: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        cx.after(Duration::from_millis(10), Later::NameClient(Timer::Next));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && (!self.stopping || self.read_last)
    }

    pub(crate) fn folder_name(&self) -> Bytes {
        Bytes::from(format!("folder-{}", self.place))
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
        if self.current.is_none() {
            let next = match (self.stopping, self.read_last) {
                (false, _) => self.begin(cx),
                (true, false) if self.shared != 0 => {
                    self.read_last = true;
                    self.read_shared(cx)
                }
                (true, _) => {
                    self.read_last = true;
                    return;
                }
            };
            self.current = Some(next);
            self.begun = cx.now;
        }
        let (request, _) = self.current.clone().expect("begun above");
        let rpc = cx.next_rpc();
        self.waiting = Some(rpc);
        let to = cx.metads[self.metad % cx.metads.len()];
        let call = Call::Namespace(request);
        cx.send(to, Message::Call { rpc, from: self.place, call });
        cx.after(TIMEOUT, Later::NameClient(Timer::Timeout(rpc)));
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> (pb::NsRequest, Goal) {
        if self.session == 0 {
            let nonce = u64::from(self.place);
            let open = pb::OpenSessionOp { description: "sim".into(), nonce, ..Default::default() };
            return (self.request(Op::OpenSession(open), true), Goal::Session);
        }
        if self.folder == 0 {
            let op = make(ROOT_INODE.0, self.folder_name(), pb::FileKind::Directory);
            return (self.request(op, true), Goal::Folder);
        }
        if self.shared == 0 {
            let name = Bytes::from_static(SHARED);
            // The lowest client makes it.
            if self.place.is_multiple_of(10) {
                let op = make(ROOT_INODE.0, name, pb::FileKind::Regular);
                return (self.request(op, true), Goal::MakeShared);
            }
            let op = Op::Lookup(pb::LookupOp { parent: ROOT_INODE.0, name, ..Default::default() });
            return (self.request(op, false), Goal::FindShared);
        }
        if self.keeps && self.told < 2 {
            let op = if self.told == 0 { keeping::limit(self.folder) } else { keeping::keep() };
            let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
            return (request, Goal::Told);
        }
        if let Some((name, since)) = self.removed.take() {
            return (self.request(keeping::look(), false), Goal::Kept(name, since));
        }
        self.counter += 1;
        let known: Vec<Bytes> = self.names.iter().cloned().collect();
        let fresh = match self.keeps {
            true => Bytes::from(format!("name-{}-{}", self.place, self.counter)),
            false => Bytes::from(format!("name-{}", self.counter)),
        };
        let parent = self.folder;
        match (cx.rng.within(0..10), cx.rng.pick(&known).cloned()) {
            (0 | 1, Some(name)) => {
                let op = pb::UnlinkOp { parent, name: name.clone(), directory: false };
                (self.request(Op::Unlink(op), true), Goal::Removed(name))
            }
            (2, Some(name)) => {
                let op = pb::RenameOp {
                    parent,
                    name: name.clone(),
                    new_parent: parent,
                    new_name: fresh.clone(),
                    no_replace: true,
                    exchange: false,
                };
                (self.request(Op::Rename(op), true), Goal::Renamed(name, fresh))
            }
            (3..=5, _) => {
                let value = WRITTEN | u64::from(self.place) << 32 | self.counter;
                self.record(cx, Action::Write { cell: 0, value });
                let op = pb::SetAttrOp {
                    inode: self.shared,
                    mtime_ns: Some(value as i64),
                    ..Default::default()
                };
                (self.request(Op::SetAttr(op), true), Goal::Register(self.history.len() - 1))
            }
            (6..=8, _) => self.read_shared(cx),
            _ => {
                let op = make(parent, fresh.clone(), pb::FileKind::Regular);
                let is_full = self.keeps && self.names.len() == NAMES_MAX;
                (self.request(op, true), if is_full { Goal::Beyond } else { Goal::Added(fresh) })
            }
        }
    }

    fn read_shared(&mut self, cx: &Context<'_>) -> (pb::NsRequest, Goal) {
        self.record(cx, Action::Read { cell: 0, value: 0 });
        let op = Op::GetAttr(pb::GetAttrOp { inode: self.shared });
        (self.request(op, false), Goal::Register(self.history.len() - 1))
    }

    fn record(&mut self, cx: &Context<'_>, action: Action) {
        self.history.push(Operation { action, called: cx.now, returned: None });
    }

    fn request(&mut self, op: Op, mutation: bool) -> pb::NsRequest {
        if mutation && self.session != 0 {
            self.seq += 1;
        }
        pb::NsRequest {
            volume: 1,
            session: self.session,
            seq: if mutation && self.session != 0 { self.seq } else { 0 },
            // One at a time: everything below was answered.
            ack_below: self.seq,
            cred: Some(pb::Credentials::default()),
            at_ns: 0,
            op: Some(op),
        }
    }

    pub(crate) fn on_answer(&mut self, cx: &mut Context<'_>, rpc: RpcId, answer: Answer) {
        if self.waiting.take_if(|waiting| *waiting == rpc).is_none() {
            return;
        }
        let answer = match answer {
            Answer::Namespace(Ok(reply)) => match status::check(reply.status.clone()) {
                Ok(()) => Ok(reply),
                Err(status) => Err(status),
            },
            Answer::Namespace(Err(status)) => Err(status),
            _ => Err(pb::Code::Unreachable.into()),
        };
        let pause = match answer {
            Ok(reply) => self.finish(cx, reply),
            Err(status) => self.refused(cx, &status),
        };
        cx.after(Duration::from_millis(pause), Later::NameClient(Timer::Next));
    }

    fn refused(&mut self, cx: &mut Context<'_>, status: &Status) -> u64 {
        let looks_for_shared = matches!(&self.current, Some((_, Goal::FindShared)));
        if looks_for_shared && status.code == pb::Code::NotFound {
            self.current = None;
            return 200;
        }
        let is_full = matches!(&self.current, Some((_, Goal::Beyond)));
        if is_full && status.code == pb::Code::QuotaExceeded {
            cx.seen.insert(Seen::QuotaRefused);
            self.current = None;
            return cx.rng.within(5..100);
        }
        if status.retry() == Retry::Never {
            // In its own folder, and once each, nothing can fail.
            let current = self.current.take();
            self.problems.push(format!("client {}: {current:?} was refused: {status}", self.place));
        }
        let hint: Option<Place> = status.leader_address.as_ref().and_then(|a| a.parse().ok());
        let hinted = hint.and_then(|place| cx.metads.iter().position(|&m| m == place));
        self.metad = hinted.unwrap_or(self.metad + 1);
        cx.rng.within(5..100)
    }

    fn finish(&mut self, cx: &mut Context<'_>, reply: pb::NsReply) -> u64 {
        let (_, goal) = self.current.take().expect("an answer ends what was begun");
        let inode = reply.attr.as_ref().map_or(0, |attr| attr.inode);
        match goal {
            Goal::Session => self.session = reply.session,
            Goal::Folder => self.folder = inode,
            Goal::MakeShared | Goal::FindShared => {
                self.shared = inode;
            }
            Goal::Added(name) => {
                self.names.insert(name);
            }
            Goal::Removed(name) => {
                self.names.remove(&name);
                if self.keeps {
                    self.removed = Some((name, self.begun));
                }
            }
            Goal::Beyond => {
                let why = format!("client {}: its full folder took one more", self.place);
                self.problems.push(why);
            }
            Goal::Told => self.told += 1,
            Goal::Kept(name, since) if cx.now < since + keeping::KEPT / 2 => {
                if keeping::shows(&reply, &name) {
                    cx.seen.insert(Seen::TrashKept);
                } else {
                    self.missed.push(name);
                }
            }
            Goal::Kept(..) => {}
            Goal::Renamed(from, to) => {
                self.names.remove(&from);
                self.names.insert(to);
            }
            Goal::Register(record) => {
                let operation = &mut self.history[record];
                operation.returned = Some(cx.now);
                if let Action::Read { value: seen, .. } = &mut operation.action {
                    let mtime = reply.attr.map_or(0, |attr| attr.mtime_ns) as u64;
                    // Before the first write the file has the time of its creation.
                    *seen = if mtime < WRITTEN { 0 } else { mtime };
                }
            }
        }
        // Reads go to any replica, mutations stay with who answered.
        if cx.rng.chance(30) {
            self.metad = cx.rng.within(0..cx.metads.len() as u64) as usize;
        }
        self.pace.pause_ms(cx.rng)
    }
}

fn make(parent: u64, name: Bytes, kind: pb::FileKind) -> Op {
    let mode = if kind == pb::FileKind::Directory { 0o755 } else { 0o644 };
    Op::MakeNode(pb::MakeNodeOp { parent, name, kind: kind.into(), mode, ..Default::default() })
}
