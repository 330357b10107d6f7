//! Updates from the predecessor.

use ff2_proto::{
    ChunkId, Code, Status,
    marks::{Mark, reached},
};

use super::{
    Now, Outputs, Target,
    live::{Caller, Pending},
    types::{CallId, Change, Done, Forward, Role, Update, UpdateId},
    update::{check_change, reply},
};
use crate::limits;

/// What becomes of a forward.
enum Verdict {
    /// It holds already, or just now, on this member and all behind.
    Done(Done),
    /// The call waits for an update that is pending.
    Waits,
    Refused(Status),
}

impl<P: Clone> Target<P> {
    pub(super) fn on_forward(
        &mut self,
        now: Now,
        call: CallId,
        forward: Forward<P>,
        out: &mut Outputs<P>,
    ) {
        let chunk = forward.chunk;
        let verdict = match self.check_forward(&forward) {
            Err(status) => Verdict::Refused(status),
            Ok(()) if forward.resync => self.take_copy(now, call, forward, out),
            Ok(()) => self.take_forward(now, call, forward, out),
        };
        match verdict {
            Verdict::Done(done) => reply(call, Ok(done), out),
            Verdict::Refused(status) => reply(call, Err(status), out),
            Verdict::Waits => {}
        }
        self.progress(now, chunk, out);
    }

    /// The lease is not asked: the sender counts on this member only under the chain version that
    /// both are at, and a member that was declared dead is in no later one.
    fn check_forward(&self, forward: &Forward<P>) -> Result<(), Status> {
        if let Some(status) = &self.failed {
            return Err(Status::new(Code::NotServing, format!("the target failed: {status}")));
        }
        let is_from_predecessor = self.predecessor().is_some_and(|p| p.target == forward.from.0);
        if forward.chain_version != self.version() || !self.role.takes_updates() {
            reached(Mark::StaleForwardRefused);
            return Err(self.stale("forwards are under the present chain version"));
        }
        if forward.to != self.id || !is_from_predecessor {
            return Err(self.stale("forwards come from the predecessor"));
        }
        if !self.may_begin(forward.chunk) {
            return Err(Status::new(Code::Busy, "too many updates are in progress"));
        }
        check_change(&forward.change, forward.chunk_size)
    }

    fn take_forward(
        &mut self,
        now: Now,
        call: CallId,
        forward: Forward<P>,
        out: &mut Outputs<P>,
    ) -> Verdict {
        let (chunk, id) = (forward.chunk, forward.id);
        if let Some(known) = self.known(chunk, id) {
            return known;
        }
        let pending = self.live.get_mut(&chunk).and_then(|live| live.pending.as_mut());
        if let Some(pending) = pending {
            if pending.id == id && !pending.resync {
                pending.taken_under = forward.chain_version;
                return attach(pending, call);
            }
            // A later one that was left from an earlier chain version is unknown to the predecessor, so
            // nobody committed it: it makes way like any other.
            let is_late = pending.id > id && pending.taken_under == forward.chain_version;
            if is_late && !pending.resync {
                return Verdict::Refused(Status::new(Code::StaleUpdate, "a later one is pending"));
            }
            if let Err(status) = self.make_way(now, chunk, forward.base, out) {
                return Verdict::Refused(status);
            }
        }
        let record = self.records.get(&chunk);
        if forward.change.needs_base() {
            if record.map(|record| record.id) != forward.base {
                reached(Mark::BaseMissing);
                return Verdict::Refused(Status::new(Code::MissingUpdate, "the base is not here"));
            }
            if record.is_some_and(|record| record.chunk_size != forward.chunk_size) {
                let detail = "another chunk size than the chunk's";
                return Verdict::Refused(Status::new(Code::InvalidArgument, detail));
            }
        }
        if self.dropped.get(chunk).is_some_and(|dropped| dropped.id == id) {
            reached(Mark::DroppedTaken);
        }
        let caller = Caller { call, client: false };
        let pending = self.pending_of(forward, vec![caller]);
        self.admit(now, chunk, pending, out);
        Verdict::Waits
    }

    /// What is settled already under this or an earlier chain version.
    fn known(&self, chunk: ChunkId, id: UpdateId) -> Option<Verdict> {
        match self.records.get(&chunk) {
            Some(record) if record.id >= id => {
                let done = Done { version: id.version, chunk_length: record.length };
                return Some(Verdict::Done(done));
            }
            Some(_) => {}
            None if self.tombstones.get(chunk).is_some_and(|t| t.id >= id) => {
                return Some(Verdict::Done(Done { version: id.version, chunk_length: 0 }));
            }
            None => {}
        }
        let dropped = self.dropped.get(chunk)?;
        let is_same = dropped.id == id && dropped.under == self.version();
        is_same.then(|| Verdict::Refused(dropped.status.clone()))
    }

