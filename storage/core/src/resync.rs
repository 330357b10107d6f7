//! Which chunks a syncing successor lacks: the planner of a resync.
//!
//! Owns the place in the pass, what is on the way, and the pace. It never sends anything: the target
//! machine performs its [`Step`]s. The chunks of both sides are merged in order, a page at a time:
//! - equal name ([`UpdateId`]) and length: nothing to do;
//! - the successor lacks it or has another: a copy, conditional on what the successor showed;
//! - only the successor has it: a removal, on the same condition;
//! - a live update is pending here: the update itself goes to the successor as part of the chain, so
//!   the chunk is looked at again when that is over.
//!
//! A chunk that the successor is known to hold is marked `synced_under` the chain version, also when
//! a live update brought it there, so a chunk that is written all the time is no obstacle. Nothing is
//! remembered across chain versions: the next round finds what is still missing by comparing anew,
//! which is what makes a resync resumable.
//!
//! What cannot be read on this side is tried again. If that is all that is left, and another member waits for
//! its sync, the successor is asked to give way: the other one may hold what this side cannot read, and serve it
//! to both.

mod bucket;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::Duration,
};

pub use bucket::TokenBucket;
use ff2_proto::{
    ChainVersion, ChunkId, Code, Status,
    marks::{Mark, reached},
    pb,
};

use crate::{
    limits,
    target::{Attempt, Page, Record, UpdateId},
};

/// Something for the target machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the successor for its chunks.
    FetchPage { after: Option<ChunkId>, limit: u32, gives_way: bool },
    /// Send the committed chunk, if the successor's is still as `observed`.
    Copy { chunk: ChunkId, observed: Option<UpdateId> },
    /// Remove the successor's chunk, if it is still as `observed`.
    Remove { chunk: ChunkId, observed: UpdateId },
    /// Nothing is missing.
    Finish,
}

/// What the planner may know of its own target.
pub struct Own<'a> {
    pub records: &'a mut BTreeMap<ChunkId, Record>,
    pub is_pending: &'a dyn Fn(ChunkId) -> bool,
    /// No update that an earlier head may have committed is still on its way.
    pub is_settled: bool,
    /// Another member waits for its own sync.
    pub others_wait: bool,
}

impl std::fmt::Debug for Own<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

/// A resync to one successor, under one chain version.
#[derive(Clone, Debug)]
pub struct Resync {
    to: pb::ChainMember,
    round: ChainVersion,
    phase: Phase,
    /// Every chunk up to here was compared in this pass.
    cursor: Option<ChunkId>,
    /// The successor's chunks behind the cursor, as far as they were fetched.
    theirs: VecDeque<(ChunkId, UpdateId, u32)>,
    fetched_all: bool,
    fetch: Option<Fetch>,
    copies: BTreeMap<ChunkId, Copying>,
    /// To be compared again, each with a fresh look.
    redo: BTreeSet<ChunkId>,
    /// Chunks that cannot be read on this side, to be tried again at `unreadable_until`.
    unreadable: BTreeSet<ChunkId>,
    unreadable_until: Duration,
    /// Something of `redo` could not be read before.
    is_stuck: bool,
    /// Too many for `redo`: the pass is done again from the start.
    redo_all: bool,
    finish: Option<Attempt>,
    not_before: Duration,
    bucket: TokenBucket,
    compared: u64,
    total: u64,
    last_failure: Option<Status>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All chunks in order.
    Pass,
    /// Single chunks of `redo`.
    Redo,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fetch {
    attempt: Option<Attempt>,
    /// A look at this one chunk, not the next page.
    only: Option<ChunkId>,
}

#[derive(Clone, Copy, Debug)]
struct Copying {
    attempt: Option<Attempt>,
    /// What is sent; None: a removal.
    id: Option<UpdateId>,
}

impl Resync {
    pub fn new(to: pb::ChainMember, round: ChainVersion, total: u64, bytes_per_s: u64) -> Self {
        Self {
            to,
            round,
            phase: Phase::Pass,
            cursor: None,
            theirs: VecDeque::new(),
            fetched_all: false,
            fetch: None,
            copies: BTreeMap::new(),
            redo: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            unreadable_until: Duration::ZERO,
            is_stuck: false,
            redo_all: false,
            finish: None,
            not_before: Duration::ZERO,
            bucket: TokenBucket::new(bytes_per_s),
            compared: 0,
            total,
            last_failure: None,
        }
    }

