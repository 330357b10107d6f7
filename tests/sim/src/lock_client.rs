//! A client that takes and frees locks of one file, and falls silent now and then, with what it holds.
//!
//! It has true time. It counts on a lock from the answer on, until it asks to free it or its session may be over:
//! so whoever else is granted one against it meanwhile was let in by an error.

use std::time::Duration;

use bytes::Bytes;
use ff2_proto::{ROOT_INODE, Retry, Status, pb, status};
use pb::{Code, ns_request::Op};

use crate::{
    locking::{self, Held},
    message::{Answer, Call, Message, RpcId},
    net::Place,
    pace::Pace,
    world::{Context, Later},
};

const TIMEOUT: Duration = Duration::from_millis(1_500);
const KEEP_PAUSE: Duration = Duration::from_secs(2);
const NAME: &[u8] = b"locked";
/// In percent of what it does while it holds a lock.
const DIES: u64 = 12;

#[derive(Debug)]
pub(crate) struct LockClient {
    pub(crate) place: Place,
    session: u64,
    /// Until when the session is there, whatever happens.
    lease_until: Duration,
    /// Of sessions, and of waits.
    numbers: u64,
    seq: u64,
    file: u64,
    /// One of them makes it.
    makes: bool,
    current: Option<(pb::NsRequest, Goal)>,
    waiting: Option<RpcId>,
    /// The keepalive on its way, with its session and when it was sent.
    keeping: Option<(RpcId, u64, Duration)>,
    /// The last of the history is held.
    holds: bool,
    pub(crate) history: Vec<Held>,
    pub(crate) problems: Vec<String>,
    metad: usize,
    pace: Pace,
    pub(crate) stopping: bool,
    end: End,
}

/// What it does when the load is over: it gets the whole file once, so that nobody else is left with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lock,
    Close,
    Idle,
}

#[derive(Clone, Debug)]
enum Goal {
    Session(Duration),
    Make,
    Find,
    Lock(pb::Lock),
    Await(pb::Lock),
    Unlock,
    Close,
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Next,
    Keep,
    Timeout(RpcId),
}

