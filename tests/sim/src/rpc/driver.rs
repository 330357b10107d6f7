//! The task of one target: the CRAQ machine over a simulated disk, as `ff2-storaged` drives it over a
//! real one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use ff2_fabric::{Peers, RoutingCache, SharedBuf};
use ff2_proto::{ChainId, ChainVersion, ChunkId, Code, Status, TargetId, pb};
use ff2_storage_core::target::{
    CallId, FullCopy, Input, Now, Output, Outputs, Reply, Report, StoreOp, Target, UpdateId,
};
use ff2_storaged::payload::Payload;
use ff2_storaged::{neighbour::Neighbour, wire};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Duration, Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    cells,
    ledger::Ledger,
    peer::{self, Question},
};
use crate::{
    disk::{Content, Disk, Wait},
    rng::Rng,
};

const TICK: Duration = Duration::from_millis(40);
/// Calls that wait for the task, and things done that it has not heard of.
const MAILBOX: usize = 4_096;
/// Why a disk gives back what was written.
const WELL: &str = "no block is damaged in this simulation";

/// What all targets of one start of a node share.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) peers: Arc<Peers>,
    pub(super) routing: Arc<RoutingCache>,
    pub(super) lease: Arc<AtomicBool>,
    /// False once the process is gone: nothing of it touches the disk any more.
    pub(super) alive: Arc<AtomicBool>,
    pub(super) ledger: Arc<Ledger>,
}

/// A reply, and what the disk read found if it was one.
pub(super) type Answered = (Reply, Option<(UpdateId, Content)>);
pub(super) type MakeInput = Box<dyn FnOnce(CallId) -> Input<Payload> + Send>;

#[expect(clippy::large_enum_variant, reason = "short-lived values of a simulation")]
pub(super) enum Mail {
    Call { make: MakeInput, reply: oneshot::Sender<Answered> },
    Tell(Input<Payload>),
}

/// The way to a running target.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) id: TargetId,
    mails: mpsc::Sender<Mail>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What others may see of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) report: Report,
    pub(super) live_chunks: usize,
    pub(super) explanation: Vec<String>,
}

impl Handle {
    /// Asks the machine; waits as long as the caller does.
    pub(super) async fn call(
        &self,
        patience: Duration,
        make: impl FnOnce(CallId) -> Input<Payload> + Send + 'static,
    ) -> Result<Answered, Status> {
        let (reply, answer) = oneshot::channel();
        self.post(Mail::Call { make: Box::new(make), reply })?;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(_)) => Err(Status::new(Code::ShuttingDown, "the target is stopping")),
            Err(_) => Err(Status::new(Code::UnknownOutcome, "no answer within the time limit")),
        }
    }

    pub(super) fn tell(&self, input: Input<Payload>) -> Result<(), Status> {
        self.post(Mail::Tell(input))
    }

    fn post(&self, mail: Mail) -> Result<(), Status> {
        self.mails.try_send(mail).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Status::new(Code::Busy, "too much to do"),
            mpsc::error::TrySendError::Closed(_) => {
                Status::new(Code::ShuttingDown, "the target is stopping")
            }
        })
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Ends the task with all that it began.
    pub(super) fn end(&self) {
        self.task.abort();
    }
}

/// Starts the target whose chunks are on this disk.
pub(super) fn start(
    id: TargetId,
    chain: ChainId,
    disk: Arc<Mutex<Disk>>,
    around: Surroundings,
    rng: Rng,
) -> Handle {
    let (mails, inbox) = mpsc::channel(MAILBOX);
    let (done, completions) = mpsc::channel(MAILBOX);
    let seen = Arc::new(Mutex::new(Seen::default()));
    // What it missed is for the cluster to judge first.
    let serve_after = around.routing.get().chains.get(&chain).map_or(0, |chain| chain.version);
    let machine = Target::new(id, chain, ChainVersion(serve_after), disk.lock().load());
    let task = Task {
        machine,
        chain,
        disk,
        around,
        rng,
        done,
        work: JoinSet::new(),
        started: Instant::now(),
        next_call: 0,
        callers: BTreeMap::new(),
        found: BTreeMap::new(),
        seen: seen.clone(),
    };
    let task = tokio::spawn(task.run(inbox, completions));
    Handle { id, mails, seen, task }
}