    pub fn successor(&self) -> pb::ChainMember {
        self.to
    }

    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// (compared, all), in chunks of this side.
    pub fn progress(&self) -> (u64, u64) {
        (self.compared.min(self.total), self.total)
    }

    pub fn set_rate(&mut self, bytes_per_s: u64) {
        self.bucket.set_rate(bytes_per_s);
    }

    pub fn explain(&self) -> String {
        let (done, total) = self.progress();
        let failure = self.last_failure.as_ref().map(|status| format!(", last failure: {status}"));
        format!(
            "sync of target {}: {done} of {total} chunks compared, {} on the way, {} to look at again, \
             {} cannot be read here{}",
            self.to.target,
            self.copies.len(),
            self.redo.len(),
            self.unreadable.len(),
            failure.unwrap_or_default()
        )
    }

    /// Decides what can be done now.
    pub fn plan(&mut self, now: Duration, mut own: Own<'_>, out: &mut Vec<Step>) {
        if now < self.not_before {
            return;
        }
        if self.phase == Phase::Pass {
            self.plan_pass(now, &mut own, out);
        }
        if self.phase == Phase::Redo {
            self.plan_redo(now, &mut own, out);
        }
    }

    /// The numbers of what a step asked for, so that late answers are told apart.
    pub fn fetching(&mut self, attempt: Attempt) {
        self.fetch.as_mut().expect("a fetch was planned").attempt = Some(attempt);
    }

    pub fn sending(&mut self, chunk: ChunkId, attempt: Attempt, id: Option<UpdateId>) {
        let copy = self.copies.get_mut(&chunk).expect("a copy was planned");
        *copy = Copying { attempt: Some(attempt), id };
    }

    pub fn finishing(&mut self, attempt: Attempt) {
        self.finish = Some(attempt);
    }

    /// A commit that the successor was not seen to take part in.
    pub fn redo(&mut self, now: Duration, chunk: ChunkId) {
        if self.redo.len() >= limits::REDO_CHUNKS {
            self.redo_all = true;
        } else {
            self.redo.insert(chunk);
        }
        if self.phase == Phase::Done {
            // It was complete and is not any more; the successor compares versions when it serves.
            self.phase = Phase::Redo;
            self.not_before = now;
        }
    }

    fn plan_pass(&mut self, now: Duration, own: &mut Own<'_>, out: &mut Vec<Step>) {
        for _ in 0..limits::PLAN_CHUNKS {
            if self.copies.len() >= limits::COPIES_IN_FLIGHT {
                return;
            }
            let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
            let mine = own.records.range((after, Bound::Unbounded)).next().map(|(&chunk, _)| chunk);
            let Some(&(their_chunk, their_id, their_length)) = self.theirs.front() else {
                if !self.fetched_all {
                    self.fetch_page(out);
                    return;
                }
                let Some(chunk) = mine else {
                    self.phase = Phase::Redo;
                    return;
                };
                if !self.compare(now, chunk, None, own, out) {
                    return;
                }
                self.advance(chunk, true);
                continue;
            };
            let chunk = mine.map_or(their_chunk, |mine| mine.min(their_chunk));
            let theirs = (chunk == their_chunk).then_some((their_id, their_length));
            if !self.compare(now, chunk, theirs, own, out) {
                return;
            }
            if theirs.is_some() {
                self.theirs.pop_front();
            }
            self.advance(chunk, mine == Some(chunk));
        }
        // A long stretch without a difference: the next call goes on.
    }

