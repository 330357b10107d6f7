//! What happens to one chunk right now: its pending update, who waits, and the store's queue.
//!
//! A chunk without an entry is at rest: its record says all there is.

use std::{collections::VecDeque, time::Duration};

use ff2_proto::{ChainVersion, ChunkId, ChunkVersion, Status, pb};

use super::{
    event::StoreOp,
    types::{Attempt, CallId, Change, Keeping, LoadedPending, Update, UpdateId},
};
use crate::{limits, tags::Tags};

#[derive(Clone, Debug)]
pub(super) struct Live<P> {
    pub(super) pending: Option<Pending<P>>,
    /// Client updates behind the pending one, in order of arrival.
    pub(super) waiting: VecDeque<WaitingUpdate<P>>,
    /// Reads and version queries that cannot be answered yet, in order of arrival.
    pub(super) asks: VecDeque<Ask>,
    pub(super) store: StoreQueue<P>,
    /// The question to the head that is on its way.
    pub(super) query: Option<Query>,
    /// No new question before this moment.
    pub(super) query_after: Duration,
}

impl<P> Default for Live<P> {
    fn default() -> Self {
        Self {
            pending: None,
            waiting: VecDeque::new(),
            asks: VecDeque::new(),
            store: StoreQueue::default(),
            query: None,
            query_after: Duration::ZERO,
        }
    }
}

impl<P> Live<P> {
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_none()
            && self.waiting.is_empty()
            && self.asks.is_empty()
            && self.store.is_idle()
    }
}

/// One update that is neither committed nor dropped.
#[derive(Clone, Debug)]
pub(super) struct Pending<P> {
    pub(super) id: UpdateId,
    pub(super) base: Option<UpdateId>,
    pub(super) body: Body<P>,
    pub(super) chunk_size: u32,
    pub(super) tag: Option<pb::UpdateTag>,
    /// The chunk's tags once this is committed.
    pub(super) tags: Tags,
    /// As the head said.
    pub(super) keeping: Keeping,
    /// This member has what is to be kept.
    pub(super) keeps: bool,
    /// The chunk's length once this is committed.
    pub(super) length: u32,
    /// Durable here.
    pub(super) persisted: bool,
    pub(super) hop: Hop,
    /// Was sent to a successor at least once, so the successor must hear the outcome.
    pub(super) sent: bool,
    /// Pause before the next try, if this one fails.
    pub(super) pause: Duration,
    /// Why the last try failed, for people.
    pub(super) last_failure: Option<Status>,
    /// The chain version under which the predecessor, or a client, last handed it over; 0: it was
    /// found on the disk.
    pub(super) taken_under: ChainVersion,
    /// Made under an earlier chain version than the present one: another head may have committed it.
    pub(super) inherited: bool,
    /// Does not build on the chunk's content, so a damaged chunk is good after it.
    pub(super) heals: bool,
    /// A copy of a committed version, made by the resync.
    pub(super) resync: bool,
    pub(super) callers: Vec<Caller>,
    /// When it was last seen to make progress.
    pub(super) since: Duration,
}

impl<P> Pending<P> {
    /// What the store is to do about snapshots.
    pub(super) fn kept_here(&self) -> Keeping {
        Keeping { keep: if self.keeps { self.keeping.keep } else { 0 }, ..self.keeping }
    }

    /// Durable here and on every member behind.
    pub(super) fn is_complete(&self) -> bool {
        self.persisted && matches!(self.hop, Hop::Last | Hop::Done)
    }

    /// Gives a large payload's memory back: from now on the bytes are in the store only.
    pub(super) fn let_go_payload(&mut self) {
        assert!(self.persisted, "the store has it");
        let is_large = |body: &Body<P>| matches!(body, Body::Change(change) if change.carries() > limits::PAYLOAD_KEPT);
        if is_large(&self.body) {
            self.body = Body::OnDisk { removes: false };
        }
    }

    pub(super) fn removes(&self) -> bool {
        match &self.body {
            Body::Change(change) => change.removes(),
            Body::OnDisk { removes } => *removes,
        }
    }

    /// As the store had it when the process started.
    pub(super) fn from_disk(loaded: LoadedPending, base: Option<UpdateId>) -> Self {
        Self {
            id: loaded.id,
            base,
            body: Body::OnDisk { removes: loaded.removes },
            chunk_size: loaded.chunk_size,
            tag: None,
            tags: loaded.tags,
            keeping: loaded.keeping,
            keeps: loaded.keeping.keep != 0 && base.is_some(),
            length: loaded.length,
            persisted: true,
            hop: Hop::Idle,
            sent: false,
            pause: limits::FORWARD_RETRY_FIRST,
            last_failure: None,
            taken_under: ChainVersion(0),
            inherited: true,
            heals: false,
            resync: false,
            callers: Vec::new(),
            since: Duration::ZERO,
        }
    }
}

/// Where the bytes of a pending update are.
#[derive(Clone, Debug)]
pub(super) enum Body<P> {
    Change(Change<P>),
    /// Only in the store: the process started with it, or let the payload go.
    OnDisk {
        removes: bool,
    },
}