enum Done {
    Input(Input<Payload>),
    Read { call: CallId, found: Option<(UpdateId, Content)> },
}

struct Task {
    machine: Target<Payload>,
    chain: ChainId,
    disk: Arc<Mutex<Disk>>,
    around: Surroundings,
    rng: Rng,
    done: mpsc::Sender<Done>,
    work: JoinSet<()>,
    started: Instant,
    next_call: u64,
    callers: BTreeMap<CallId, oneshot::Sender<Answered>>,
    found: BTreeMap<CallId, Option<(UpdateId, Content)>>,
    seen: Arc<Mutex<Seen>>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Mail>, mut completions: mpsc::Receiver<Done>) {
        let mut routing = self.around.routing.subscribe();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(done) = completions.recv() => self.on_done(done),
                changed = routing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.refresh(self.now());
                }
                _ = ticks.tick() => self.tick(),
                Some(mail) = inbox.recv() => self.on_mail(mail),
            }
            self.publish();
        }
    }

    fn now(&self) -> Now {
        Now { lease: self.around.lease.load(SeqCst), at: self.started.elapsed() }
    }

    fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Call { make, reply } => {
                self.next_call += 1;
                let call = CallId(self.next_call);
                self.callers.insert(call, reply);
                self.step(make(call));
            }
            Mail::Tell(input) => self.step(input),
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Input(input) => self.step(input),
            Done::Read { call, found } => {
                self.found.insert(call, found);
                self.step(Input::ReadDone { call, result: Ok(()) });
            }
        }
    }

    fn step(&mut self, input: Input<Payload>) {
        // The lease first: one that is valid now came with the routing that is looked at next.
        let now = self.now();
        self.refresh(now);
        let mut out = Outputs::new();
        self.machine.step(now, input, &mut out);
        self.perform(out);
    }

    fn refresh(&mut self, now: Now) {
        let routing = self.around.routing.get();
        let chain = routing.chains.get(&self.chain);
        if let Some(chain) = chain.filter(|chain| chain.version > self.machine.chain().version) {
            let mut out = Outputs::new();
            self.machine.step(now, Input::Chain(chain.clone()), &mut out);
            self.perform(out);
        }
    }

    fn tick(&mut self) {
        while self.work.try_join_next().is_some() {}
        let now = self.now();
        self.refresh(now);
        let mut out = Outputs::new();
        self.machine.tick(now, &mut out);
        self.perform(out);
    }

    fn publish(&self) {
        *self.seen.lock() = Seen {
            report: self.machine.report(),
            live_chunks: self.machine.live_chunks(),
            explanation: self.machine.explain(),
        };
    }

    fn perform(&mut self, out: Outputs<Payload>) {
        for output in out {
            match output {
                Output::Store { chunk, op } => self.store(chunk, op),
                Output::Read { call, chunk } => self.read(call, chunk),
                Output::Reply { call, reply } => {
                    let found = self.found.remove(&call).flatten();
                    if let Some(caller) = self.callers.remove(&call) {
                        // A caller that has gone asks again, with the same tag.
                        let _ = caller.send((reply, found));
                    }
                }
                Output::Forward { to, attempt, forward } => {
                    self.ask(&to, Question::Forward { attempt, forward, copy: false });
                }
                Output::CopyRemoval { to, attempt, forward } => {
                    self.ask(&to, Question::Forward { attempt, forward, copy: true });
                }
                Output::ForwardFull { to, attempt, copy } => {
                    let found = self.disk.lock().pending(copy.chunk).expect(WELL);
                    self.send_whole(&to, (attempt, false), copy, found);
                }
                Output::Copy { to, attempt, copy } => {
                    let found = self.disk.lock().committed(copy.chunk).expect(WELL);
                    self.send_whole(&to, (attempt, true), copy, found);
                }
                Output::Settle { to, outcome } => {
                    let (neighbour, from) = (self.neighbour(&to), self.machine.id().0);
                    self.work.spawn(async move {
                        let updates = vec![wire::settled(&outcome)];
                        let _ = neighbour.settle(from, to.target, updates).await;
                    });
                }
                Output::Query { to, attempt, chunk } => {
                    let target = to.target;
                    self.ask(&to, Question::Query { attempt, target, chunk });
                }
                Output::SyncPage { to, attempt, request } => {
                    let target = to.target;
                    self.ask(&to, Question::Page { attempt, target, request });
                }
                Output::SyncDone { to, attempt } => {
                    self.ask(&to, Question::SyncDone { attempt, target: to.target });
                }
                Output::Changed => self.publish(),
            }
        }
    }

    fn neighbour(&self, to: &pb::ChainMember) -> Neighbour {
        let (around, chain) = (&self.around, self.machine.chain());
        Neighbour::new(&around.peers, &around.routing, to.node, chain.id, chain.version)
    }

    fn ask(&mut self, to: &pb::ChainMember, question: Question) {
        let (neighbour, routing, done) =
            (self.neighbour(to), self.around.routing.clone(), self.done.clone());
        self.work.spawn(async move {
            let input = peer::ask(neighbour, question, routing).await;
            let _ = done.send(Done::Input(input)).await;
        });
    }

    fn send_whole(
        &mut self,
        to: &pb::ChainMember,
        (attempt, copy): (ff2_storage_core::target::Attempt, bool),
        whole: FullCopy,
        found: Option<(UpdateId, Content)>,
    ) {
        match found.filter(|(id, _)| *id == whole.id) {
            Some((_, content)) => {
                let payload = Payload::from(SharedBuf::from(cells::to_bytes(&content)));
                let forward = whole.with_payload(payload);
                self.ask(to, Question::Forward { attempt, forward, copy });
            }
            None => {
                let (chunk, done) = (whole.chunk, self.done.clone());
                let result = Err(Status::new(Code::Busy, "the store is at another version"));
                let input = match copy {
                    true => Input::Copied { chunk, attempt, result },
                    false => Input::Forwarded { chunk, attempt, result },
                };
                self.work.spawn(async move {
                    let _ = done.send(Done::Input(input)).await;
                });
            }
        }
    }

    fn store(&mut self, chunk: ChunkId, op: StoreOp<Payload>) {
        let op = cells::stored(op);
        let ledger = &self.around.ledger;
        match &op {
            StoreOp::Prepare { id, change, .. } => {
                if let Some(value) = cells::written(change) {
                    ledger.prepared(chunk, *id, value);
                }
            }
            StoreOp::Commit { id } => ledger.committed(chunk, *id),
            StoreOp::Abort { .. } => {}
        }
        let wait = self.disk.lock().take(chunk, op).expect(WELL);
        let delays = [self.disk_delay(), self.disk_delay()];
        let (disk, alive, done) = (self.disk.clone(), self.around.alive.clone(), self.done.clone());
        self.work.spawn(async move {
            if wait == Wait::Blocks {
                sleep(delays[0]).await;
                if !alive.load(SeqCst) {
                    return;
                }
                disk.lock().written(chunk);
            }
            if wait != Wait::Nothing {
                sleep(delays[1]).await;
                if !alive.load(SeqCst) {
                    return;
                }
                disk.lock().sync();
            }
            let _ = done.send(Done::Input(Input::Stored { chunk, result: Ok(()) })).await;
        });
    }

    fn read(&mut self, call: CallId, chunk: ChunkId) {
        let found = self.disk.lock().committed(chunk).expect(WELL);
        let (delay, done) = (self.disk_delay(), self.done.clone());
        self.work.spawn(async move {
            sleep(delay).await;
            let _ = done.send(Done::Read { call, found }).await;
        });
    }

    /// Most are fast.
    fn disk_delay(&mut self) -> Duration {
        let slow = self.rng.chance(3);
        Duration::from_millis(self.rng.within(if slow { 20..250 } else { 1..6 }))
    }
}
