//! One target: its CRAQ machine, the task that owns it, and the handle that others reach it by.
//!
//! The task is a loop: take what waits in the mailbox, step the machine for each, perform the
//! outputs. Disk and network work runs beside it and comes back as mail, so the machine is never
//! locked and never waits.

mod convert;
mod load;
mod perform;
mod remote;
mod task;

use std::sync::Arc;

pub(crate) use convert::{forward_from, update_from};
use ff2_fabric::{Buf, SharedBuf};
use ff2_proto::{ChainId, ChainVersion, ChunkId, Code, Status, TargetId, pb};
use ff2_storage_core::target::{
    Forward, Input, Outcome, PageRequest, Reply, Report, Target, Update,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, Readout, TargetMeta},
    limits,
    node::Node,
};

/// Mail for a target's task.
#[derive(Debug)]
enum Mail {
    Chain(pb::Chain),
    Ask {
        question: Question,
        answer: oneshot::Sender<Reply>,
    },
    Read(ReadJob),
    /// What an output came to.
    Input(Input<SharedBuf>),
    /// The disk read of a call ended.
    ReadDone {
        call: ff2_storage_core::target::CallId,
        result: Result<(Buf, Readout), Status>,
    },
    Explain(oneshot::Sender<Vec<String>>),
}

/// A call that is answered by the machine alone.
#[derive(Debug)]
pub(crate) enum Question {
    Update(Update<SharedBuf>),
    Forward(Box<Forward<SharedBuf>>),
    Query { chain_version: ChainVersion, chunk: ChunkId },
    List { inode: ff2_proto::InodeId, from_index: u32, limit: u32 },
    SyncPage(PageRequest),
    SyncDone { chain_version: ChainVersion },
}

/// A read of part of a chunk into a buffer.
#[derive(Debug)]
struct ReadJob {
    chunk: ChunkId,
    offset: u32,
    length: u32,
    buffer: Buf,
    answer: oneshot::Sender<Result<Found, Status>>,
}

/// What a read found: all its bytes, zeros where there are none.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) bytes: SharedBuf,
    /// `None`: there is no such chunk.
    pub(crate) readout: Option<Readout>,
}

/// Reaches a target's task; clones reach the same.
#[derive(Clone, Debug)]
pub(crate) struct TargetHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: TargetId,
    chain: ChainId,
    generation: u64,
    mailbox: mpsc::Sender<Mail>,
    report: Mutex<Report>,
}

impl TargetHandle {
    /// Loads what the store holds and starts the task.
    pub(crate) async fn start(
        node: Arc<Node>,
        engine: Engine,
        meta: TargetMeta,
        serve_after: ChainVersion,
        stop: &CancellationToken,
    ) -> Result<Self, Status> {
        let loaded = engine.load(meta.id).await?.into_iter().map(load::loaded);
        let mut machine = Target::new(meta.id, meta.chain, serve_after, loaded);
        let rate = Input::SyncRate { bytes_per_s: node.resync_bytes_per_s };
        machine.step(node.now(), rate, &mut Vec::new());
        let (mailbox, inbox) = mpsc::channel(limits::MAILBOX);
        let shared = Arc::new(Shared {
            id: meta.id,
            chain: meta.chain,
            generation: meta.generation,
            mailbox,
            report: Mutex::new(machine.report()),
        });
        let task = task::Task::new(node, engine, machine, shared.clone());
        tokio::spawn(task.run(inbox, stop.clone()));
        Ok(Self { shared })
    }

    pub(crate) fn id(&self) -> TargetId {
        self.shared.id
    }

    pub(crate) fn chain(&self) -> ChainId {
        self.shared.chain
    }

    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation
    }

    pub(crate) fn report(&self) -> Report {
        self.shared.report.lock().clone()
    }

    /// Tells the target its chain. False: the task has ended.
    pub(crate) async fn follow(&self, chain: pb::Chain) -> bool {
        self.shared.mailbox.send(Mail::Chain(chain)).await.is_ok()
    }

    pub(crate) async fn ask(&self, question: Question) -> Result<Reply, Status> {
        let (answer, answered) = oneshot::channel();
        self.post(Mail::Ask { question, answer })?;
        answered.await.map_err(|_| stopping())
    }

    pub(crate) async fn read(
        &self,
        chunk: ChunkId,
        offset: u32,
        length: u32,
        buffer: Buf,
    ) -> Result<Found, Status> {
        let (answer, answered) = oneshot::channel();
        self.post(Mail::Read(ReadJob { chunk, offset, length, buffer, answer }))?;
        answered.await.map_err(|_| stopping())?
    }

    /// Outcomes from the predecessor; the machine asks again for those that get lost.
    pub(crate) fn settle(
        &self,
        chain_version: ChainVersion,
        from: TargetId,
        outcomes: Vec<Outcome>,
    ) -> Result<(), Status> {
        self.post(Mail::Input(Input::Settle { chain_version, from, outcomes }))
    }

    /// Why something waits, for people.
    pub(crate) async fn explain(&self) -> Vec<String> {
        let (answer, answered) = oneshot::channel();
        match self.shared.mailbox.send(Mail::Explain(answer)).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => vec!["the target's task has ended".into()],
        }
    }

    fn post(&self, mail: Mail) -> Result<(), Status> {
        self.shared.mailbox.try_send(mail).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Status::new(Code::Busy, format!("too many calls wait for target {}", self.id()))
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })
    }
}

fn stopping() -> Status {
    Status::new(Code::ShuttingDown, "this storage node is stopping")
}
