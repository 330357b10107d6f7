//! Does what the machine says: at the engine, or at another node. Each piece of work runs in a task of
//! its own and comes back as mail. The machine bounds how much there can be.

use std::{collections::BTreeMap, sync::Arc};

use ff2_fabric::{Buf, SharedBuf};
use ff2_proto::{ChunkId, Code, Status, TargetId, pb};
use ff2_storage_core::target::{
    Attempt, CallId, Change, Forward, FullCopy, Input, Outcome, Output, StoreOp,
};
use tokio::sync::mpsc;

use super::{Mail, Shared, remote::Remote};
use crate::{
    engine::{Engine, Pending, PendingKind, Which},
    limits,
    node::Node,
};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Performer {
    node: Arc<Node>,
    engine: Engine,
    id: TargetId,
    /// Weak: work in progress does not keep a target alive.
    mailbox: mpsc::WeakSender<Mail>,
    remote: Remote,
    /// Outcomes of one round, for each successor.
    settles: BTreeMap<u64, (pb::ChainMember, u64, Vec<Outcome>)>,
}

impl Performer {
    pub(super) fn new(node: Arc<Node>, engine: Engine, shared: &Shared) -> Self {
        let remote = Remote::new(node.clone(), shared.id, shared.chain);
        Self {
            node,
            engine,
            id: shared.id,
            mailbox: shared.mailbox.downgrade(),
            remote,
            settles: BTreeMap::new(),
        }
    }

    pub(super) fn perform(&mut self, chain_version: u64, output: Output<SharedBuf>) {
        match output {
            Output::Store { chunk, op } => self.store(chunk, op),
            Output::Forward { to, attempt, forward } => {
                self.forward(to, attempt, forward, Origin::Live);
            }
            Output::CopyRemoval { to, attempt, forward } => {
                self.forward(to, attempt, forward, Origin::Resync);
            }
            Output::ForwardFull { to, attempt, copy } => {
                self.copy(to, attempt, copy, Which::Pending, Origin::Live);
            }
            Output::Copy { to, attempt, copy } => {
                self.copy(to, attempt, copy, Which::Committed, Origin::Resync);
            }
            Output::Settle { to, outcome } => {
                let entry = self.settles.entry(to.target);
                entry.or_insert_with(|| (to, chain_version, Vec::new())).2.push(outcome);
            }
            Output::Query { to, attempt, chunk } => {
                let remote = self.remote.clone();
                self.run(async move {
                    let result = remote.query(&to, chain_version, chunk).await;
                    Input::Queried { chunk, attempt, result }
                });
            }
            Output::SyncPage { to, attempt, request } => {
                let remote = self.remote.clone();
                self.run(async move {
                    Input::Paged { attempt, result: remote.sync_page(&to, request).await }
                });
            }
            Output::SyncDone { to, attempt } => {
                let remote = self.remote.clone();
                self.run(async move {
                    Input::SyncEnded { attempt, result: remote.sync_done(&to, chain_version).await }
                });
            }
            Output::Read { .. } | Output::Reply { .. } | Output::Changed => {
                unreachable!("the task itself performs these")
            }
        }
    }

    /// Sends the outcomes that gathered: one message for each successor and round.
    pub(super) fn flush(&mut self) {
        for (_, (to, chain_version, outcomes)) in std::mem::take(&mut self.settles) {
            let remote = self.remote.clone();
            // If it gets lost, the successor asks.
            tokio::spawn(async move { remote.settle(&to, chain_version, outcomes).await });
        }
    }

    /// Reads for a client; the buffer comes back with the mail.
    pub(super) fn read(&self, call: CallId, chunk: ChunkId, offset: u32, length: u32, buffer: Buf) {
        let (engine, id, mailbox) = (self.engine.clone(), self.id, self.mailbox.clone());
        tokio::spawn(async move {
            let result = engine.read(id, chunk, Which::Committed, offset, length, buffer).await;
            post(&mailbox, Mail::ReadDone { call, result }).await;
        });
    }

