//! The task of one target: owns its machine and performs what the machine decides.
//!
//! Everything that concerns the target comes to the task as a mail: calls from the service, and what
//! its own outputs came to. The task never waits for any of them: store operations and calls to other
//! nodes run in tasks of their own and post their outcome. Their number is bounded by the machine's
//! bounds.
//!
//! Before each step the lease is read first and the routing after it. The membership renews the lease
//! only when the routing of the same answer is in place, so a valid lease means that the chain in
//! hand is as new as the lease.
//!
//! The machine gets a chain in which it takes part only when the disk says so (`note`): what it did under that
//! version can then be found out from the disk alone. Until then it answers as if it had no lease.

mod copy;
mod note;
mod peer;
mod perform;
mod settle;

use std::{
    collections::HashMap,
    fmt,
    ops::Bound,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

pub use copy::CopyBudget;
use ff2_fabric::{
    Peers, RoutingCache,
    buf::{Buf, BufPool},
    membership::Lease,
    pace,
};
use ff2_proto::{ChainId, ChunkId, Code, Routing, Status, TargetId, pb};
use ff2_storage_core::target::{
    CallId, Input, Loaded, Now, Outputs, ReadAnswer, Reply, Report, Role, Snapshots, Target,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    engine::{Check, Engine, Readout, TargetMeta},
    limits,
    metrics::StorageMetrics,
    payload::Payload,
};

/// What all targets of a node share.
#[derive(Clone)]
pub struct Shared {
    pub peers: Arc<Peers>,
    pub routing: Arc<RoutingCache>,
    pub pool: Arc<BufPool>,
    pub copies: Arc<CopyBudget>,
    pub lease: Lease,
    pub metrics: Arc<StorageMetrics>,
    /// Called when a target's report changed.
    pub changed: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// The way to a running target; clones share it.
#[derive(Clone, Debug)]
pub struct TargetHandle {
    pub meta: TargetMeta,
    pub disk_uuid: [u8; 16],
    mails: mpsc::Sender<Mail>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the task lets others see, as of its last look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub report: Report,
    /// See `TargetReport.held_at`.
    pub held_at: u64,
    pub role: Role,
    pub chunks: usize,
    pub live_chunks: usize,
    pub is_source: bool,
    /// Why the target may be started anew, see [`Target::may_return`].
    pub may_return: Option<Code>,
    pub suspects: Vec<ChunkId>,
    /// What its store remembers of the chain.
    pub past: pb::TargetPast,
}

/// A call as the service makes it; the task gives it its number.
pub(crate) type MakeInput = Box<dyn FnOnce(CallId) -> Input<Payload> + Send>;

pub(crate) enum Mail {
    Call {
        make: MakeInput,
        reply: oneshot::Sender<Reply>,
    },
    Read {
        read: DiskRead,
        reply: oneshot::Sender<Result<ReadBytes, Status>>,
    },
    /// Something without a caller.
    Tell(Input<Payload>),
    Explain(oneshot::Sender<Vec<String>>),
    Chunks {
        after: Option<ChunkId>,
        reply: oneshot::Sender<Vec<(ChunkId, u32)>>,
    },
}

/// A part of a chunk to be read into a buffer.
#[derive(Debug)]
pub(crate) struct DiskRead {
    pub(crate) chunk: ChunkId,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) check: Check,
    pub(crate) buf: Buf,
}

/// What a read found. Without a readout the chunk does not exist; the bytes are zeros then.
#[derive(Debug)]
pub(crate) struct ReadBytes {
    pub(crate) buf: Buf,
    pub(crate) readout: Option<Readout>,
}

/// What one of the task's outputs came to.
pub(crate) enum Done {
    Input(Input<Payload>),
    Read {
        call: CallId,
        result: Result<ReadBytes, Status>,
    },
    /// The store knows the chain version that it is to take part in.
    Noted(Result<TargetMeta, Status>),
}

impl TargetHandle {
    /// Starts the task of a target whose chunks were loaded; some may be known to be damaged.
    pub fn start(
        engine: Engine,
        meta: TargetMeta,
        disk_uuid: [u8; 16],
        (loaded, suspects): (Vec<Loaded>, Vec<ChunkId>),
        shared: Shared,
        stop: CancellationToken,
    ) -> Self {
        let tasks = TaskTracker::new();
        let (mails, inbox) = mpsc::channel(limits::MAILBOX);
        let (done, completions) = mpsc::channel(limits::COMPLETIONS);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let chain = shared.routing.get().chains.get(&meta.chain).map_or(0, |chain| chain.version);
        let serve_after = meta.chain_version.max(chain.into());
        let machine = Target::new(meta.id, meta.chain, serve_after, loaded).with_suspects(suspects);
        let outcomes = settle::start(meta.clone(), shared.clone(), &tasks, stop.clone());
        let task = Task {
            machine,
            meta: meta.clone(),
            engine,
            shared,
            done,
            outcomes,
            tasks: tasks.clone(),
            seen: seen.clone(),
            started: Instant::now(),
            next_call: 0,
            callers: HashMap::new(),
            reads: HashMap::new(),
            routing: Arc::new(Routing::default()),
            noting: false,
            behind: false,
        };
        tasks.spawn(task.run(inbox, completions, stop.clone()));
        Self { meta, disk_uuid, mails, seen, stop, tasks }
    }

    /// Ends the task; returns when nothing that it began is in progress any more.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Asks the machine. Fails with BUSY when too many ask.
    pub(crate) async fn call(
        &self,
        patience: Duration,
        make: impl FnOnce(CallId) -> Input<Payload> + Send + 'static,
    ) -> Result<Reply, Status> {
        let (reply, answer) = oneshot::channel();
        self.post(Mail::Call { make: Box::new(make), reply })?;
        match tokio::time::timeout(patience.min(limits::REPLY_WAIT), answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Status::new(Code::UnknownOutcome, "no answer within the time limit")),
        }
    }

    /// Begins a read; the answer comes when the machine allows it.
    pub(crate) fn read(
        &self,
        read: DiskRead,
    ) -> Result<oneshot::Receiver<Result<ReadBytes, Status>>, Status> {
        let (reply, answer) = oneshot::channel();
        self.post(Mail::Read { read, reply })?;
        Ok(answer)
    }

    pub(crate) fn tell(&self, input: Input<Payload>) -> Result<(), Status> {
        self.post(Mail::Tell(input))
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// The next committed chunks in the order of their ids, with their lengths in bytes.
    pub(crate) async fn chunks(
        &self,
        after: Option<ChunkId>,
    ) -> Result<Vec<(ChunkId, u32)>, Status> {
        let (reply, answer) = oneshot::channel();
        self.post(Mail::Chunks { after, reply })?;
        answer.await.map_err(|_| stopping())
    }

    /// Why things of this target wait, for people.
    pub async fn explain(&self) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        match self.post(Mail::Explain(reply)) {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(status) => vec![status.to_string()],
        }
    }

    /// What a heartbeat says of this target.
    pub fn report(&self, used_bytes: u64) -> pb::TargetReport {
        let Seen { report, held_at, past, .. } = self.seen();
        pb::TargetReport {
            target: self.meta.id.0,
            local_state: report.local_state.into(),
            generation: self.meta.generation,
            chain_version: report.chain_version,
            used_bytes,
            sync_done_chunks: report.sync_done_chunks,
            sync_total_chunks: report.sync_total_chunks,
            waiting_for: report.waiting_for,
            scrub: None,
            retired: report.retired,
            silent_successor: report.silent_successor,
            held_at,
            past: Some(past),
            chain: self.meta.chain.0,
            disk_uuid: self.disk_uuid.to_vec().into(),
        }
    }

    fn post(&self, mail: Mail) -> Result<(), Status> {
        self.mails.try_send(mail).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Status::new(Code::Busy, format!("target {} has too much to do", self.meta.id))
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })
    }
}

