//! What each output of the machine means in disks and calls.

use ff2_fabric::buf::Buf;
use ff2_proto::{ChunkId, Code};
use ff2_storage_core::target::{
    CallId, Change, Input, Keeping, Output, Outputs, StoreOp, UpdateId,
};

use super::{Done, ReadBytes, ReadState, Task, peer::Call, settle::Settled};
use crate::{
    engine::{Pending, PendingKind, Which},
    payload::Payload,
};

impl Task {
    pub(super) fn perform(&mut self, out: Outputs<Payload>) {
        for output in out {
            match output {
                Output::Store { chunk, op } => self.store(chunk, op),
                Output::Read { call, chunk } => self.read_disk(call, chunk),
                Output::Reply { call, reply } => self.reply(call, reply),
                Output::Changed => {
                    self.publish();
                    (self.shared.changed)();
                }
                Output::Settle { to, outcome } => {
                    let chain_version = self.machine.chain().version;
                    // A full queue loses it: the successor asks after a while.
                    let _ = self.outcomes.try_send(Settled { to, chain_version, outcome });
                }
                Output::Forward { to, attempt, forward } => {
                    self.ask(to.node, Call::Forward { attempt, forward });
                }
                Output::ForwardFull { to, attempt, copy } => {
                    self.ask(to.node, Call::Full { attempt, copy });
                }
                Output::Copy { to, attempt, copy } => {
                    self.ask(to.node, Call::Copy { attempt, copy });
                }
                Output::CopyRemoval { to, attempt, forward } => {
                    self.ask(to.node, Call::Removal { attempt, forward });
                }
                Output::Query { to, attempt, chunk } => {
                    let target = to.target;
                    self.ask(to.node, Call::Query { attempt, target, chunk });
                }
                Output::SyncPage { to, attempt, request } => {
                    let target = to.target;
                    self.ask(to.node, Call::Page { attempt, target, request });
                }
                Output::SyncDone { to, attempt } => {
                    self.ask(to.node, Call::SyncDone { attempt, target: to.target });
                }
            }
        }
    }

    fn store(&self, chunk: ChunkId, op: StoreOp<Payload>) {
        let (engine, target, done) = (self.engine.clone(), self.meta.id, self.done.clone());
        let metrics = self.shared.metrics.clone();
        self.tasks.spawn(async move {
            let timer = metrics.store_timer(&op);
            let result = match op {
                StoreOp::Prepare { id, change, chunk_size, tags, keeping } => {
                    let pending = pending(id, change, chunk_size, tags.to_entries(), keeping);
                    engine.prepare(target, chunk, pending).await.map(|_| ())
                }
                StoreOp::Commit { id } => {
                    engine.commit(target, chunk, id.version, id.made_under).await
                }
                StoreOp::Abort { .. } => engine.abort(target, chunk).await,
            };
            drop(timer);
            // The task is gone: so is everything that waited for it.
            let _ = done.send(Done::Input(Input::Stored { chunk, result })).await;
        });
    }

    fn read_disk(&mut self, call: CallId, chunk: ChunkId) {
        let reading = self.reads.get_mut(&call).expect("the machine reads for a call");
        let ReadState::Waits(read) = std::mem::replace(&mut reading.state, ReadState::OnDisk)
        else {
            unreachable!("a call reads once")
        };
        // Of a snapshot's read, what it shows: the chunk, or a clone.
        reading.chunk = chunk;
        let (engine, target, done) = (self.engine.clone(), self.meta.id, self.done.clone());
        self.tasks.spawn(async move {
            let (offset, length) = (read.offset, read.length);
            let found = engine
                .read(target, chunk, Which::Committed, offset, length, read.check, read.buf)
                .await;
            let result = match found {
                Ok((buf, readout)) => Ok(ReadBytes { buf, readout: Some(readout) }),
                // Removed since the machine looked: its bytes are zeros now.
                Err(status) if status.code == Code::NotFound => {
                    let buf = Buf::empty();
                    Ok(ReadBytes { buf, readout: None })
                }
                Err(status) => Err(status),
            };
            let _ = done.send(Done::Read { call, result }).await;
        });
    }
}

fn pending(
    id: UpdateId,
    change: Change<Payload>,
    chunk_size: u32,
    tags: Vec<ff2_proto::pb::AppliedTag>,
    keeping: Keeping,
) -> Pending {
    let (kind, offset, length, payload) = match change {
        Change::Write { offset, payload, .. } => (PendingKind::Write, offset, 0, payload),
        Change::Truncate { length } => (PendingKind::Truncate, 0, length, Payload::default()),
        Change::Remove => (PendingKind::Remove, 0, 0, Payload::default()),
        Change::Replace { length, payload } => (PendingKind::Replace, 0, length, payload),
    };
    Pending {
        version: id.version,
        chain_version: id.made_under,
        kind,
        offset,
        payload,
        chunk_size,
        tags,
        length,
        keeping,
    }
}
