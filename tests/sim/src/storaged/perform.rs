//! What the outputs of a target's machine mean in disks and messages, and what came of those.

use std::time::Duration;

use ff2_proto::{ChunkId, Code, NodeId, Status, TargetId, pb};
use ff2_storage_core::target::{Attempt, Forward, FullCopy, Input, Output, Reply};

use super::{Asked, CALL_TIMEOUT, FORWARD_TIMEOUT, Storaged, Timer};
use crate::{
    disk::{Content, Found, Wait},
    message::{Answer, Call, ChunkCall, Message, RpcId},
    mutation::Mutation,
    net::Place,
    seen::Seen,
    world::{Context, Later},
};

fn is_damage(reply: &Reply) -> bool {
    matches!(reply, Reply::Read(Err(status)) if status.code == Code::Corrupt)
}

impl Storaged {
    pub(super) fn perform(
        &mut self,
        cx: &mut Context<'_>,
        id: TargetId,
        outputs: Vec<Output<Content>>,
    ) {
        for output in outputs {
            match output {
                Output::Store { chunk, op } => {
                    let disk = self.disks.get_mut(&id).expect("every target has a disk");
                    let wait = disk.take(chunk, op);
                    self.wait_for_store(cx, id, chunk, wait);
                }
                Output::Forward { to, attempt, forward } => {
                    self.forward(cx, id, &to, attempt, forward, false);
                }
                Output::ForwardFull { to, attempt, copy } => {
                    let found = self.disks[&id].pending(copy.chunk);
                    self.send_whole(cx, id, &to, attempt, copy, found);
                }
                Output::Copy { to, attempt, copy } => {
                    let found = self.disks[&id].committed(copy.chunk);
                    self.send_whole(cx, id, &to, attempt, copy, found);
                }
                Output::CopyRemoval { to, attempt, forward } => {
                    self.forward(cx, id, &to, attempt, forward, true);
                }
                Output::Settle { to, outcome } => {
                    let chain_version = self.chain_version(id);
                    let target = TargetId(to.target);
                    let message = Message::Settle { target, chain_version, from: id, outcome };
                    if let Some(place) = self.place_of(&to) {
                        cx.send(place, message);
                    }
                }
                Output::Query { to, attempt, chunk } => {
                    let chain_version = self.chain_version(id);
                    let call = ChunkCall::Query { chain_version, chunk };
                    self.ask_target(cx, &to, call, Asked::Query { target: id, chunk, attempt });
                }
                Output::Read { call, chunk } => {
                    let found = self.disks[&id].committed(chunk);
                    let found =
                        found.map(|found| found.map(|(_, content)| content).unwrap_or_default());
                    let timer =
                        Timer::Read { target: id, run: self.running().runs[&id], call, found };
                    let delay = cx.read_delay();
                    cx.after(delay, Later::Storaged(timer));
                }
                Output::SyncPage { to, attempt, request } => {
                    let call = ChunkCall::SyncPage(request);
                    self.ask_target(cx, &to, call, Asked::Page { target: id, attempt });
                }
                Output::SyncDone { to, attempt } => {
                    let chain_version = self.chain_version(id);
                    let call = ChunkCall::SyncDone { chain_version };
                    self.ask_target(cx, &to, call, Asked::Done { target: id, attempt });
                }
                Output::Reply { call, reply } => {
                    let running = self.running();
                    let content = running.found.remove(&call).unwrap_or_default();
                    match running.callers.remove(&call) {
                        Some((to, rpc)) => {
                            let answer = Answer::Chunk(reply, content);
                            cx.send(to, Message::Answer { rpc, answer });
                        }
                        // Of the scrub.
                        None if is_damage(&reply) => drop(cx.seen.insert(Seen::ScrubFound)),
                        None => {}
                    }
                }
                Output::Changed => self.running().heartbeat_at = cx.now,
            }
        }
    }

    fn place_of(&mut self, member: &pb::ChainMember) -> Option<Place> {
        self.running().routing.address(NodeId(member.node)).and_then(|a| a.parse().ok())
    }