/// The way of a pending update to the successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// The target has no part in the chain now.
    Idle,
    /// There is nobody behind.
    Last,
    /// The full chunk goes, as soon as the update is durable here and can be read back.
    AwaitPersist,
    Sent {
        attempt: Attempt,
        full: bool,
    },
    Retry {
        at: Duration,
        full: bool,
    },
    /// Every member behind holds it.
    Done,
}

/// Who is told how a pending update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) call: CallId,
    /// A client waits for the commit; a predecessor only for durability.
    pub(super) client: bool,
}

#[derive(Clone, Debug)]
pub(super) struct WaitingUpdate<P> {
    pub(super) calls: Vec<CallId>,
    pub(super) update: Update<P>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) call: CallId,
    pub(super) kind: AskKind,
    /// Place in the order of all asks of the target: a question to the head covers the asks that
    /// came before it was sent.
    pub(super) order: u64,
    pub(super) deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskKind {
    /// As a snapshot shows it; 0: as it is.
    Read {
        snapshot: u32,
    },
    Query,
}

/// A read on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) asked: ChunkId,
    /// The chunk, or the clone of it, that the snapshot shows.
    pub(super) found: ChunkId,
    /// `serving_since` when it began.
    pub(super) since: ChainVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) attempt: Attempt,
    /// The pending update when the question was sent.
    pub(super) about: UpdateId,
    /// Asks before this order are covered by the answer.
    pub(super) covers: u64,
}

/// Store operations of one chunk: one in progress, the others in order behind it.
#[derive(Clone, Debug)]
pub(super) struct StoreQueue<P> {
    busy: Option<Busy>,
    queue: VecDeque<StoreOp<P>>,
    /// The first of the queue failed for want of space: it is tried again at the next tick.
    stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    Prepare(UpdateId),
    Commit(UpdateId),
    Abort(UpdateId),
}

impl<P> Default for StoreQueue<P> {
    fn default() -> Self {
        Self { busy: None, queue: VecDeque::new(), stalled: false }
    }
}

impl<P> StoreQueue<P> {
    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_none() && self.queue.is_empty()
    }

    pub(super) fn push(&mut self, op: StoreOp<P>) {
        self.queue.push_back(op);
        assert!(self.queue.len() <= limits::STORE_QUEUE, "an update settles before the next");
    }

    /// The next operation, if none is in progress.
    pub(super) fn next(&mut self) -> Option<StoreOp<P>> {
        if self.busy.is_some() || self.stalled {
            return None;
        }
        let op = self.queue.pop_front()?;
        self.busy = Some(match op {
            StoreOp::Prepare { id, .. } => Busy::Prepare(id),
            StoreOp::Commit { id } => Busy::Commit(id),
            StoreOp::Abort { id } => Busy::Abort(id),
        });
        Some(op)
    }

    /// Tries an operation again, before all others of the chunk, once [`Self::resume`] is called.
    pub(super) fn retry(&mut self, op: StoreOp<P>) {
        self.queue.push_front(op);
        self.stalled = true;
    }

    pub(super) fn resume(&mut self) {
        self.stalled = false;
    }

    pub(super) fn finish(&mut self) -> Option<Busy> {
        self.busy.take()
    }

    /// What the disk calls committed is older than what the machine does.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self.busy, Some(Busy::Commit(_)))
            || self.queue.iter().any(|op| matches!(op, StoreOp::Commit { .. }))
    }

    /// An update was dropped, and a start could still find it.
    pub(super) fn is_aborting(&self) -> bool {
        matches!(self.busy, Some(Busy::Abort(_)))
            || self.queue.iter().any(|op| matches!(op, StoreOp::Abort { .. }))
    }

    /// Takes back a prepare that has not begun. False: it has, or was never asked for.
    pub(super) fn cancel_prepare(&mut self, id: UpdateId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|op| !matches!(op, StoreOp::Prepare { id: queued, .. } if *queued == id));
        self.queue.len() < before
    }

    pub(super) fn is_preparing(&self, id: UpdateId) -> bool {
        self.busy == Some(Busy::Prepare(id))
    }

    /// Whether an operation of this update waits behind the one in progress.
    pub(super) fn has_queued(&self, id: UpdateId) -> bool {
        self.queue.iter().any(|op| op.id() == id)
    }

    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
        self.stalled = false;
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len() + usize::from(self.busy.is_some())
    }
}

/// An update that this member dropped, and why.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    pub(super) id: UpdateId,
    /// Under a later chain version it may be sent again, and is taken.
    pub(super) under: ChainVersion,
    pub(super) status: Status,
}

/// Updates for which no answer came, neither yes nor no.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// When the first of them was sent.
    pub(super) since: Duration,
    /// How long it was when the last of them was given up.
    pub(super) lasted: Duration,
}

/// A removed chunk: which update removed it, and its tags.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    pub(super) id: UpdateId,
    pub(super) tags: Tags,
}

/// Highest version among those that the machine forgot, so that none is given twice.
pub(super) fn raise(floor: &mut ChunkVersion, version: ChunkVersion) {
    *floor = (*floor).max(version);
}
