//! How an update ends: committed, or dropped.

use ff2_proto::{
    ChainVersion, ChunkId, Code, Status, TargetId,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};

use super::{
    Now, Outputs, Target,
    event::{Output, Reply, StoreOp},
    live::{Dropped, Hop, Pending, Tombstone, raise},
    types::{Done, Outcome, Record, UpdateId},
};

impl<P: Clone> Target<P> {
    /// What follows once an update is durable here and behind: the head commits it, another member
    /// tells its predecessor.
    pub(super) fn settle_if_complete(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let Some(pending) = self.live.get(&chunk).and_then(|live| live.pending.as_ref()) else {
            return;
        };
        if !pending.is_complete() || self.failed.is_some() {
            return;
        }
        if pending.resync || self.role.is_head() {
            self.commit(now, chunk, out);
            return;
        }
        let done = Done { version: pending.id.version, chunk_length: pending.length };
        self.answer_callers(chunk, Ok(done), out);
        // The answer gives the sender its credit back; the memory comes back with it.
        if let Some(pending) = self.live.get_mut(&chunk).and_then(|live| live.pending.as_mut()) {
            pending.let_go_payload();
        }
    }

    /// Commits the pending update.
    ///
    /// At the head this is the moment from which reads see it. All members hold it: here it is
    /// durable, and the successor's answer under the present chain version says so of all behind.
    pub(super) fn commit(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let live = self.live.get_mut(&chunk).expect("there is an update to commit");
        let pending = live.pending.take().expect("there is an update to commit");
        if self.role.is_head() {
            assert!(pending.is_complete(), "the head commits what every member holds");
            if pending.inherited {
                reached(Mark::InheritedCommitted);
            }
        }
        let is_ahead = self.records.get(&chunk).is_none_or(|record| record.id < pending.id);
        assert!(is_ahead || pending.resync, "versions grow");
        self.push_store(chunk, StoreOp::Commit { id: pending.id });
        let done = Done { version: pending.id.version, chunk_length: pending.length };
        for caller in &pending.callers {
            out.push(Output::Reply { call: caller.call, reply: Reply::Update(Ok(done)) });
        }
        self.tell_successor(chunk, &pending, true, out);
        self.record(now, chunk, pending);
    }

    fn record(&mut self, now: Now, chunk: ChunkId, pending: Pending<P>) {
        if pending.keeps {
            self.keep(now, chunk, &pending);
        }
        if pending.heals && self.suspects.remove(&chunk) {
            reached(Mark::DamageHealed);
        }
        let synced_under = self.synced_by(&pending);
        let is_synced = synced_under == self.version();
        if pending.removes() {
            self.records.remove(&chunk);
            if !pending.resync {
                let tombstone = Tombstone { id: pending.id, tags: pending.tags };
                if let Some(forgotten) = self.tombstones.insert(chunk, tombstone) {
                    raise(&mut self.version_floor, forgotten.id.version);
                }
            }
        } else {
            // Its tags have moved into the record's.
            if let Some(tombstone) = self.tombstones.remove(chunk) {
                raise(&mut self.version_floor, tombstone.id.version);
            }
            let record = Record {
                id: pending.id,
                length: pending.length,
                chunk_size: pending.chunk_size,
                tags: pending.tags,
                since: pending.keeping.since,
                synced_under,
            };
            self.records.insert(chunk, record);
        }
        if !is_synced && let Some(source) = &mut self.source {
            source.redo(now.at, chunk);
        }
    }

    /// The present chain version if the syncing successor holds this update, else 0.
    fn synced_by(&self, pending: &Pending<P>) -> ChainVersion {
        let syncs = self.source.is_some();
        if syncs && pending.hop == Hop::Done { self.version() } else { ChainVersion(0) }
    }

    /// This member could not take the update, or the successor could not.
    ///
    /// Safe at any place in the chain: the head commits only when every member holds the update, and
    /// this one does not, so nobody has committed it or ever will. The error goes up with the
    /// answers of the forwards and reaches the writer; the outcome goes down, so that the members
    /// behind drop it too. All replicas are left with the version before, equal and readable.
    pub(super) fn refuse(&mut self, chunk: ChunkId, status: Status, out: &mut Outputs<P>) {
        self.drop_pending(chunk, status, out);
    }

