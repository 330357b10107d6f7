//! The CRAQ machine of one target: which updates it takes, when they are committed, what it may
//! answer to a read.
//!
//! Owns the record of every chunk and, for chunks in change, the pending update and who waits. It
//! never does I/O: [`Target::step`] takes what happened and says what to do. `ff2-storaged` drives
//! it with disks and connections, the simulator with neither.
//!
//! # The life of an update
//!
//! The head gives a client's update the next version of its chunk and marks it pending, *then* asks
//! for two things at once: [`Output::Store`] (make it durable) and [`Output::Forward`] (send it to
//! the successor, which does the same). A forward is answered when the update is durable on the
//! successor and on all members behind it. An update costs the slowest persist, not their sum.
//!
//! Because persists run in parallel, a tail may hold an update before the head does; it cannot know
//! that all do. The head can: **the head commits, when its own persist is done and its forward is
//! answered.** Outcomes then go down the chain ([`Output::Settle`]) while the client already has its
//! answer. From this follow the invariants:
//!
//! - *What anyone committed is durable on every serving and syncing member.* (Asserted in `commit`;
//!   for the others it holds because they commit only what the head committed.)
//! - *An update that a member refuses (full disk) was committed by nobody*: its acknowledgement is
//!   missing at the head. So the head drops it, all members drop it, and the writer gets the error;
//!   every replica still holds the version before. See `refuse`.
//! - *A new head may hold updates that the old one committed*, so reads of those chunks wait until the
//!   new head has had them acknowledged anew (`inherited`). The same rule lets a last-serving target,
//!   alone in its chain, commit all that it had pending: unacknowledged updates may survive, no
//!   acknowledged one may be lost.
//!
//! # Reads
//!
//! Any serving member reads its committed version if nothing is pending. The head may also while
//! something is, since nobody commits before it. Another member asks the head where the chunk
//! stands and answers the reads that came before the question was sent. The lease and the place in
//! the chain are checked before the disk read and after it ([`Input::ReadDone`]).
//!
//! # The story in files
//!
//! `update` (clients, at the head), `forward` (from the predecessor), `hop` (to the successor),
//! `settle` (commit, drop, outcomes), `read` (reads and questions), `sync` (the syncing side),
//! `clones` (what is kept for snapshots), `source` (the sending side, with [`crate::resync`]),
//! `membership` (chain changes), `store` (one store operation at a time per chunk), `suspect` (damaged
//! chunks), `check` (what must always hold).

