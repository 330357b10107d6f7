//! Reads on any serving member, and the question to the head that makes them linearizable.
//!
//! A member with a pending update cannot know whether the head committed it. It asks; the answer is
//! as of a moment after the question was sent, so it serves the reads that had come before that, and
//! no later one. Often it also settles the pending update.

use std::{collections::BTreeMap, ops::RangeInclusive};

use ff2_proto::{
    ChainVersion, ChunkId, Code, Status,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};

use super::{
    Now, Outputs, Target,
    event::{Output, Reply},
    live::{Ask, AskKind, Live, Query, Reading},
    membership::{refusal, reply_read},
    types::{Attempt, CallId, Page, ReadAnswer, Record, Role, Standing, UpdateId},
};
use crate::limits;

impl<P: Clone> Target<P> {
    pub(super) fn on_read(&mut self, now: Now, call: CallId, chunk: ChunkId, out: &mut Outputs<P>) {
        if let Err(status) = self.may_read(now) {
            reply_read(call, Err(status), out);
            return;
        }
        if self.waiting_reads + self.reading.len() >= limits::READS_PER_TARGET {
            reply_read(call, Err(Status::new(Code::Busy, "too many reads")), out);
            return;
        }
        // What a snapshot shows may depend on the update that is pending now.
        if self.live.contains_key(&chunk.now()) {
            let snapshot = chunk.snapshot;
            self.queue_ask(now, call, AskKind::Read { snapshot }, chunk.now(), out);
        } else {
            self.answer_read(call, chunk, out);
        }
    }

    /// Where a chunk stands, asked by another member. Only the head knows.
    pub(super) fn on_query(
        &mut self,
        now: Now,
        call: CallId,
        chain_version: ChainVersion,
        chunk: ChunkId,
        out: &mut Outputs<P>,
    ) {
        let mut checked = self.may_serve(now);
        if checked.is_ok() && (!self.role.is_head() || chain_version != self.version()) {
            checked = Err(self.stale("questions go to the head, under the present chain version"));
        }
        match checked {
            Err(status) => out.push(Output::Reply { call, reply: Reply::Query(Err(status)) }),
            Ok(()) => self.queue_ask(now, call, AskKind::Query, chunk, out),
        }
    }

    fn queue_ask(
        &mut self,
        now: Now,
        call: CallId,
        kind: AskKind,
        chunk: ChunkId,
        out: &mut Outputs<P>,
    ) {
        self.counter += 1;
        let order = self.counter;
        let live = self.live.entry(chunk).or_default();
        if live.asks.len() >= limits::WAITING_READS_PER_CHUNK {
            let status = Status::new(Code::Busy, "too many reads wait for one chunk");
            out.push(Output::Reply { call, reply: refusal(kind, status) });
            return;
        }
        live.asks.push_back(Ask { call, kind, order, deadline: now.at + limits::READ_WAIT });
        self.waiting_reads += 1;
        self.progress(now, chunk, out);
    }

    /// Answers the asks that can be answered now; asks the head about the others.
    pub(super) fn serve_asks(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let Some(live) = self.live.get(&chunk) else { return };
        if live.asks.is_empty() || self.may_serve(now).is_err() {
            return;
        }
        let is_open = match &live.pending {
            None => true,
            // Nobody commits before the head; but an earlier head may have.
            Some(pending) => self.role.is_head() && !pending.inherited,
        };
        if is_open {
            self.answer_asks(chunk, u64::MAX, out);
        } else if !self.role.is_head() {
            reached(Mark::ReadAsksHead);
            self.ask_head(now, chunk, out);
        }
    }

    /// Answers the asks that came before `covers` with what is committed here.
    fn answer_asks(&mut self, chunk: ChunkId, covers: u64, out: &mut Outputs<P>) {
        let standing = self.standing(chunk);
        let Some(live) = self.live.get_mut(&chunk) else { return };
        // The disk does not know yet what is committed: reads wait for it, a moment.
        let disk_is_behind = live.store.is_behind();
        let asks = std::mem::take(&mut live.asks);
        let (ready, wait): (Vec<Ask>, Vec<Ask>) = asks
            .into_iter()
            .partition(|ask| ask.order < covers && (ask.kind == AskKind::Query || !disk_is_behind));
        live.asks = wait.into();
        self.waiting_reads -= ready.len();
        for ask in ready {
            match ask.kind {
                AskKind::Read { snapshot } => self.answer_read(ask.call, chunk.at(snapshot), out),
                AskKind::Query => {
                    out.push(Output::Reply { call: ask.call, reply: Reply::Query(Ok(standing)) });
                }
            }
        }
    }