impl LockClient {
    pub(crate) fn new(place: Place, pace: Pace) -> Self {
        Self {
            place,
            session: 0,
            lease_until: Duration::ZERO,
            numbers: 0,
            seq: 0,
            file: 0,
            makes: place.is_multiple_of(3),
            current: None,
            waiting: None,
            keeping: None,
            holds: false,
            history: Vec::new(),
            problems: Vec::new(),
            metad: 0,
            pace,
            stopping: false,
            end: End::Lock,
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        cx.after(Duration::from_millis(10), Later::LockClient(Timer::Next));
        cx.after(KEEP_PAUSE, Later::LockClient(Timer::Keep));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.stopping && self.end == End::Idle && self.current.is_none()
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        self.look_at_lease(cx);
        match timer {
            Timer::Next => self.attempt(cx),
            Timer::Keep => self.keep(cx),
            Timer::Timeout(rpc) => self.on_answer(cx, rpc, Answer::Silence),
        }
    }

    /// Without an answer for so long the session may be over, and everything with it.
    fn look_at_lease(&mut self, cx: &mut Context<'_>) {
        if self.session == 0 || cx.now < self.lease_until {
            return;
        }
        if self.waiting.is_some() {
            // Whatever is answered counts no more.
            cx.after(Duration::from_millis(10), Later::LockClient(Timer::Next));
        }
        self.leave(self.lease_until);
    }

    /// Goes on without its session, of which nothing more is heard.
    fn leave(&mut self, at: Duration) {
        self.let_go(at, true);
        (self.session, self.seq, self.current, self.waiting) = (0, 0, None, None);
    }

    fn let_go(&mut self, at: Duration, with_session: bool) {
        if std::mem::take(&mut self.holds) {
            let held = self.history.last_mut().expect("what is held is in the history");
            (held.until, held.with_session) = (Some(at.min(self.lease_until)), with_session);
        }
    }

    fn keep(&mut self, cx: &mut Context<'_>) {
        cx.after(KEEP_PAUSE, Later::LockClient(Timer::Keep));
        if self.session == 0 {
            return;
        }
        let op = Op::Keepalive(pb::KeepaliveOp::default());
        let request = self.request(op, false);
        let rpc = cx.next_rpc();
        self.keeping = Some((rpc, self.session, cx.now));
        self.send(cx, rpc, request);
    }

    fn send(&mut self, cx: &mut Context<'_>, rpc: RpcId, request: pb::NsRequest) {
        let to = cx.metads[self.metad % cx.metads.len()];
        cx.send(to, Message::Call { rpc, from: self.place, call: Call::Namespace(request) });
        cx.after(TIMEOUT, Later::LockClient(Timer::Timeout(rpc)));
    }

    fn attempt(&mut self, cx: &mut Context<'_>) {
        if self.waiting.is_some() {
            return;
        }
        if self.current.is_none() {
            if self.stopping && self.end == End::Idle {
                return;
            }
            if self.holds && !self.stopping && cx.rng.chance(DIES) {
                // It counts on what it has as long as it may, as one that stands still would.
                self.leave(self.lease_until);
                let silence = locking::PERIOD.as_millis() as u64 * cx.rng.within(1..4);
                return cx.after(Duration::from_millis(silence), Later::LockClient(Timer::Next));
            }
            self.current = Some(self.begin(cx));
        }
        let (request, _) = self.current.clone().expect("begun above");
        let rpc = cx.next_rpc();
        self.waiting = Some(rpc);
        self.send(cx, rpc, request);
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> (pb::NsRequest, Goal) {
        if self.session == 0 {
            self.numbers += 1;
            let nonce = u64::from(self.place) << 32 | self.numbers;
            let open = pb::OpenSessionOp { description: "sim".into(), nonce, ..Default::default() };
            return (self.request(Op::OpenSession(open), false), Goal::Session(cx.now));
        }
        let name = Bytes::from_static(NAME);
        if self.file == 0 {
            if self.makes {
                let (parent, kind) = (ROOT_INODE.0, pb::FileKind::Regular.into());
                let make = pb::MakeNodeOp { parent, name, kind, mode: 0o644, ..Default::default() };
                return (self.request(Op::MakeNode(make), true), Goal::Make);
            }
            let find = pb::LookupOp { parent: ROOT_INODE.0, name, ..Default::default() };
            return (self.request(Op::Lookup(find), false), Goal::Find);
        }
        let inode = self.file;
        if self.holds {
            // From here on somebody else may have it.
            self.let_go(cx.now, false);
            let lock = self.history.last().map(|held| held.lock);
            return (self.request(Op::Unlock(pb::UnlockOp { inode, lock }), true), Goal::Unlock);
        }
        if self.stopping && self.end == End::Close {
            return (self.request(Op::CloseSession(pb::CloseSessionOp {}), false), Goal::Close);
        }
        self.numbers += 1;
        let lock = match self.stopping {
            true => locking::whole(self.numbers),
            false => locking::any(cx.rng, self.numbers),
        };
        let wait = self.stopping || cx.rng.chance(50);
        let set = pb::SetLockOp { inode, lock: Some(lock), wait };
        (self.request(Op::SetLock(set), true), Goal::Lock(lock))
    }

    fn request(&mut self, op: Op, is_mutation: bool) -> pb::NsRequest {
        self.seq += u64::from(is_mutation);
        pb::NsRequest {
            volume: 1,
            session: self.session,
            seq: if is_mutation { self.seq } else { 0 },
            ack_below: self.seq,
            cred: Some(pb::Credentials::default()),
            op: Some(op),
            ..Default::default()
        }
    }

    pub(crate) fn on_answer(&mut self, cx: &mut Context<'_>, rpc: RpcId, answer: Answer) {
        self.look_at_lease(cx);
        let answer = match answer {
            Answer::Namespace(reply) => {
                reply.and_then(|reply| status::check(reply.status.clone()).map(|()| reply))
            }
            _ => Err(Code::Unreachable.into()),
        };
        if let Some((_, session, sent)) = self.keeping.take_if(|(asked, ..)| *asked == rpc) {
            return self.kept(cx, session, sent, &answer);
        }
        if self.waiting.take_if(|waiting| *waiting == rpc).is_none() {
            return;
        }
        let pause = match answer {
            Ok(reply) => self.finish(cx, &reply),
            Err(status) => self.refused(cx, &status),
        };
        cx.after(Duration::from_millis(pause), Later::LockClient(Timer::Next));
    }

    fn kept(
        &mut self,
        cx: &mut Context<'_>,
        session: u64,
        sent: Duration,
        answer: &Result<pb::NsReply, Status>,
    ) {
        match answer {
            Ok(_) if session == self.session => {
                self.lease_until = self.lease_until.max(sent + locking::SURE);
            }
            Ok(_) => {}
            Err(status) => self.other_metad(cx, status),
        }
    }

    fn other_metad(&mut self, cx: &Context<'_>, status: &Status) {
        let hint: Option<Place> = status.leader_address.as_ref().and_then(|a| a.parse().ok());
        let hinted = hint.and_then(|place| cx.metads.iter().position(|&m| m == place));
        self.metad = hinted.unwrap_or(self.metad + 1);
    }

    fn refused(&mut self, cx: &mut Context<'_>, status: &Status) -> u64 {
        let goal = self.current.as_ref().map(|(_, goal)| goal);
        let is_expected = match goal {
            // By itself, in a session that it lost before it was told.
            Some(Goal::Make) => status.code == Code::Exists,
            Some(Goal::Find) => status.code == Code::NotFound,
            Some(Goal::Lock(_)) => matches!(status.code, Code::WouldBlock | Code::Deadlock),
            _ => false,
        };
        if is_expected {
            self.makes = false;
            self.current = None;
        } else if status.code == Code::SessionExpired {
            let why = format!("client {}: session {} is over too early", self.place, self.session);
            self.problems.push(why);
            self.leave(cx.now);
        } else if status.retry() == Retry::Never {
            let current = self.current.take();
            self.problems.push(format!("client {}: {current:?} was refused: {status}", self.place));
        } else {
            self.other_metad(cx, status);
        }
        cx.rng.within(5..100)
    }

    fn finish(&mut self, cx: &mut Context<'_>, reply: &pb::NsReply) -> u64 {
        let (request, goal) = self.current.take().expect("an answer ends what was begun");
        match goal {
            // It begins its time when the leader first sees it, which is after it was asked for.
            Goal::Session(asked) => {
                (self.session, self.lease_until) = (reply.session, asked + locking::SURE);
            }
            Goal::Make | Goal::Find => {
                self.file = reply.attr.as_ref().map_or(0, |attr| attr.inode);
            }
            Goal::Lock(lock) if reply.granted => self.granted(cx, lock),
            Goal::Lock(lock) => {
                let tickets = vec![pb::LockTicket { owner: lock.owner, ticket: lock.ticket }];
                let op = Op::AwaitLocks(pb::AwaitLocksOp { tickets, wait_ms: 0 });
                self.current = Some((self.request(op, false), Goal::Await(lock)));
            }
            Goal::Await(lock) if !reply.granted_tickets.is_empty() => self.granted(cx, lock),
            Goal::Await(lock) => self.current = Some((request, Goal::Await(lock))),
            Goal::Unlock => {}
            Goal::Close => {
                (self.session, self.end) = (0, End::Idle);
            }
        }
        self.pace.pause_ms(cx.rng).min(1_000)
    }

    fn granted(&mut self, cx: &Context<'_>, lock: pb::Lock) {
        let session = self.session;
        let until = None;
        self.history.push(Held { session, lock, from: cx.now, until, with_session: false });
        self.holds = true;
        if self.stopping {
            self.end = End::Close;
        }
    }
}
