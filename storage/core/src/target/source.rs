//! The sending side of a resync: performs what the planner ([`crate::resync`]) decides.

use ff2_proto::{
    ChunkId, Code, Status, limits as shared,
    marks::{Mark, reached},
    pb,
};

use super::{
    Now, Outputs, Target,
    event::{Output, PageRequest},
    hop::with_change,
    live::{Hop, Pending},
    types::{Attempt, Change, FullCopy, Keeping, Page, UpdateId},
};
use crate::{
    resync::{Own, Resync, Step},
    tags::Tags,
};

impl<P: Clone> Target<P> {
    /// Lets the planner go on, if there is one.
    pub(super) fn run_source(&mut self, now: Now, out: &mut Outputs<P>) {
        self.with_source(out, |source, own, steps| source.plan(now.at, own, steps));
    }

    /// Shows the planner what this target has, then performs what it decided.
    fn with_source(
        &mut self,
        out: &mut Outputs<P>,
        decide: impl FnOnce(&mut Resync, Own<'_>, &mut Vec<Step>),
    ) {
        let Some(mut source) = self.source.take() else { return };
        let mut steps = Vec::new();
        let live = &self.live;
        let pending = |chunk: ChunkId| live.get(&chunk).and_then(|live| live.pending.as_ref());
        // A clone that a pending update will make is as good as on its way: the successor's may be the one
        // intact copy of it.
        let is_pending = |chunk: ChunkId| {
            let keeps = |p: &Pending<P>| p.keeps && chunk == chunk.now().at(p.keeping.keep);
            pending(chunk).is_some() || pending(chunk.now()).is_some_and(keeps)
        };
        // An earlier head may have committed an update that is still on its way to the successor.
        let is_settled = live
            .values()
            .filter_map(|live| live.pending.as_ref())
            .all(|pending| !pending.inherited || pending.hop == Hop::Done);
        let waits = |member: &pb::ChainMember| member.state() == pb::PublicState::Waiting;
        let others_wait = self.chain.members.iter().any(waits);
        let own =
            Own { records: &mut self.records, is_pending: &is_pending, is_settled, others_wait };
        decide(&mut source, own, &mut steps);
        for step in steps {
            self.perform(&mut source, step, out);
        }
        self.source = Some(source);
    }

    fn perform(&mut self, source: &mut Resync, step: Step, out: &mut Outputs<P>) {
        let attempt = self.next_attempt();
        let to = source.successor();
        match step {
            Step::FetchPage { after, limit, gives_way } => {
                source.fetching(attempt);
                let (done_chunks, total_chunks) = source.progress();
                let chain_version = self.version();
                let request = PageRequest {
                    chain_version,
                    after,
                    limit,
                    done_chunks,
                    total_chunks,
                    gives_way,
                };
                out.push(Output::SyncPage { to, attempt, request });
            }
            Step::Copy { chunk, observed } => {
                let record = self.records.get(&chunk).expect("the planner names own chunks");
                source.sending(chunk, attempt, Some(record.id));
                let copy = FullCopy {
                    length: record.length,
                    chunk_size: record.chunk_size,
                    tags: record.tags.clone(),
                    keeping: Keeping { since: record.since, keep: self.kept_as(chunk, observed) },
                    ..self.copy_head(to, chunk, record.id, observed)
                };
                reached(Mark::CopySent);
                out.push(Output::Copy { to, attempt, copy });
            }
            Step::Remove { chunk, observed } => {
                source.sending(chunk, attempt, None);
                // A name that nothing else bears: the version after the one that goes, made under
                // the same chain version. It leaves no tombstone.
                let version = (observed.version.0 + 1).into();
                let id = UpdateId { made_under: observed.made_under, version };
                let keep = self.kept_as(chunk, Some(observed));
                let keeping = Keeping { since: 0, keep };
                let head = FullCopy { keeping, ..self.copy_head(to, chunk, id, Some(observed)) };
                let forward = with_change(head, Change::Remove);
                reached(Mark::CopyRemoves);
                out.push(Output::CopyRemoval { to, attempt, forward });
            }
            Step::Finish => {
                source.finishing(attempt);
                out.push(Output::SyncDone { to, attempt });
            }
        }
    }

    /// The clone that the successor's version is, so that it keeps what it has: nothing need be sent for it, and it
    /// may be the one intact copy. 0: none.
    fn kept_as(&self, chunk: ChunkId, observed: Option<UpdateId>) -> u32 {
        let mut clones = self.records.range(chunk.now().at(1)..=chunk.at(u32::MAX));
        let same = clones.find(|(_, record)| chunk.snapshot == 0 && Some(record.id) == observed);
        same.map_or(0, |(clone, _)| clone.snapshot)
    }

    fn copy_head(
        &self,
        to: pb::ChainMember,
        chunk: ChunkId,
        id: UpdateId,
        base: Option<UpdateId>,
    ) -> FullCopy {
        FullCopy {
            chain_version: self.version(),
            from: self.id,
            to: to.target.into(),
            chunk,
            id,
            base,
            length: 0,
            chunk_size: shared::CHUNK_SIZE_MIN,
            tag: None,
            tags: Tags::default(),
            keeping: Keeping::default(),
            resync: true,
        }
    }

    pub(super) fn on_paged(
        &mut self,
        now: Now,
        attempt: Attempt,
        result: Result<Page<pb::SyncChunk>, Status>,
        out: &mut Outputs<P>,
    ) {
        if self.source.is_some() {
            // When it was asked is not kept: silence counts from the first page that was not answered.
            self.note_answer(now, now.at, &result);
        }
        self.with_source(out, |source, own, steps| {
            source.paged(now.at, attempt, result, own, steps);
        });
        self.run_source(now, out);
    }

    pub(super) fn on_copied(
        &mut self,
        now: Now,
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<(), Status>,
        out: &mut Outputs<P>,
    ) {
        if let Some(source) = &mut self.source {
            source.copied(now.at, chunk, attempt, &result, &mut self.records);
        }
        // It is this side that reads: another member that serves will send the copy.
        if let Err(status) = result
            && status.code == Code::Corrupt
        {
            reached(Mark::SourceDamaged);
            self.on_unreadable(chunk, &status, out);
        }
        self.run_source(now, out);
    }

    pub(super) fn on_sync_ended(
        &mut self,
        now: Now,
        attempt: Attempt,
        result: Result<(), Status>,
        out: &mut Outputs<P>,
    ) {
        if let Some(source) = &mut self.source {
            source.ended(now.at, attempt, &result);
        }
        self.run_source(now, out);
    }

    pub(super) fn set_sync_rate(&mut self, bytes_per_s: u64) {
        self.sync_bytes_per_s = bytes_per_s;
        if let Some(source) = &mut self.source {
            source.set_rate(bytes_per_s);
        }
    }
}