pub(crate) fn stopping() -> Status {
    Status::new(Code::ShuttingDown, "the target is stopping")
}

/// The owner of one machine.
struct Task {
    machine: Target<Payload>,
    meta: TargetMeta,
    engine: Engine,
    shared: Shared,
    done: mpsc::Sender<Done>,
    outcomes: mpsc::Sender<settle::Settled>,
    tasks: TaskTracker,
    seen: Arc<Mutex<Seen>>,
    started: Instant,
    next_call: u64,
    callers: HashMap<CallId, oneshot::Sender<Reply>>,
    reads: HashMap<CallId, Reading>,
    routing: Arc<Routing>,
    /// A note is being written.
    noting: bool,
    /// The routing has a newer chain than the machine.
    behind: bool,
}

/// A read between its call and its answer.
struct Reading {
    chunk: ChunkId,
    state: ReadState,
    reply: oneshot::Sender<Result<ReadBytes, Status>>,
}

enum ReadState {
    /// The machine has not allowed it yet.
    Waits(DiskRead),
    OnDisk,
    /// The bytes wait for the machine's last word.
    Found(ReadBytes),
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Mail>,
        mut completions: mpsc::Receiver<Done>,
        stop: CancellationToken,
    ) {
        let mut routing = self.shared.routing.subscribe();
        let mut ticked = tokio::time::Instant::now();
        let mut tick = pin!(tokio::time::sleep_until(ticked));
        self.refresh(self.now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = completions.recv() => {
                    self.on_done(done);
                    for _ in 1..limits::MAIL_BATCH {
                        let Ok(done) = completions.try_recv() else { break };
                        self.on_done(done);
                    }
                }
                changed = routing.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.refresh(self.now());
                }
                () = &mut tick => {
                    self.tick();
                    ticked = tokio::time::Instant::now();
                }
                mail = inbox.recv() => {
                    let Some(mail) = mail else { break };
                    self.on_mail(mail);
                    for _ in 1..limits::MAIL_BATCH {
                        let Ok(mail) = inbox.try_recv() else { break };
                        self.on_mail(mail);
                    }
                }
            }
            let next = if self.is_idle() {
                pace::after(ticked, limits::IDLE_TICK)
            } else {
                ticked + limits::TICK
            };
            if tick.deadline() != next {
                tick.as_mut().reset(next);
            }
        }
        tracing::debug!(target_id = self.meta.id.0, "the target's task ended");
    }

    /// Nothing is in progress that a tick would repeat or give up.
    fn is_idle(&self) -> bool {
        self.machine.live_chunks() == 0
            && !self.machine.is_source()
            && self.machine.role() != Role::Syncing
    }

    fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Call { make, reply } => {
                let call = self.next_call();
                self.callers.insert(call, reply);
                self.step(make(call));
            }
            Mail::Read { read, reply } => {
                let (call, chunk) = (self.next_call(), read.chunk);
                self.reads.insert(call, Reading { chunk, state: ReadState::Waits(read), reply });
                self.step(Input::Read { call, chunk });
            }
            Mail::Tell(input) => self.step(input),
            Mail::Chunks { after, reply } => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let records = self.machine.records().range((from, Bound::Unbounded));
                let chunks = records.map(|(chunk, record)| (*chunk, record.length));
                // Whoever asked may have gone.
                let _ = reply.send(chunks.take(limits::SCRUB_PAGE).collect());
            }
            Mail::Explain(reply) => {
                let mut lines = self.machine.explain();
                lines.truncate(limits::DUMP_LINES);
                // Whoever asked may have gone.
                let _ = reply.send(lines);
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Input(input) => self.step(input),
            Done::Noted(result) => self.on_noted(result),
            Done::Read { call, result } => {
                let Some(reading) = self.reads.get_mut(&call) else { return };
                let chunk = reading.chunk;
                let result = result.and_then(|found| {
                    if found.readout.is_none() && self.machine.records().contains_key(&chunk) {
                        // Gone from the disk, but nobody removed it.
                        return Err(Status::new(
                            Code::Corrupt,
                            format!("{chunk} is not on the disk"),
                        ));
                    }
                    reading.state = ReadState::Found(found);
                    Ok(())
                });
                self.step(Input::ReadDone { call, result });
            }
        }
    }

    fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    fn step(&mut self, input: Input<Payload>) {
        let now = self.refreshed();
        let mut out = Outputs::new();
        self.machine.step(now, input, &mut out);
        self.perform(out);
        if self.machine.holds() {
            // A snapshot waits for it, and everybody's writes with that.
            self.publish();
        }
    }

    /// The moment of a step, with the newest chain in the machine: without a lease if it is not there yet.
    fn refreshed(&mut self) -> Now {
        let now = self.now();
        self.refresh(now);
        Now { lease: now.lease && !self.behind, ..now }
    }

    /// Gives the machine the chain if the routing has a newer one, and tells it whether it retires. `now` was
    /// taken before.
    fn refresh(&mut self, now: Now) {
        let routing = self.shared.routing.get();
        if Arc::ptr_eq(&routing, &self.routing) {
            return;
        }
        let retiring = routing.targets.get(&self.meta.id).map_or(0, |target| target.retiring);
        self.routing = routing;
        if retiring != self.machine.retired() {
            let mut out = Outputs::new();
            self.machine.step(now, Input::Retire(retiring), &mut out);
            tracing::info!(
                target_id = self.meta.id.0,
                retiring,
                "whether its chain goes on without it"
            );
            self.perform(out);
        }
        self.take_snapshots(now);
        self.take_chain(now);
    }

    /// Of all volumes: chunks do not say which is theirs, and a number means the same in each.
    fn take_snapshots(&mut self, now: Now) {
        let volumes = || self.routing.volumes.values();
        let mut ids: Vec<u32> = volumes().flat_map(|volume| volume.snapshots.clone()).collect();
        ids.sort_unstable();
        let snapshots = Snapshots { ids, frozen: volumes().any(|volume| volume.frozen) };
        if snapshots != *self.machine.snapshots() {
            let mut out = Outputs::new();
            self.machine.step(now, Input::Snapshots(snapshots), &mut out);
            self.perform(out);
        }
    }

    fn tick(&mut self) {
        let now = self.refreshed();
        if self.engine.is_failed() && self.machine.failure().is_none() {
            self.step(Input::Failed(Status::new(Code::DiskFailed, "the disk takes no writes")));
        }
        let mut out = Outputs::new();
        self.machine.tick(now, &mut out);
        self.perform(out);
        self.publish();
    }

    fn publish(&self) {
        let held_at = if self.machine.holds() { self.routing.version.0 } else { 0 };
        let seen = Seen {
            report: self.machine.report(),
            held_at,
            role: self.machine.role(),
            chunks: self.machine.records().len(),
            live_chunks: self.machine.live_chunks(),
            is_source: self.machine.is_source(),
            may_return: self
                .machine
                .failure()
                .filter(|_| self.machine.may_return())
                .map(|s| s.code),
            suspects: self.machine.suspects().collect(),
            past: self.past(),
        };
        *self.seen.lock() = seen;
    }

    fn now(&self) -> Now {
        Now { lease: self.shared.lease.is_valid(), at: self.started.elapsed() }
    }

    fn reply(&mut self, call: CallId, reply: Reply) {
        let Some(reading) = self.reads.remove(&call) else {
            if let Some(caller) = self.callers.remove(&call) {
                // A caller that has gone asks again, with the same tag.
                let _ = caller.send(reply);
            }
            return;
        };
        let answer = match (reply, reading.state) {
            (Reply::Read(Ok(ReadAnswer::Data)), ReadState::Found(found)) => Ok(found),
            (Reply::Read(Ok(ReadAnswer::Absent)), ReadState::Waits(mut read)) => {
                read.buf.set_len(read.length as usize);
                read.buf.fill(0);
                Ok(ReadBytes { buf: read.buf, readout: None })
            }
            (Reply::Read(Err(status)), _) => Err(status),
            (reply, _) => unreachable!("a read is not answered with {reply:?}"),
        };
        let _ = reading.reply.send(answer);
    }
}

/// The chain and target that a call names are of this node, or the refusal.
pub(crate) fn no_such_target(chain: ChainId, target: Option<TargetId>) -> Status {
    let detail = match target {
        Some(target) => format!("target {target} of chain {chain} is not on this node"),
        None => format!("chain {chain} has no target on this node"),
    };
    Status::new(Code::NoSuchTarget, detail)
}
