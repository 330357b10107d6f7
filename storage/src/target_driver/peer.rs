//! Calls to the targets of other nodes.

use ff2_proto::ChunkId;
use ff2_storage_core::target::{Attempt, Forward, FullCopy, Input, PageRequest};

use super::{Done, Task, copy::read_whole};
use crate::{
    neighbour::{self, Neighbour},
    payload::Payload,
};

/// What is asked of another node.
pub(super) enum Call {
    Forward { attempt: Attempt, forward: Forward<Payload> },
    Full { attempt: Attempt, copy: FullCopy },
    Copy { attempt: Attempt, copy: FullCopy },
    Removal { attempt: Attempt, forward: Forward<Payload> },
    Query { attempt: Attempt, target: u64, chunk: ChunkId },
    Page { attempt: Attempt, target: u64, request: PageRequest },
    SyncDone { attempt: Attempt, target: u64 },
}

impl Task {
    pub(super) fn ask(&self, node: u32, call: Call) {
        let (peers, routing) = (&self.shared.peers, &self.shared.routing);
        let chain_version = self.machine.chain().version;
        let neighbour = Neighbour::new(peers, routing, node, self.meta.chain.0, chain_version);
        let (engine, target) = (self.engine.clone(), self.meta.id);
        let (pool, done) = (self.shared.pool.clone(), self.done.clone());
        let (routing, metrics) = (self.shared.routing.clone(), self.shared.metrics.clone());
        let budget = self.shared.copies.clone();
        self.tasks.spawn(async move {
            let input = match call {
                Call::Forward { attempt, forward } => {
                    let chunk = forward.chunk;
                    let result = neighbour.forward(&forward).await;
                    Input::Forwarded { chunk, attempt, result }
                }
                Call::Full { attempt, copy } => {
                    let chunk = copy.chunk;
                    let whole = read_whole(&engine, target, &copy, &pool, &budget).await;
                    let result = match &whole {
                        Ok(whole) => {
                            neighbour.forward(&copy.with_payload(whole.bytes.clone().into())).await
                        }
                        Err(status) => Err(status.clone()),
                    };
                    Input::Forwarded { chunk, attempt, result }
                }
                Call::Copy { attempt, copy } => {
                    let (chunk, length) = (copy.chunk, copy.length);
                    let whole = read_whole(&engine, target, &copy, &pool, &budget).await;
                    let result = match &whole {
                        Ok(whole) => {
                            neighbour.forward(&copy.with_payload(whole.bytes.clone().into())).await
                        }
                        Err(status) => Err(status.clone()),
                    };
                    metrics.copied(length, result.is_ok());
                    Input::Copied { chunk, attempt, result }
                }
                Call::Removal { attempt, forward } => {
                    let chunk = forward.chunk;
                    let result = neighbour.forward(&forward).await;
                    Input::Copied { chunk, attempt, result }
                }
                Call::Query { attempt, target, chunk } => {
                    let result = neighbour.query(target, chunk).await;
                    Input::Queried { chunk, attempt, result }
                }
                Call::Page { attempt, target, request } => {
                    Input::Paged { attempt, result: neighbour.page(target, &request).await }
                }
                Call::SyncDone { attempt, target } => {
                    Input::SyncEnded { attempt, result: neighbour.sync_done(target).await }
                }
            };
            learn(&routing, &input);
            let _ = done.send(Done::Input(input)).await;
        });
    }
}

/// A refusal that carries a newer chain teaches the whole process.
fn learn(routing: &ff2_fabric::RoutingCache, input: &Input<Payload>) {
    let failure = match input {
        Input::Forwarded { result: Err(status), .. }
        | Input::Copied { result: Err(status), .. }
        | Input::Queried { result: Err(status), .. }
        | Input::Paged { result: Err(status), .. }
        | Input::SyncEnded { result: Err(status), .. } => status,
        _ => return,
    };
    neighbour::learn(routing, failure);
}
