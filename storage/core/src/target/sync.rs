//! The syncing side of a resync: shows what it has, and hears that nothing is missing.

use std::ops::Bound;

use ff2_proto::{
    ChainVersion, Code, Status,
    marks::{Mark, reached},
    pb,
};

use super::{
    Outputs, Target,
    event::{Output, PageRequest, Reply},
    live::Pending,
    types::{CallId, Page, Role},
};
use crate::limits;

impl<P: Clone> Target<P> {
    pub(super) fn on_sync_page(
        &mut self,
        call: CallId,
        request: &PageRequest,
        out: &mut Outputs<P>,
    ) {
        let mut result = self.check_syncing(request.chain_version).map(|()| self.page(request));
        if result.is_ok() && request.gives_way {
            // Behind those that wait, as whoever fails; it is told to sync again when its turn comes.
            reached(Mark::ResyncGivesWay);
            let detail = "the predecessor cannot read what this target lacks";
            self.fail(Status::new(Code::Corrupt, detail), out);
            result = Err(Status::new(Code::NotServing, detail));
        }
        if result.is_ok() {
            self.sync_done_chunks = self.sync_done_chunks.max(request.done_chunks);
            self.sync_total_chunks = request.total_chunks;
        }
        out.push(Output::Reply { call, reply: Reply::SyncPage(result) });
    }

    fn check_syncing(&self, chain_version: ChainVersion) -> Result<(), Status> {
        if let Some(status) = &self.failed {
            return Err(Status::new(Code::NotServing, format!("the target failed: {status}")));
        }
        if self.role != Role::Syncing || chain_version != self.version() {
            return Err(self.stale("this target does not sync under that chain version"));
        }
        Ok(())
    }

    fn page(&self, request: &PageRequest) -> Page<pb::SyncChunk> {
        let limit = request.limit.clamp(1, limits::PAGE_CHUNKS) as usize;
        let after = request.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut records = self.records.range((after, Bound::Unbounded));
        let chunks = records
            .by_ref()
            .take(limit)
            .map(|(&chunk, record)| pb::SyncChunk {
                chunk: Some(chunk.into()),
                committed_version: self.shown(chunk).map_or(0, |id| id.version.0),
                pending_version: self.pending(chunk).map_or(0, |id| id.version.0),
                length: record.length,
                chain_version: record.id.made_under.0,
            })
            .collect();
        Page { chunks, end: records.next().is_none() }
    }

    /// The predecessor's pass is clean. Updates left from an earlier chain version are settled by a
    /// question to the head before this target calls itself complete, so that, should it be the last
    /// of its chain one day, it commits nothing that the chain had dropped.
    pub(super) fn on_sync_done(
        &mut self,
        call: CallId,
        chain_version: ChainVersion,
        out: &mut Outputs<P>,
    ) {
        let mut result = self.check_syncing(chain_version);
        let is_old = |pending: &Pending<P>| pending.id.made_under < chain_version;
        let is_open = self
            .live
            .values()
            .any(|live| live.pending.as_ref().is_some_and(is_old) || live.store.is_aborting());
        if result.is_ok() && is_open {
            reached(Mark::SyncNotSettled);
            result = Err(Status::new(Code::Busy, "updates from before the sync are not settled"));
        }
        if result.is_ok() {
            self.set_complete(chain_version);
            out.push(Output::Changed);
        }
        out.push(Output::Reply { call, reply: Reply::SyncDone(result) });
    }
}
