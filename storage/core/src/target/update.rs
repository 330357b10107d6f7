//! Clients' updates, at the head.

use ff2_proto::{
    ChunkId, ChunkVersion, Code, Status, limits as shared,
    marks::{Mark, reached},
};

use super::{
    Now, Outputs, Target,
    event::{Output, Reply, StoreOp},
    live::{Body, Caller, Hop, Pending, WaitingUpdate},
    types::{CallId, Change, Done, Keeping, Update, UpdateId},
};
use crate::{
    limits,
    tags::{Seen, Tags, same_channel},
};

impl<P: Clone> Target<P> {
    pub(super) fn on_update(
        &mut self,
        now: Now,
        call: CallId,
        update: Update<P>,
        out: &mut Outputs<P>,
    ) {
        let chunk = update.chunk;
        match self.admit_update(now, call, update) {
            Ok(None) => self.progress(now, chunk, out),
            Ok(Some(done)) => reply(call, Ok(done), out),
            Err(status) => reply(call, Err(status), out),
        }
    }

    /// Queues the update, attaches the call to one in progress, or says what it already came to.
    fn admit_update(
        &mut self,
        now: Now,
        call: CallId,
        update: Update<P>,
    ) -> Result<Option<Done>, Status> {
        self.may_serve(now)?;
        if !self.role.is_head() || update.chain_version != self.version() {
            reached(Mark::StaleUpdateRefused);
            return Err(self.stale("updates go to the head, under the present chain version"));
        }
        if matches!(update.change, Change::Replace { .. }) {
            return Err(Status::new(Code::Forbidden, "replacements are between targets"));
        }
        check_change(&update.change, update.chunk_size)?;
        let chunk = update.chunk;
        self.check_chunk_size(&update)?;
        if let Some(tag) = &update.tag {
            if let Some(done) = self.applied(chunk, tag)? {
                reached(Mark::DoubleAnswered);
                return Ok(Some(done));
            }
            if self.attach(chunk, tag, call)? {
                reached(Mark::DoubleAttached);
                return Ok(None);
            }
        }
        let waiting = self.live.get(&chunk).map_or(0, |live| live.waiting.len());
        if waiting >= limits::WAITING_UPDATES_PER_CHUNK
            || self.waiting_updates >= limits::WAITING_UPDATES_PER_TARGET
            || !self.may_begin(chunk)
        {
            return Err(Status::new(Code::Busy, "too many updates wait"));
        }
        self.waiting_updates += 1;
        let live = self.live.entry(chunk).or_default();
        live.waiting.push_back(WaitingUpdate { calls: vec![call], update });
        Ok(None)
    }

    /// Whether one more chunk may be in change.
    pub(super) fn may_begin(&self, chunk: ChunkId) -> bool {
        self.live.len() < limits::LIVE_CHUNKS_PER_TARGET || self.live.contains_key(&chunk)
    }

    /// What the chunk remembers of this update.
    fn applied(
        &self,
        chunk: ChunkId,
        tag: &ff2_proto::pb::UpdateTag,
    ) -> Result<Option<Done>, Status> {
        match self.tags(chunk).map_or(Seen::New, |tags| tags.seen(tag)) {
            Seen::New => Ok(None),
            Seen::Applied(version) => {
                let chunk_length = self.records.get(&chunk).map_or(0, |record| record.length);
                Ok(Some(Done { version, chunk_length }))
            }
            Seen::Stale => Err(past_it()),
        }
    }