    fn wait_for_store(
        &mut self,
        cx: &mut Context<'_>,
        target: TargetId,
        chunk: ChunkId,
        wait: Result<Wait, Status>,
    ) {
        *self.running().storing.entry(target).or_default() += 1;
        let stored = |sync, result| Timer::Stored { target, chunk, sync, result };
        let soon = Duration::from_micros(20);
        let (delay, timer) = match wait {
            Err(status) => (cx.read_delay(), stored(false, Err(status))),
            Ok(wait) if self.mutation == Some(Mutation::Sync) => {
                if wait == Wait::Blocks {
                    self.disks.get_mut(&target).expect("every target has a disk").written(chunk);
                }
                (soon, stored(false, Ok(())))
            }
            Ok(Wait::Blocks) => (cx.disk_delay(), Timer::Written { target, chunk }),
            Ok(Wait::Log) => (cx.disk_delay(), stored(true, Ok(()))),
            Ok(Wait::Nothing) => (soon, stored(false, Ok(()))),
        };
        cx.after(delay, Later::Storaged(timer));
    }

    /// Sends a version as the store has it, if it still has that one.
    fn send_whole(
        &mut self,
        cx: &mut Context<'_>,
        id: TargetId,
        to: &pb::ChainMember,
        attempt: Attempt,
        copy: FullCopy,
        found: Result<Found, Status>,
    ) {
        let (chunk, is_copy) = (copy.chunk, copy.resync);
        let moved_on = || Status::new(Code::Busy, "the store is at another version");
        let found = found
            .and_then(|found| found.filter(|(update, _)| *update == copy.id).ok_or_else(moved_on));
        match found {
            Ok((_, content)) => {
                let forward = copy.with_payload(content);
                self.forward(cx, id, to, attempt, forward, is_copy);
            }
            Err(status) => {
                let asked = Asked::Forward { target: id, chunk, attempt, copy: is_copy };
                self.conclude(cx, asked, Answer::Chunk(Reply::Update(Err(status)), Vec::new()));
            }
        }
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_>,
        id: TargetId,
        to: &pb::ChainMember,
        attempt: Attempt,
        forward: Forward<Content>,
        copy: bool,
    ) {
        let asked = Asked::Forward { target: id, chunk: forward.chunk, attempt, copy };
        self.ask_target(cx, to, ChunkCall::Forward(forward), asked);
    }

    fn ask_target(
        &mut self,
        cx: &mut Context<'_>,
        to: &pb::ChainMember,
        call: ChunkCall,
        asked: Asked,
    ) {
        let target = TargetId(to.target);
        let limit = match asked {
            Asked::Forward { .. } => FORWARD_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        match self.place_of(to) {
            Some(place) => self.ask(cx, place, Call::Chunk { target, call }, limit, asked),
            None => self.conclude(cx, asked, Answer::Silence),
        }
    }

    pub(crate) fn on_answer(&mut self, cx: &mut Context<'_>, rpc: RpcId, answer: Answer) {
        if let Some(asked) = self.running().asked.remove(&rpc) {
            self.conclude(cx, asked, answer);
        }
    }

    pub(super) fn conclude(&mut self, cx: &mut Context<'_>, asked: Asked, answer: Answer) {
        let silence = || Status::new(Code::Unreachable, "no answer");
        match asked {
            Asked::Join { sent } => self.on_joined(cx, sent, answer),
            Asked::Heartbeat { sent } => self.on_heartbeat(cx, sent, answer),
            Asked::Forward { target, chunk, attempt, copy } => {
                let result = match answer {
                    Answer::Chunk(Reply::Update(result), _) => result.map(drop),
                    _ => Err(silence()),
                };
                let input = match copy {
                    true => Input::Copied { chunk, attempt, result },
                    false => Input::Forwarded { chunk, attempt, result },
                };
                self.step(cx, target, input);
            }
            Asked::Query { target, chunk, attempt } => {
                let result = match answer {
                    Answer::Chunk(Reply::Query(result), _) => result,
                    Answer::Chunk(Reply::Update(Err(status)), _) => Err(status),
                    _ => Err(silence()),
                };
                self.step(cx, target, Input::Queried { chunk, attempt, result });
            }
            Asked::Page { target, attempt } => {
                let result = match answer {
                    Answer::Chunk(Reply::SyncPage(result), _) => result,
                    Answer::Chunk(Reply::Update(Err(status)), _) => Err(status),
                    _ => Err(silence()),
                };
                self.step(cx, target, Input::Paged { attempt, result });
            }
            Asked::Probe { node } => self.on_probed(cx, node, &answer),
            Asked::Done { target, attempt } => {
                let result = match answer {
                    Answer::Chunk(Reply::SyncDone(result), _) => result,
                    Answer::Chunk(Reply::Update(Err(status)), _) => Err(status),
                    _ => Err(silence()),
                };
                self.step(cx, target, Input::SyncEnded { attempt, result });
            }
        }
    }
}