mod check;
mod clones;
mod event;
mod forward;
mod hop;
mod live;
mod membership;
mod memory;
mod read;
mod settle;
mod source;
mod store;
mod suspect;
mod sync;
#[cfg(test)]
mod tests;
mod types;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use event::{Input, Output, PageRequest, Reply, StoreOp};
use ff2_proto::{
    ChainVersion, ChunkId, ChunkVersion, Code, Status, TargetId,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use live::{Dropped, Live, Pending, Reading, Silence, Tombstone};
use memory::Memory;
pub use types::{
    Attempt, CallId, Change, Done, Forward, FullCopy, Keeping, Loaded, LoadedPending, Now, Outcome,
    Page, ReadAnswer, Record, Report, Role, Snapshots, Standing, Update, UpdateId,
};

use crate::{limits, resync::Resync};

/// The outputs of a step, in order.
pub type Outputs<P> = Vec<Output<P>>;

/// One target of one chain.
#[derive(Clone, Debug)]
pub struct Target<P> {
    id: TargetId,
    chain: pb::Chain,
    role: Role,
    /// A target that was restarted serves only under a chain version that was made after it.
    serve_after: ChainVersion,
    /// The chain version at which the present stretch of serving began.
    serving_since: ChainVersion,
    failed: Option<Status>,
    /// Not 0: it answers no reads, since its chain is to do without it.
    retired: u64,
    records: BTreeMap<ChunkId, Record>,
    live: BTreeMap<ChunkId, Live<P>>,
    tombstones: Memory<Tombstone>,
    /// Updates that were dropped here.
    dropped: Memory<Dropped>,
    version_floor: ChunkVersion,
    /// Committed chunks that the disk does not give back as they were written.
    suspects: BTreeSet<ChunkId>,
    /// Since when the successor has answered no update, if its last answer was silence.
    successor_silent: Option<Silence>,
    /// Last number given to an attempt or an ask.
    counter: u64,
    waiting_updates: usize,
    waiting_reads: usize,
    reading: BTreeMap<CallId, Reading>,
    snapshots: Snapshots,
    /// The sync to the successor, while that is syncing and this target serves.
    source: Option<Resync>,
    sync_bytes_per_s: u64,
    /// The predecessor said that nothing is missing, under this chain version.
    complete_under: Option<ChainVersion>,
    sync_done_chunks: u64,
    sync_total_chunks: u64,
}

impl<P: Clone> Target<P> {
    /// A target as its store was found, or a new one. It has no part in the chain until the first
    /// [`Input::Chain`], and serves only under a chain version above `serve_after`.
    pub fn new(
        id: TargetId,
        chain: ff2_proto::ChainId,
        serve_after: ChainVersion,
        loaded: impl IntoIterator<Item = Loaded>,
    ) -> Self {
        let mut target = Self {
            id,
            chain: pb::Chain { id: chain.0, ..Default::default() },
            role: Role::Out,
            serve_after,
            serving_since: ChainVersion(0),
            failed: None,
            retired: 0,
            records: BTreeMap::new(),
            live: BTreeMap::new(),
            tombstones: Memory::new(limits::TOMBSTONES),
            dropped: Memory::new(limits::DROPPED),
            version_floor: ChunkVersion(0),
            suspects: BTreeSet::new(),
            successor_silent: None,
            counter: 0,
            waiting_updates: 0,
            waiting_reads: 0,
            reading: BTreeMap::new(),
            snapshots: Snapshots::default(),
            source: None,
            sync_bytes_per_s: u64::MAX,
            complete_under: None,
            sync_done_chunks: 0,
            sync_total_chunks: 0,
        };
        for Loaded { chunk, committed, pending } in loaded {
            let base = committed.as_ref().map(|record| record.id);
            if let Some(record) = committed {
                target.records.insert(chunk, record);
            }
            let Some(pending) = pending else { continue };
            let live = target.live.entry(chunk).or_default();
            if base.is_some_and(|base| pending.id <= base) {
                // No update: what was to take the place of a damaged chunk. It may have done so, and its
                // commit was not synced: then the chain counts on it. If not, the next sync sees to it.
                reached(Mark::CopyLeftBehind);
                live.store.push(StoreOp::Commit { id: pending.id });
                if pending.removes {
                    target.records.remove(&chunk);
                } else {
                    target.records.insert(chunk, pending.into_record());
                }
            } else {
                live.pending = Some(Pending::from_disk(pending, base));
            }
        }
        target
    }

    /// Takes in what happened at `now`; what is to be done is appended to `out`.
    pub fn step(&mut self, now: Now, input: Input<P>, out: &mut Outputs<P>) {
        match input {
            Input::Chain(chain) => self.on_chain(now, chain, out),
            Input::Update { call, update } => self.on_update(now, call, update, out),
            Input::Forward { call, forward } => self.on_forward(now, call, forward, out),
            Input::Read { call, chunk } => self.on_read(now, call, chunk, out),
            Input::Query { call, chain_version, chunk } => {
                self.on_query(now, call, chain_version, chunk, out);
            }
            Input::List { call, from, last, limit, clones } => {
                self.on_list(now, call, from..=last, limit, clones, out);
            }
            Input::SyncPage { call, request } => self.on_sync_page(call, &request, out),
            Input::SyncDone { call, chain_version } => self.on_sync_done(call, chain_version, out),
            Input::Settle { chain_version, from, outcomes } => {
                self.on_settle(now, chain_version, from, &outcomes, out);
            }
            Input::Stored { chunk, result } => self.on_stored(now, chunk, result, out),
            Input::Forwarded { chunk, attempt, result } => {
                self.on_forwarded(now, chunk, attempt, result, out);
            }
            Input::Queried { chunk, attempt, result } => {
                self.on_queried(now, chunk, attempt, result, out);
            }
            Input::ReadDone { call, result } => self.on_read_done(now, call, result, out),
            Input::Paged { attempt, result } => self.on_paged(now, attempt, result, out),
            Input::Copied { chunk, attempt, result } => {
                self.on_copied(now, chunk, attempt, result, out);
            }
            Input::SyncEnded { attempt, result } => self.on_sync_ended(now, attempt, result, out),
            Input::SyncRate { bytes_per_s } => self.set_sync_rate(bytes_per_s),
            Input::Retire(number) => self.retire(number, out),
            Input::Snapshots(snapshots) => self.set_snapshots(now, snapshots, out),
            Input::Failed(status) => self.fail(status, out),
        }
        self.check_in_debug();
    }

    /// Time passed: retries, waits that ran out, the resync's pace. Some ten times a second or more.
    pub fn tick(&mut self, now: Now, out: &mut Outputs<P>) {
        let chunks: Vec<ChunkId> = self.live.keys().copied().collect();
        for chunk in chunks {
            if let Some(live) = self.live.get_mut(&chunk) {
                live.store.resume();
            }
            self.retry_hop(now, chunk, out);
            self.give_up_asks(now, chunk, out);
            self.ask_about_unsettled(now, chunk, out);
            self.progress(now, chunk, out);
        }
        self.run_source(now, out);
        self.check_in_debug();
    }

    pub fn id(&self) -> TargetId {
        self.id
    }

    pub fn chain(&self) -> &pb::Chain {
        &self.chain
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// The number of its retirement, or 0.
    pub fn retired(&self) -> u64 {
        self.retired
    }

    pub fn failure(&self) -> Option<&Status> {
        self.failed.as_ref()
    }

    /// Whether the target failed for a reason that passes, and its chain went on without it: once
    /// the reason is gone, a new machine from the same store may take its place.
    pub fn may_return(&self) -> bool {
        let passes = self.failed.as_ref().is_some_and(may_pass);
        let state = self.chain.member(self.id).map(pb::ChainMember::state);
        passes && !matches!(state, Some(pb::PublicState::Serving | pb::PublicState::Syncing))
    }

    /// The committed chunks.
    pub fn records(&self) -> &BTreeMap<ChunkId, Record> {
        &self.records
    }

    /// Chunks with a pending update or with somebody waiting.
    pub fn live_chunks(&self) -> usize {
        self.live.len()
    }

    /// The pending update of a chunk, if there is one.
    pub fn pending(&self, chunk: ChunkId) -> Option<UpdateId> {
        self.live.get(&chunk)?.pending.as_ref().map(|pending| pending.id)
    }

    /// Whether a resync to the successor is under way.
    pub fn is_source(&self) -> bool {
        self.source.as_ref().is_some_and(|source| !source.is_done())
    }

    fn version(&self) -> ChainVersion {
        ChainVersion(self.chain.version)
    }

    fn next_attempt(&mut self) -> Attempt {
        self.counter += 1;
        Attempt(self.counter)
    }

    /// The refusal that carries the chain as it is known here.
    fn stale(&self, detail: &str) -> Status {
        Status::stale_routing(Some(self.chain.clone()), detail)
    }

    /// Whether client calls may be answered at all.
    fn may_serve(&self, now: Now) -> Result<(), Status> {
        match &self.failed {
            // What ails this target is no word about the call: another member serves it.
            Some(status) if may_pass(status) => {
                return Err(Status::new(Code::NotServing, format!("the target failed: {status}")));
            }
            Some(status) => return Err(status.clone()),
            None => {}
        }
        if !self.role.serves() {
            return Err(self.stale("this target does not serve now"));
        }
        if !now.lease {
            reached(Mark::FenceRefuses);
            return Err(Status::new(Code::Fenced, "the node's lease is not valid"));
        }
        Ok(())
    }

    /// Whether reads may be answered. One that retires takes part in updates as before, under chain versions that
    /// its successors must agree to; but reads it would answer by its lease alone, while the chain goes on
    /// without it.
    fn may_read(&self, now: Now) -> Result<(), Status> {
        self.may_serve(now)?;
        match self.retired {
            0 => Ok(()),
            _ => Err(retired()),
        }
    }

    /// After anything happened to a chunk: whatever can go on, goes on.
    fn progress(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        loop {
            self.settle_if_complete(now, chunk, out);
            if !self.start_next(now, chunk, out) {
                break;
            }
        }
        self.serve_asks(now, chunk, out);
        self.pump(chunk, out);
        if self.live.get(&chunk).is_some_and(Live::is_idle) {
            self.live.remove(&chunk);
        }
    }

    /// Why something of this target waits, for people: one line for each chunk in change.
    pub fn explain(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(status) = &self.failed {
            lines.push(format!("failed: {status}"));
        }
        if let Some(source) = &self.source {
            lines.push(source.explain());
        }
        for (chunk, live) in self.live.iter().take(limits::PAGE_CHUNKS as usize) {
            let pending = live.pending.as_ref().map(|pending| {
                let durable = if pending.persisted { "durable" } else { "being made durable" };
                let failure = pending.last_failure.as_ref().map(|why| format!(" ({why})"));
                let failure = failure.unwrap_or_default();
                format!("{:?} {durable}, forward {:?}{failure}", pending.id, pending.hop)
            });
            lines.push(format!(
                "{chunk}: pending {}; {} updates and {} reads wait, {} store operations",
                pending.as_deref().unwrap_or("none"),
                live.waiting.len(),
                live.asks.len(),
                live.store.len(),
            ));
        }
        lines
    }
}

/// Whether a target that failed for this may come back without a restart of its server.
fn may_pass(status: &Status) -> bool {
    matches!(status.code, Code::NoSpace | Code::Corrupt)
}

/// Another member is asked at once.
fn retired() -> Status {
    Status::new(Code::Fenced, "the target leaves its chain, and answers no reads any more")
}

/// Doubles a pause up to the longest.
fn longer(pause: Duration) -> Duration {
    (pause * 2).min(limits::FORWARD_RETRY_LAST)
}