    /// Forgets the pending update; whoever waits for it gets `status`, and so does whoever sends it
    /// again under this chain version: taking it after all could meet a late order to drop it.
    pub(super) fn drop_pending(&mut self, chunk: ChunkId, status: Status, out: &mut Outputs<P>) {
        self.drop_under(self.version(), chunk, status, out);
    }

    /// As [`Self::drop_pending`], but it is refused under that chain version, and taken under the present one if
    /// that is another: nobody had it dropped, so no late order to drop it is on its way.
    pub(super) fn drop_under(
        &mut self,
        under: ChainVersion,
        chunk: ChunkId,
        status: Status,
        out: &mut Outputs<P>,
    ) {
        let live = self.live.get_mut(&chunk).expect("there is an update to drop");
        let pending = live.pending.take().expect("there is an update to drop");
        let was_begun = !live.store.cancel_prepare(pending.id)
            && (pending.persisted || live.store.is_preparing(pending.id));
        if was_begun {
            self.push_store(chunk, StoreOp::Abort { id: pending.id });
        }
        for caller in &pending.callers {
            let reply = Reply::Update(Err(status.clone()));
            out.push(Output::Reply { call: caller.call, reply });
        }
        if pending.resync {
            return;
        }
        self.tell_successor(chunk, &pending, false, out);
        let dropped = Dropped { id: pending.id, under, status };
        if let Some(forgotten) = self.dropped.insert(chunk, dropped) {
            raise(&mut self.version_floor, forgotten.id.version);
        }
    }

    fn tell_successor(
        &self,
        chunk: ChunkId,
        pending: &Pending<P>,
        committed: bool,
        out: &mut Outputs<P>,
    ) {
        if !pending.sent || pending.resync {
            return;
        }
        if let Some(to) = self.chain.successor(self.id) {
            let outcome = Outcome { chunk, id: pending.id, committed };
            out.push(Output::Settle { to: *to, outcome });
        }
    }

    /// Answers everybody who waits for the pending update, and keeps it.
    pub(super) fn answer_callers(
        &mut self,
        chunk: ChunkId,
        result: Result<Done, Status>,
        out: &mut Outputs<P>,
    ) {
        let pending = self.live.get_mut(&chunk).and_then(|live| live.pending.as_mut());
        for caller in
            pending.map(|pending| std::mem::take(&mut pending.callers)).unwrap_or_default()
        {
            let reply = Reply::Update(result.clone());
            out.push(Output::Reply { call: caller.call, reply });
        }
    }

    /// Outcomes from the predecessor. What does not fit is ignored: a question to the head
    /// (`read`) finds out whatever a lost or late message left open.
    pub(super) fn on_settle(
        &mut self,
        now: Now,
        chain_version: ChainVersion,
        from: TargetId,
        outcomes: &[Outcome],
        out: &mut Outputs<P>,
    ) {
        let is_from_predecessor = self.predecessor().is_some_and(|p| p.target == from.0);
        if chain_version != self.version() || !is_from_predecessor || self.failed.is_some() {
            return;
        }
        for outcome in outcomes {
            self.settle(now, outcome.chunk, outcome.id, outcome.committed, out);
        }
    }

    /// The head decided about this update.
    pub(super) fn settle(
        &mut self,
        now: Now,
        chunk: ChunkId,
        id: UpdateId,
        committed: bool,
        out: &mut Outputs<P>,
    ) {
        let Some(pending) = self.pending_mut(chunk, id) else { return };
        if pending.resync {
            return;
        }
        if committed {
            // The head had this member's word that it is durable.
            if !pending.persisted {
                return;
            }
            self.commit(now, chunk, out);
        } else {
            self.drop_pending(chunk, Status::new(Code::StaleUpdate, "the head dropped it"), out);
        }
        self.progress(now, chunk, out);
    }

    pub(super) fn predecessor(&self) -> Option<&pb::ChainMember> {
        let mut before = None;
        for member in self.chain.writable() {
            if member.target == self.id.0 {
                return before;
            }
            before = Some(member);
        }
        None
    }
}