    /// If this very update is pending or waits, its answer goes to this call too.
    fn attach(
        &mut self,
        chunk: ChunkId,
        tag: &ff2_proto::pb::UpdateTag,
        call: CallId,
    ) -> Result<bool, Status> {
        let Some(live) = self.live.get_mut(&chunk) else { return Ok(false) };
        let too_many = || Status::new(Code::Busy, "too many retries of one update wait");
        if let Some(pending) = &mut live.pending
            && let Some(seq) = seq_in_channel(pending.tag.as_ref(), &pending.tags, tag)
        {
            if tag.seq < seq {
                return Err(past_it());
            }
            if tag.seq == seq {
                if pending.callers.len() >= limits::CALLS_PER_UPDATE {
                    return Err(too_many());
                }
                pending.callers.push(Caller { call, client: true });
                return Ok(true);
            }
        }
        for waiting in &mut live.waiting {
            let Some(known) = waiting.update.tag.filter(|known| same_channel(known, tag)) else {
                continue;
            };
            if tag.seq < known.seq {
                return Err(past_it());
            }
            if tag.seq == known.seq {
                if waiting.calls.len() >= limits::CALLS_PER_UPDATE {
                    return Err(too_many());
                }
                waiting.calls.push(call);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Starts the update that waits first, if nothing is pending. Returns whether one was taken.
    pub(super) fn start_next(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) -> bool {
        if !self.role.is_head() || self.failed.is_some() || self.snapshots.frozen {
            return false;
        }
        let Some(live) = self.live.get_mut(&chunk) else { return false };
        if live.pending.is_some() {
            return false;
        }
        let Some(WaitingUpdate { calls, update }) = live.waiting.pop_front() else { return false };
        self.waiting_updates -= 1;
        if let Some(done) = self.without_effect(&update) {
            for call in calls {
                reply(call, Ok(done), out);
            }
            return true;
        }
        // Looked at again: the update before this one may have made the chunk.
        if let Err(status) = self.check_chunk_size(&update) {
            for call in calls {
                reply(call, Err(status.clone()), out);
            }
            return true;
        }
        let id = UpdateId { made_under: self.version(), version: self.next_version(chunk) };
        let callers = calls.into_iter().map(|call| Caller { call, client: true }).collect();
        let base = self.records.get(&chunk).map(|record| record.id);
        let mut pending = self.make_pending(chunk, id, base, update, callers);
        self.keep_by(chunk, self.keeping_now(chunk), &mut pending);
        self.admit(now, chunk, pending, out);
        true
    }

    /// Removing what is not there changes nothing: all serving members lack the chunk as the head does,
    /// and a syncing one is told by the resync. Unless an update of it was dropped: a member may not know
    /// that yet, and would bring the chunk back. That one must answer for the removal.
    ///
    /// To cut what is not there to nothing is another matter: that must be remembered by all, so that it
    /// is not carried out on what was written since, and leaves an empty chunk.
    fn without_effect(&self, update: &Update<P>) -> Option<Done> {
        let removed = self.tombstones.get(update.chunk).map(|tombstone| tombstone.id);
        let dropped = self.dropped.get(update.chunk).map(|dropped| dropped.id);
        if self.records.contains_key(&update.chunk) || dropped > removed {
            return None;
        }
        let nothing = Done { version: ChunkVersion(0), chunk_length: 0 };
        update.change.removes().then_some(nothing)
    }

    fn check_chunk_size(&self, update: &Update<P>) -> Result<(), Status> {
        let record = self.records.get(&update.chunk);
        let differs = record.is_some_and(|record| record.chunk_size != update.chunk_size);
        if differs && update.change.needs_base() {
            return Err(Status::new(Code::InvalidArgument, "another chunk size than the chunk's"));
        }
        Ok(())
    }

    fn next_version(&self, chunk: ChunkId) -> ChunkVersion {
        let mut last = self.version_floor;
        last = last.max(self.records.get(&chunk).map_or(ChunkVersion(0), |r| r.id.version));
        last = last.max(self.tombstones.get(chunk).map_or(ChunkVersion(0), |t| t.id.version));
        last = last.max(self.dropped.get(chunk).map_or(ChunkVersion(0), |d| d.id.version));
        ChunkVersion(last.0 + 1)
    }

    pub(super) fn make_pending(
        &self,
        chunk: ChunkId,
        id: UpdateId,
        base: Option<UpdateId>,
        update: Update<P>,
        callers: Vec<Caller>,
    ) -> Pending<P> {
        let mut tags = self.tags(chunk).cloned().unwrap_or_default();
        if let Some(tag) = &update.tag {
            tags.apply(tag, id.version);
        }
        let before = self.records.get(&chunk).map_or(0, |record| record.length);
        Pending {
            id,
            base,
            heals: !update.change.needs_base(),
            length: update.change.length_after(before),
            body: Body::Change(update.change),
            chunk_size: update.chunk_size,
            tag: update.tag,
            tags,
            keeping: Keeping::default(),
            keeps: false,
            persisted: false,
            hop: Hop::Idle,
            sent: false,
            pause: limits::FORWARD_RETRY_FIRST,
            last_failure: None,
            taken_under: self.version(),
            inherited: false,
            resync: false,
            callers,
            since: std::time::Duration::ZERO,
        }
    }

    /// Makes the update pending in memory, then has it stored and forwarded, both at once.
    pub(super) fn admit(
        &mut self,
        now: Now,
        chunk: ChunkId,
        mut pending: Pending<P>,
        out: &mut Outputs<P>,
    ) {
        pending.since = now.at;
        let Body::Change(change) = &pending.body else {
            unreachable!("an update from the disk is not admitted again")
        };
        let prepare = StoreOp::Prepare {
            id: pending.id,
            change: change.clone(),
            chunk_size: pending.chunk_size,
            tags: pending.tags.clone(),
            keeping: pending.kept_here(),
        };
        let live = self.live.entry(chunk).or_default();
        assert!(live.pending.is_none(), "one pending update per chunk");
        live.pending = Some(pending);
        self.push_store(chunk, prepare);
        self.pump(chunk, out);
        self.aim(now, chunk, out);
    }

    /// What the chunk, or its tombstone, remembers.
    pub(super) fn tags(&self, chunk: ChunkId) -> Option<&Tags> {
        match self.records.get(&chunk) {
            Some(record) => Some(&record.tags),
            None => self.tombstones.get(chunk).map(|tombstone| &tombstone.tags),
        }
    }
}

/// The number that a pending update has in the channel of `tag`, if it came from there. An update
/// found on the disk has lost its own tag, but its tags end with it.
fn seq_in_channel(
    own: Option<&ff2_proto::pb::UpdateTag>,
    tags: &Tags,
    tag: &ff2_proto::pb::UpdateTag,
) -> Option<u64> {
    let newest = || tags.entries().last().and_then(|entry| entry.tag.as_ref());
    let known = own.or_else(newest)?;
    same_channel(known, tag).then_some(known.seq)
}

fn past_it() -> Status {
    Status::new(Code::StaleUpdate, "the channel is past this update")
}

/// What no update may be, whoever sent it.
pub(super) fn check_change<P>(change: &Change<P>, chunk_size: u32) -> Result<(), Status> {
    let invalid = |detail| Err(Status::new(Code::InvalidArgument, detail));
    if change.removes() {
        // Whoever removes a chunk need not know its size.
        return Ok(());
    }
    let sizes = shared::CHUNK_SIZE_MIN..=shared::CHUNK_SIZE_MAX;
    if !chunk_size.is_power_of_two() || !sizes.contains(&chunk_size) {
        return invalid("a chunk size is a power of two from 64 KiB to 64 MiB");
    }
    let end = match change {
        Change::Write { length: 0, .. } => return invalid("a write has bytes"),
        Change::Write { offset, length, .. } => u64::from(*offset) + u64::from(*length),
        Change::Truncate { length } | Change::Replace { length, .. } => u64::from(*length),
        Change::Remove => 0,
    };
    if end > u64::from(chunk_size) {
        return invalid("no byte lies at or above the chunk size");
    }
    Ok(())
}

pub(super) fn reply<P>(call: CallId, result: Result<Done, Status>, out: &mut Outputs<P>) {
    out.push(Output::Reply { call, reply: Reply::Update(result) });
}