    fn run(&self, work: impl Future<Output = Input<SharedBuf>> + Send + 'static) {
        let mailbox = self.mailbox.clone();
        tokio::spawn(async move {
            let input = work.await;
            post(&mailbox, Mail::Input(input)).await;
        });
    }

    fn store(&self, chunk: ChunkId, op: StoreOp<SharedBuf>) {
        let (engine, id) = (self.engine.clone(), self.id);
        self.run(async move {
            let result = match op {
                StoreOp::Prepare { id: update, change, chunk_size, tags } => {
                    let (kind, offset, length, payload) = take_apart(change);
                    let pending = Pending {
                        version: update.version,
                        chain_version: update.made_under,
                        kind,
                        offset,
                        payload,
                        chunk_size,
                        tags: tags.to_entries(),
                        length,
                    };
                    engine.prepare(id, chunk, pending).await.map(drop)
                }
                StoreOp::Commit { id: update } => {
                    engine.commit(id, chunk, update.version, update.made_under).await
                }
                StoreOp::Abort { .. } => engine.abort(id, chunk).await,
            };
            Input::Stored { chunk, result }
        });
    }

    fn forward(
        &self,
        to: pb::ChainMember,
        attempt: Attempt,
        forward: Forward<SharedBuf>,
        origin: Origin,
    ) {
        let (remote, chunk) = (self.remote.clone(), forward.chunk);
        self.run(async move {
            let result = remote.forward(&to, forward).await;
            origin.input(chunk, attempt, result)
        });
    }

    /// Reads a whole version from the store and sends it.
    fn copy(
        &self,
        to: pb::ChainMember,
        attempt: Attempt,
        copy: FullCopy,
        which: Which,
        origin: Origin,
    ) {
        let (remote, engine, node, id) =
            (self.remote.clone(), self.engine.clone(), self.node.clone(), self.id);
        self.run(async move {
            let chunk = copy.chunk;
            let result = match read_whole(&engine, &node, id, &copy, which).await {
                Ok(payload) => remote.forward(&to, copy.with_payload(payload)).await,
                Err(status) => Err(status),
            };
            origin.input(chunk, attempt, result)
        });
    }
}

/// Why a full copy or a forward is sent.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Live,
    Resync,
}

impl Origin {
    fn input(
        self,
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<(), Status>,
    ) -> Input<SharedBuf> {
        match self {
            Self::Live => Input::Forwarded { chunk, attempt, result },
            Self::Resync => Input::Copied { chunk, attempt, result },
        }
    }
}

async fn read_whole(
    engine: &Engine,
    node: &Node,
    id: TargetId,
    copy: &FullCopy,
    which: Which,
) -> Result<SharedBuf, Status> {
    if copy.length == 0 {
        return Ok(SharedBuf::empty());
    }
    let buffer = tokio::time::timeout(limits::BUFFER_WAIT, node.copies.get(copy.length as usize));
    let buffer = buffer.await.map_err(|_| Status::new(Code::Busy, "no buffer for a full copy"))?;
    let (buffer, readout) = engine.read(id, copy.chunk, which, 0, copy.length, buffer).await?;
    if (readout.chain_version, readout.version) != (copy.id.made_under, copy.id.version) {
        return Err(Status::new(Code::Busy, "the chunk changed before it was copied"));
    }
    Ok(buffer.freeze())
}

fn take_apart(change: Change<SharedBuf>) -> (PendingKind, u32, u32, SharedBuf) {
    match change {
        Change::Write { offset, payload, .. } => (PendingKind::Write, offset, 0, payload),
        Change::Truncate { length } => (PendingKind::Truncate, 0, length, SharedBuf::empty()),
        Change::Remove => (PendingKind::Remove, 0, 0, SharedBuf::empty()),
        Change::Replace { length, payload } => (PendingKind::Replace, 0, length, payload),
    }
}

async fn post(mailbox: &mpsc::WeakSender<Mail>, mail: Mail) {
    if let Some(mailbox) = mailbox.upgrade() {
        // The task has ended: the process is stopping.
        let _ = mailbox.send(mail).await;
    }
}
