//! The task that owns a target's machine.

use std::{collections::BTreeMap, sync::Arc};

use ff2_fabric::SharedBuf;
use ff2_proto::{Code, Status};
use ff2_storage_core::target::{CallId, Input, Output, ReadAnswer, Reply, Target};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Found, Mail, Question, ReadJob, Shared, perform::Performer};
use crate::{
    engine::{Engine, Readout},
    limits,
    node::Node,
};

#[derive(Debug)]
pub(super) struct Task {
    node: Arc<Node>,
    machine: Target<SharedBuf>,
    shared: Arc<Shared>,
    performer: Performer,
    last_call: u64,
    callers: BTreeMap<CallId, oneshot::Sender<Reply>>,
    reads: BTreeMap<CallId, Reading>,
}

/// A read between its call and its answer.
#[derive(Debug)]
struct Reading {
    job: ReadJob,
    found: Option<Readout>,
}

impl Task {
    pub(super) fn new(
        node: Arc<Node>,
        engine: Engine,
        machine: Target<SharedBuf>,
        shared: Arc<Shared>,
    ) -> Self {
        let performer = Performer::new(node.clone(), engine, &shared);
        Self {
            node,
            machine,
            shared,
            performer,
            last_call: 0,
            callers: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Mail>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(limits::TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut mails = Vec::with_capacity(limits::MAILS_AT_ONCE);
        let mut outputs = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                count = inbox.recv_many(&mut mails, limits::MAILS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    for mail in mails.drain(..) {
                        self.take(mail, &mut outputs);
                    }
                }
                _ = ticks.tick() => self.machine.tick(self.node.now(), &mut outputs),
            }
            // Reports first: a heartbeat that an output asks for must tell the newest state.
            *self.shared.report.lock() = self.machine.report();
            for output in outputs.drain(..) {
                self.perform(output);
            }
            self.performer.flush();
        }
    }

    fn take(&mut self, mail: Mail, out: &mut Vec<Output<SharedBuf>>) {
        let now = self.node.now();
        match mail {
            Mail::Chain(chain) => self.machine.step(now, Input::Chain(chain), out),
            Mail::Input(input) => self.machine.step(now, input, out),
            Mail::Ask { question, answer } => {
                let call = self.next_call();
                self.callers.insert(call, answer);
                self.machine.step(now, input(call, question), out);
            }
            Mail::Read(job) => {
                let (call, chunk) = (self.next_call(), job.chunk);
                self.reads.insert(call, Reading { job, found: None });
                self.machine.step(now, Input::Read { call, chunk }, out);
            }
            Mail::ReadDone { call, result } => {
                let Some(reading) = self.reads.get_mut(&call) else { return };
                let result = result.map(|(buffer, readout)| {
                    reading.job.buffer = buffer;
                    reading.found = Some(readout);
                });
                self.machine.step(now, Input::ReadDone { call, result }, out);
            }
            Mail::Explain(answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.machine.explain());
            }
        }
    }

    fn next_call(&mut self) -> CallId {
        self.last_call += 1;
        CallId(self.last_call)
    }

    fn perform(&mut self, output: Output<SharedBuf>) {
        match output {
            Output::Reply { call, reply: Reply::Read(answer) } => self.answer_read(call, answer),
            Output::Reply { call, reply } => {
                if let Some(caller) = self.callers.remove(&call) {
                    // A caller that no longer waits asks again with the same tag.
                    let _ = caller.send(reply);
                }
            }
            Output::Read { call, chunk } => {
                let Some(reading) = self.reads.get_mut(&call) else { return };
                let buffer = std::mem::take(&mut reading.job.buffer);
                let (offset, length) = (reading.job.offset, reading.job.length);
                self.performer.read(call, chunk, offset, length, buffer);
            }
            Output::Changed => self.node.heartbeat_now(),
            other => {
                let version = self.machine.chain().version;
                self.performer.perform(version, other);
            }
        }
    }

    fn answer_read(&mut self, call: CallId, answer: Result<ReadAnswer, Status>) {
        let Some(Reading { mut job, found }) = self.reads.remove(&call) else { return };
        let result = match (answer, found) {
            (Ok(ReadAnswer::Absent), _) => {
                job.buffer.set_len(job.length as usize);
                job.buffer.fill(0);
                Ok(Found { bytes: job.buffer.freeze(), readout: None })
            }
            (Ok(ReadAnswer::Data), Some(readout)) => {
                Ok(Found { bytes: job.buffer.freeze(), readout: Some(readout) })
            }
            (Ok(ReadAnswer::Data), None) => {
                Err(Status::new(Code::Internal, "a read was answered before the disk read it"))
            }
            (Err(status), _) => Err(status),
        };
        // The client may have gone elsewhere.
        let _ = job.answer.send(result);
    }
}

fn input(call: CallId, question: Question) -> Input<SharedBuf> {
    match question {
        Question::Update(update) => Input::Update { call, update },
        Question::Forward(forward) => Input::Forward { call, forward: *forward },
        Question::Query { chain_version, chunk } => Input::Query { call, chain_version, chunk },
        Question::List { inode, from_index, limit } => {
            Input::List { call, inode, from_index, limit }
        }
        Question::SyncPage(request) => Input::SyncPage { call, request },
        Question::SyncDone { chain_version } => Input::SyncDone { call, chain_version },
    }
}