    fn advance(&mut self, chunk: ChunkId, is_mine: bool) {
        assert!(self.cursor.is_none_or(|cursor| cursor < chunk), "a pass goes forward");
        self.cursor = Some(chunk);
        self.compared += u64::from(is_mine);
    }

    fn fetch_page(&mut self, out: &mut Vec<Step>) {
        if self.fetch.is_none() {
            self.fetch = Some(Fetch { attempt: None, only: None });
            let (after, limit) = (self.cursor, limits::PAGE_CHUNKS);
            out.push(Step::FetchPage { after, limit, gives_way: false });
        }
    }

    /// Plans what this chunk needs. False: not now, the pace does not allow it.
    fn compare(
        &mut self,
        now: Duration,
        chunk: ChunkId,
        theirs: Option<(UpdateId, u32)>,
        own: &mut Own<'_>,
        out: &mut Vec<Step>,
    ) -> bool {
        let observed = theirs.map(|(id, _)| id);
        let Some(record) = own.records.get_mut(&chunk) else {
            if (own.is_pending)(chunk) {
                self.redo(now, chunk);
            } else if let Some(observed) = observed {
                self.copies.insert(chunk, Copying { attempt: None, id: None });
                out.push(Step::Remove { chunk, observed });
            }
            return true;
        };
        if record.synced_under == self.round {
            return true;
        }
        if theirs == Some((record.id, record.length)) {
            reached(Mark::ResyncResumes);
            record.synced_under = self.round;
            return true;
        }
        if (own.is_pending)(chunk) {
            self.redo(now, chunk);
            return true;
        }
        if !self.bucket.take(now, record.length.max(limits::COPY_COST_MIN)) {
            return false;
        }
        self.copies.insert(chunk, Copying { attempt: None, id: Some(record.id) });
        out.push(Step::Copy { chunk, observed });
        true
    }

    fn plan_redo(&mut self, now: Duration, own: &mut Own<'_>, out: &mut Vec<Step>) {
        if self.fetch.is_some() || self.finish.is_some() || !self.copies.is_empty() {
            return;
        }
        if self.redo_all {
            self.start_over();
            self.fetch_page(out);
            return;
        }
        while let Some(&chunk) = self.redo.first() {
            let record = own.records.get(&chunk);
            if record.is_some_and(|record| record.synced_under == self.round) {
                self.redo.remove(&chunk);
                continue;
            }
            if (own.is_pending)(chunk) {
                // The live update decides; its end may mark the chunk as synced.
                self.not_before = now + limits::RESYNC_RETRY / 4;
                return;
            }
            self.fetch = Some(Fetch { attempt: None, only: Some(chunk) });
            let gives_way = self.is_stuck && own.others_wait;
            out.push(Step::FetchPage { after: before(chunk), limit: 1, gives_way });
            return;
        }
        // Calling the successor complete would have it answer for chunks that it does not hold.
        if !self.unreadable.is_empty() {
            if now >= self.unreadable_until {
                self.redo.append(&mut self.unreadable);
                self.is_stuck = true;
            }
            return;
        }
        if own.is_settled {
            out.push(Step::Finish);
        }
    }

    fn start_over(&mut self) {
        self.phase = Phase::Pass;
        self.cursor = None;
        self.theirs.clear();
        self.fetched_all = false;
        self.redo.clear();
        self.unreadable.clear();
        self.is_stuck = false;
        self.redo_all = false;
        self.compared = 0;
    }