    /// A later update arrived, which says how the pending one ended: if it is the base (or removed
    /// the chunk that the base lacks), the head committed it; else the head dropped it.
    fn make_way(
        &mut self,
        now: Now,
        chunk: ChunkId,
        base: Option<UpdateId>,
        out: &mut Outputs<P>,
    ) -> Result<(), Status> {
        let live = self.live.get(&chunk).expect("there is a pending update");
        let pending = live.pending.as_ref().expect("there is a pending update");
        let was_committed = match base {
            Some(base) => pending.id == base && !pending.removes(),
            None => pending.removes(),
        };
        if !was_committed {
            reached(Mark::NextTellsDrop);
            let status = if pending.resync {
                Status::new(Code::Busy, "a live update overtook the copy")
            } else {
                Status::new(Code::StaleUpdate, "a later update took its place")
            };
            self.drop_pending(chunk, status, out);
            return Ok(());
        }
        if !pending.persisted && !pending.resync {
            return Err(Status::new(Code::Busy, "the update before is not durable yet"));
        }
        reached(Mark::NextTellsCommit);
        self.commit(now, chunk, out);
        Ok(())
    }

    fn pending_of(&self, forward: Forward<P>, callers: Vec<Caller>) -> Pending<P> {
        let replaces = matches!(forward.change, Change::Replace { .. });
        let (id, base, tags, resync) = (forward.id, forward.base, forward.tags, forward.resync);
        let (chunk, keeping) = (forward.chunk, forward.keeping);
        let update = Update {
            chain_version: forward.chain_version,
            chunk: forward.chunk,
            change: forward.change,
            chunk_size: forward.chunk_size,
            tag: forward.tag,
        };
        let mut pending = self.make_pending(forward.chunk, id, base, update, callers);
        if replaces {
            pending.tags = tags;
        }
        // Made under an earlier chain version than this: an earlier head may have committed it.
        pending.inherited = id.made_under < self.version() && !resync;
        pending.resync = resync;
        self.keep_by(chunk, keeping, &mut pending);
        pending
    }

    /// A copy (or removal) by the resync. It counts only if the chunk is as this target showed it:
    /// whatever a live update made of it since is newer.
    fn take_copy(
        &mut self,
        now: Now,
        call: CallId,
        forward: Forward<P>,
        out: &mut Outputs<P>,
    ) -> Verdict {
        let (chunk, id) = (forward.chunk, forward.id);
        if self.role != Role::Syncing {
            return Verdict::Refused(self.stale("only a syncing target takes copies"));
        }
        let removes = forward.change.removes();
        let record = self.records.get(&chunk);
        let settled = Done { version: id.version, chunk_length: record.map_or(0, |r| r.length) };
        let is_good = record.is_some_and(|r| r.id == id) && !self.suspects.contains(&chunk);
        let is_there = if removes { record.is_none() } else { is_good };
        // Removed since by a live update: the copy on its way is of what was.
        let is_gone = record.is_none() && self.tombstones.get(chunk).is_some_and(|t| t.id >= id);
        if is_there || (is_gone && !removes) {
            return Verdict::Done(settled);
        }
        let pending = self.live.get_mut(&chunk).and_then(|live| live.pending.as_mut());
        if let Some(pending) = pending {
            if pending.resync && pending.id == id {
                return attach(pending, call);
            }
            if pending.resync || pending.taken_under == forward.chain_version || pending.id == id {
                return Verdict::Refused(Status::new(Code::Busy, "an update is pending"));
            }
            // Left from an earlier chain version, and the predecessor has none pending: had anyone
            // committed it, the predecessor would hold it. A head further up may have it pending still, and
            // send it down the chain yet: then it is taken as if it had never been here.
            let (under, status) =
                (pending.taken_under, Status::new(Code::StaleUpdate, "a copy came"));
            self.drop_under(under, chunk, status, out);
        }
        // A version 0 does not travel: what is suspect looks like what is absent.
        let named = |id: Option<UpdateId>| id.filter(|id| id.version.0 > 0);
        if named(self.shown(chunk)) != named(forward.base) {
            reached(Mark::CopyOvertaken);
            return Verdict::Refused(Status::new(
                Code::Busy,
                "the chunk changed since it was shown",
            ));
        }
        let pending = self.pending_of(forward, vec![Caller { call, client: false }]);
        self.admit(now, chunk, pending, out);
        self.sync_done_chunks += 1;
        Verdict::Waits
    }
}

fn attach<P>(pending: &mut Pending<P>, call: CallId) -> Verdict {
    if pending.is_complete() {
        return Verdict::Done(Done { version: pending.id.version, chunk_length: pending.length });
    }
    if pending.callers.len() >= limits::CALLS_PER_UPDATE {
        return Verdict::Refused(Status::new(Code::Busy, "too many retries of one update wait"));
    }
    pending.callers.push(Caller { call, client: false });
    Verdict::Waits
}
