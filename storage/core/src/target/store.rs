//! One store operation at a time for each chunk, in the order of the decisions.
//!
//! The store is told of a commit before it is told of the next update of that chunk, so that what
//! it finds after a crash is a prefix of what the machine decided.

use ff2_proto::{ChunkId, Code, Status};

use super::{
    Now, Outputs, Target,
    event::{Output, StoreOp},
    live::Busy,
    types::{Role, UpdateId},
};

impl<P: Clone> Target<P> {
    /// Hands the next operation of a chunk to the store.
    pub(super) fn pump(&mut self, chunk: ChunkId, out: &mut Outputs<P>) {
        if self.failed.is_some() {
            return;
        }
        if let Some(op) = self.live.get_mut(&chunk).and_then(|live| live.store.next()) {
            out.push(Output::Store { chunk, op });
        }
    }

    pub(super) fn on_stored(
        &mut self,
        now: Now,
        chunk: ChunkId,
        result: Result<(), Status>,
        out: &mut Outputs<P>,
    ) {
        let busy = self.live.get_mut(&chunk).and_then(|live| live.store.finish());
        let busy = busy.expect("the store answers what it was asked, once");
        match (busy, result) {
            (Busy::Prepare(id), Ok(())) => {
                if let Some(pending) = self.prepared_mut(chunk, id) {
                    pending.persisted = true;
                    pending.since = now.at;
                }
            }
            (Busy::Prepare(id), Err(status)) => self.on_prepare_failed(chunk, id, status, out),
            (Busy::Commit(_) | Busy::Abort(_), Ok(())) => {}
            // Decided, and durable as a pending version: it can wait for space. Until then this
            // chunk's reads wait, and those of all others are served.
            (Busy::Commit(id), Err(status)) if status.code == Code::NoSpace => {
                self.retry_store(chunk, StoreOp::Commit { id });
            }
            (Busy::Abort(id), Err(status)) if status.code == Code::NoSpace => {
                self.retry_store(chunk, StoreOp::Abort { id });
            }
            (Busy::Commit(id) | Busy::Abort(id), Err(status)) => {
                let detail = format!("{chunk}, {id:?}: the store could not settle it: {status}");
                self.fail(Status::new(Code::DiskFailed, detail), out);
            }
        }
        self.retry_hop(now, chunk, out);
        self.progress(now, chunk, out);
    }

    fn on_prepare_failed(
        &mut self,
        chunk: ChunkId,
        id: UpdateId,
        status: Status,
        out: &mut Outputs<P>,
    ) {
        let is_refusal =
            matches!(status.code, Code::NoSpace | Code::FileTooBig | Code::InvalidArgument);
        let is_pending = self.prepared_mut(chunk, id).is_some();
        let was_taken_as_committed = self.records.get(&chunk).is_some_and(|r| r.id == id);
        if status.code == Code::Corrupt && !was_taken_as_committed {
            if is_pending {
                self.on_unreadable_base(chunk, id, status, out);
            }
        } else if !is_refusal || was_taken_as_committed {
            let detail = format!("{chunk}, {id:?}: the store could not take it: {status}");
            self.fail(Status::new(Code::DiskFailed, detail), out);
        } else if is_pending && self.role == Role::Syncing {
            // A syncing member that has no room will never be complete. It leaves the chain rather
            // than make the chain refuse writes that its serving members have room for.
            self.fail(status, out);
        } else if is_pending {
            self.refuse(chunk, status, out);
        }
    }

    fn retry_store(&mut self, chunk: ChunkId, op: StoreOp<P>) {
        if self.failed.is_none() {
            self.live.entry(chunk).or_default().store.retry(op);
        }
    }

    /// Queues an operation behind those of the same chunk.
    pub(super) fn push_store(&mut self, chunk: ChunkId, op: StoreOp<P>) {
        self.live.entry(chunk).or_default().store.push(op);
    }

    /// The pending update that a finished prepare was for. An update that was dropped while its
    /// prepare ran, and taken again, has its own prepare queued behind the abort of the first.
    fn prepared_mut(
        &mut self,
        chunk: ChunkId,
        id: UpdateId,
    ) -> Option<&mut super::live::Pending<P>> {
        let is_past = self.live.get(&chunk)?.store.has_queued(id);
        self.pending_mut(chunk, id).filter(|_| !is_past)
    }

    pub(super) fn pending_mut(
        &mut self,
        chunk: ChunkId,
        id: UpdateId,
    ) -> Option<&mut super::live::Pending<P>> {
        let pending = self.live.get_mut(&chunk)?.pending.as_mut()?;
        (pending.id == id).then_some(pending)
    }
}
