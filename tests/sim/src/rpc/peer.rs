//! Calls of a target to the targets of other nodes, as storaged makes them.

use std::sync::Arc;

use ff2_fabric::RoutingCache;
use ff2_proto::{ChunkId, Status};
use ff2_storage_core::target::{Attempt, Forward, Input, PageRequest};
use ff2_storaged::neighbour::{Neighbour, learn};
use ff2_storaged::payload::Payload;

/// What is asked, of which target.
#[derive(Debug)]
pub(super) enum Question {
    Forward { attempt: Attempt, forward: Forward<Payload>, copy: bool },
    Query { attempt: Attempt, target: u64, chunk: ChunkId },
    Page { attempt: Attempt, target: u64, request: PageRequest },
    SyncDone { attempt: Attempt, target: u64 },
}

/// Asks once; what came of it is for the machine.
pub(super) async fn ask(
    neighbour: Neighbour,
    question: Question,
    routing: Arc<RoutingCache>,
) -> Input<Payload> {
    match question {
        Question::Forward { attempt, forward, copy } => {
            let chunk = forward.chunk;
            let result = learned(&routing, neighbour.forward(&forward).await);
            match copy {
                true => Input::Copied { chunk, attempt, result },
                false => Input::Forwarded { chunk, attempt, result },
            }
        }
        Question::Query { attempt, target, chunk } => {
            let result = learned(&routing, neighbour.query(target, chunk).await);
            Input::Queried { chunk, attempt, result }
        }
        Question::Page { attempt, target, request } => {
            let result = learned(&routing, neighbour.page(target, &request).await);
            Input::Paged { attempt, result }
        }
        Question::SyncDone { attempt, target } => {
            let result = learned(&routing, neighbour.sync_done(target).await);
            Input::SyncEnded { attempt, result }
        }
    }
}

/// As [`learn`], on the way.
fn learned<T>(routing: &RoutingCache, result: Result<T, Status>) -> Result<T, Status> {
    result.inspect_err(|failure| learn(routing, failure))
}