    fn answer_read(&mut self, call: CallId, chunk: ChunkId, out: &mut Outputs<P>) {
        let Some(found) = self.shown_at(chunk) else {
            reply_read(call, Ok(ReadAnswer::Absent), out);
            return;
        };
        self.reading.insert(call, Reading { asked: chunk, found, since: self.serving_since });
        out.push(Output::Read { call, chunk: found });
    }

    /// The bytes are there; they count only if this target still is what it was.
    pub(super) fn on_read_done(
        &mut self,
        now: Now,
        call: CallId,
        result: Result<(), Status>,
        out: &mut Outputs<P>,
    ) {
        let Reading { asked, found: chunk, since } =
            self.reading.remove(&call).expect("a read is done once");
        let mut checked = self.may_read(now);
        if checked.is_ok() && since != self.serving_since {
            checked = Err(self.stale("the target left the chain during the read"));
        }
        if checked.is_ok() && asked.snapshot != 0 && self.shown_at(asked) != Some(chunk) {
            let detail = "what the snapshot shows became a clone during the read";
            checked = Err(Status::new(Code::PendingVersion, detail));
        }
        if checked.is_err() {
            reached(Mark::ReadTooLate);
        }
        let damage = result.as_ref().err().filter(|status| status.code == Code::Corrupt).cloned();
        reply_read(call, checked.and(result).map(|()| ReadAnswer::Data), out);
        if let Some(status) = damage {
            self.on_unreadable(chunk, &status, out);
        }
    }

    fn standing(&self, chunk: ChunkId) -> Standing {
        Standing {
            committed: self.records.get(&chunk).map(|record| record.id),
            pending: self.pending(chunk),
        }
    }

    fn ask_head(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let Some(head) = self.chain.head().copied() else { return };
        let attempt = self.next_attempt();
        let Some(live) = self.live.get_mut(&chunk) else { return };
        let Some(pending) = &live.pending else { return };
        if live.query.is_some() || live.query_after > now.at {
            return;
        }
        live.query = Some(Query { attempt, about: pending.id, covers: attempt.0 });
        live.query_after = now.at + limits::QUERY_RETRY;
        out.push(Output::Query { to: head, attempt, chunk });
    }

    /// An update that is durable from here on should be settled soon. If it is not, the word of it
    /// was lost, or the update was dropped while this member was not looking.
    pub(super) fn ask_about_unsettled(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        if self.role == Role::Out || self.role.is_head() {
            return;
        }
        let Some(pending) = self.live.get(&chunk).and_then(|live| live.pending.as_ref()) else {
            return;
        };
        let is_due = now.at >= pending.since + limits::SETTLE_WAIT;
        if pending.persisted && !pending.resync && is_due {
            self.ask_head(now, chunk, out);
        }
    }

    pub(super) fn on_queried(
        &mut self,
        now: Now,
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<Standing, Status>,
        out: &mut Outputs<P>,
    ) {
        let Some(live) = self.live.get_mut(&chunk) else { return };
        let Some(query) = live.query.take_if(|query| query.attempt == attempt) else { return };
        match result {
            Ok(standing) => {
                live.query_after = now.at;
                self.on_standing(now, chunk, query, standing, out);
            }
            Err(status) => {
                if let Some(chain) = status.chain.as_deref() {
                    self.on_chain(now, chain.clone(), out);
                }
            }
        }
        self.progress(now, chunk, out);
    }