    /// A page arrived.
    pub fn paged(
        &mut self,
        now: Duration,
        attempt: Attempt,
        result: Result<Page<pb::SyncChunk>, Status>,
        own: Own<'_>,
        out: &mut Vec<Step>,
    ) {
        let Some(fetch) = self.fetch.take_if(|fetch| fetch.attempt == Some(attempt)) else {
            return;
        };
        let page = match result {
            Ok(page) => page,
            Err(status) => return self.failed(now, status),
        };
        let mut chunks = page.chunks.iter().filter_map(shown);
        match fetch.only {
            None => {
                let after = self.cursor;
                let is_ahead = |chunk: &ChunkId| after.is_none_or(|after| *chunk > after);
                self.theirs = chunks.filter(|(chunk, ..)| is_ahead(chunk)).collect();
                // An empty page that is not the end would never end.
                self.fetched_all = page.end || self.theirs.is_empty();
                let in_order = self.theirs.make_contiguous().is_sorted_by(|a, b| a.0 < b.0);
                if !in_order {
                    self.theirs.clear();
                    self.fetched_all = false;
                    self.failed(now, Status::new(Code::BadFrame, "a page out of order"));
                }
            }
            Some(chunk) => {
                let theirs = chunks.find(|(shown, ..)| *shown == chunk);
                let mut own = own;
                let theirs = theirs.map(|(_, id, length)| (id, length));
                self.redo.remove(&chunk);
                if !self.compare(now, chunk, theirs, &mut own, out) {
                    self.redo.insert(chunk);
                    self.not_before = now + limits::RESYNC_RETRY / 4;
                }
            }
        }
    }

    /// A copy or removal was answered.
    pub fn copied(
        &mut self,
        now: Duration,
        chunk: ChunkId,
        attempt: Attempt,
        result: &Result<(), Status>,
        records: &mut BTreeMap<ChunkId, Record>,
    ) {
        let is_awaited = self.copies.get(&chunk).is_some_and(|copy| copy.attempt == Some(attempt));
        if !is_awaited {
            return;
        }
        let copy = self.copies.remove(&chunk).expect("just seen");
        match result {
            Ok(()) => {
                self.is_stuck = false;
                if let Some(record) = records.get_mut(&chunk)
                    && copy.id == Some(record.id)
                {
                    record.synced_under = self.round;
                }
            }
            // Everything else goes on; the chunk may be overwritten, or another source take over.
            Err(status) if status.code == Code::Corrupt => {
                self.unreadable.insert(chunk);
                self.unreadable_until = now + limits::UNREADABLE_RETRY;
                self.last_failure = Some(status.clone());
            }
            // A live update was faster. Look again, with the next page's knowledge.
            Err(status) if status.code == Code::Busy => self.redo(now, chunk),
            Err(status) => {
                self.redo(now, chunk);
                self.failed(now, status.clone());
            }
        }
    }

    /// The successor answered that it knows to be complete, or why not.
    pub fn ended(&mut self, now: Duration, attempt: Attempt, result: &Result<(), Status>) {
        if self.finish.take_if(|finish| *finish == attempt).is_none() {
            return;
        }
        match result {
            Ok(()) if self.redo.is_empty() && self.unreadable.is_empty() && !self.redo_all => {
                self.phase = Phase::Done;
                self.last_failure = None;
            }
            Ok(()) => {}
            Err(status) => self.failed(now, status.clone()),
        }
    }

    fn failed(&mut self, now: Duration, status: Status) {
        self.last_failure = Some(status);
        self.not_before = now + limits::RESYNC_RETRY;
    }
}

fn shown(chunk: &pb::SyncChunk) -> Option<(ChunkId, UpdateId, u32)> {
    let id = UpdateId {
        made_under: chunk.chain_version.into(),
        version: chunk.committed_version.into(),
    };
    Some((chunk.chunk?.into(), id, chunk.length))
}

/// The key just before a chunk's; None: it is the first of all.
fn before(chunk: ChunkId) -> Option<ChunkId> {
    let last = |inode: u64, index| ChunkId::new(inode.into(), index).at(u32::MAX);
    match (chunk.inode.0, chunk.index, chunk.snapshot) {
        (_, _, snapshot) if snapshot > 0 => Some(chunk.at(snapshot - 1)),
        (inode, index, _) if index > 0 => Some(last(inode, index - 1)),
        (0, ..) => None,
        (inode, ..) => Some(last(inode - 1, u32::MAX)),
    }
}