    fn on_standing(
        &mut self,
        now: Now,
        chunk: ChunkId,
        query: Query,
        standing: Standing,
        out: &mut Outputs<P>,
    ) {
        let pending = self.live.get(&chunk).and_then(|live| live.pending.as_ref());
        if let Some(pending) = pending.filter(|pending| pending.id == query.about) {
            match verdict(pending.id, pending.removes(), standing, self.role) {
                Some(committed) => {
                    reached(Mark::OutcomeFound);
                    self.settle(now, chunk, query.about, committed, out);
                }
                None => {
                    if let Some(pending) = self.pending_mut(chunk, query.about) {
                        // Not lost, only slow: ask again in a while.
                        pending.since = now.at;
                    }
                }
            }
        }
        let committed = self.records.get(&chunk).map(|record| record.id);
        if committed == standing.committed {
            self.answer_asks(chunk, query.covers, out);
        }
    }

    pub(super) fn give_up_asks(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let fenced = !now.lease;
        let status = Status::new(Code::PendingVersion, "the pending version is not settled");
        self.refuse_asks(chunk, &status, |ask| fenced || ask.deadline <= now.at, out);
    }

    /// The chunks of an inode. Lengths must count every acknowledged update, so while one of the
    /// chunks has an update that may or may not be committed, the caller is sent to the head or
    /// asked to come again.
    pub(super) fn on_list(
        &mut self,
        now: Now,
        call: CallId,
        range: RangeInclusive<ChunkId>,
        limit: u32,
        clones: bool,
        out: &mut Outputs<P>,
    ) {
        let result = self.may_read(now).and_then(|()| self.list(&range, limit, clones));
        out.push(Output::Reply { call, reply: Reply::List(result) });
    }

    fn list(
        &self,
        range: &RangeInclusive<ChunkId>,
        limit: u32,
        clones: bool,
    ) -> Result<Page<pb::ChunkInfo>, Status> {
        let (from, last) = (*range.start(), *range.end());
        if from > last {
            return Ok(Page { chunks: Vec::new(), end: true });
        }
        let limit = limit.clamp(1, limits::PAGE_CHUNKS) as usize;
        let info = |chunk: ChunkId, length, version, since| pb::ChunkInfo {
            chunk: Some(chunk.into()),
            length,
            version,
            since,
        };
        let records = self.records.range(from..=last);
        let records = records.filter(|(chunk, _)| clones || chunk.snapshot == 0).take(limit + 1);
        let info_of = |(&chunk, record): (&ChunkId, &Record)| {
            (chunk, info(chunk, record.length, record.id.version.0, record.since))
        };
        let mut chunks: BTreeMap<ChunkId, pb::ChunkInfo> = records.map(info_of).collect();
        // Chunks whose first version is pending: whoever collects the file must find them, and
        // whoever asks for its length need not count them yet.
        let is_coming = |live: &Live<P>| live.pending.as_ref().is_some_and(|p| !p.removes());
        for (&chunk, _) in self.live.range(from..=last).filter(|(_, live)| is_coming(live)) {
            chunks.entry(chunk).or_insert_with(|| info(chunk, 0, 0, 0));
        }
        let end = chunks.len() <= limit;
        let mut chunks: Vec<_> = chunks.into_iter().collect();
        chunks.truncate(limit);
        let through = chunks.last().filter(|_| !end).map_or(last, |&(chunk, _)| chunk);
        let is_open = self.live.range(from..=through).any(|(_, live)| {
            let pending = live.pending.as_ref();
            pending.is_some_and(|pending| !self.role.is_head() || pending.inherited)
        });
        if is_open {
            return Err(Status::new(Code::PendingVersion, "an update of the file is not settled"));
        }
        Ok(Page { chunks: chunks.into_iter().map(|(_, info)| info).collect(), end })
    }
}

/// What the head's standing says of a pending update: committed, dropped, or not yet decided.
fn verdict(id: UpdateId, removes: bool, standing: Standing, role: Role) -> Option<bool> {
    if standing.pending == Some(id) {
        return None;
    }
    match standing.committed {
        Some(committed) if committed == id => Some(true),
        // The head is past it. A serving member would hold what the head committed since, so this
        // can only be what a syncing one kept from an earlier life.
        Some(committed) if committed > id => (role == Role::Syncing).then_some(false),
        // The chunk is gone, which is what this update was to do.
        None if removes => Some(true),
        Some(_) | None => Some(false),
    }
}
