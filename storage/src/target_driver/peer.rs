//! Calls to the targets of other nodes.

use ff2_fabric::{Call as Rpc, StorageClient, buf::SharedBuf};
use ff2_proto::{ChunkId, Code, NodeId, Status, pb, status::check};
use ff2_storage_core::target::{Attempt, Forward, FullCopy, Input, Page, PageRequest, Standing};

use super::{Done, Task, copy::read_whole};
use crate::{limits, wire};

/// What is asked of another node.
pub(super) enum Call {
    Forward { attempt: Attempt, forward: Forward<SharedBuf> },
    Full { attempt: Attempt, copy: FullCopy },
    Copy { attempt: Attempt, copy: FullCopy },
    Removal { attempt: Attempt, forward: Forward<SharedBuf> },
    Query { attempt: Attempt, target: u64, chunk: ChunkId },
    Page { attempt: Attempt, target: u64, request: PageRequest },
    SyncDone { attempt: Attempt, target: u64 },
}

/// What a call needs beside what it asks.
struct Caller {
    client: Result<StorageClient, Status>,
    chain: u32,
    chain_version: u64,
}

impl Task {
    pub(super) fn ask(&self, node: u32, call: Call) {
        let routing = self.shared.routing.get();
        let address = routing.address(NodeId(node));
        let client = address
            .map(|address| StorageClient::new(self.shared.peers.channel(address)))
            .ok_or_else(|| {
                Status::new(Code::Unreachable, format!("the address of node {node} is not known"))
            });
        let chain = self.meta.chain.0;
        let caller = Caller { client, chain, chain_version: self.machine.chain().version };
        let (engine, target) = (self.engine.clone(), self.meta.id);
        let (pool, done) = (self.shared.pool.clone(), self.done.clone());
        let (routing, metrics) = (self.shared.routing.clone(), self.shared.metrics.clone());
        let budget = self.shared.copies.clone();
        self.tasks.spawn(async move {
            let input = match call {
                Call::Forward { attempt, forward } => {
                    let chunk = forward.chunk;
                    let result = caller.forward(&forward).await;
                    Input::Forwarded { chunk, attempt, result }
                }
                Call::Full { attempt, copy } => {
                    let chunk = copy.chunk;
                    let whole = read_whole(&engine, target, &copy, &pool, &budget).await;
                    let result = match &whole {
                        Ok(whole) => caller.forward(&copy.with_payload(whole.bytes.clone())).await,
                        Err(status) => Err(status.clone()),
                    };
                    Input::Forwarded { chunk, attempt, result }
                }
                Call::Copy { attempt, copy } => {
                    let (chunk, length) = (copy.chunk, copy.length);
                    let whole = read_whole(&engine, target, &copy, &pool, &budget).await;
                    let result = match &whole {
                        Ok(whole) => caller.forward(&copy.with_payload(whole.bytes.clone())).await,
                        Err(status) => Err(status.clone()),
                    };
                    metrics.copied(length, result.is_ok());
                    Input::Copied { chunk, attempt, result }
                }
                Call::Removal { attempt, forward } => {
                    let chunk = forward.chunk;
                    let result = caller.forward(&forward).await;
                    Input::Copied { chunk, attempt, result }
                }
                Call::Query { attempt, target, chunk } => {
                    let result = caller.query(target, chunk).await;
                    Input::Queried { chunk, attempt, result }
                }
                Call::Page { attempt, target, request } => {
                    Input::Paged { attempt, result: caller.page(target, &request).await }
                }
                Call::SyncDone { attempt, target } => {
                    Input::SyncEnded { attempt, result: caller.sync_done(target).await }
                }
            };
            learn(&routing, &input);
            let _ = done.send(Done::Input(input)).await;
        });
    }
}

/// A refusal that carries a newer chain teaches the whole process.
fn learn(routing: &ff2_fabric::RoutingCache, input: &Input<SharedBuf>) {
    let failure = match input {
        Input::Forwarded { result: Err(status), .. }
        | Input::Copied { result: Err(status), .. }
        | Input::Queried { result: Err(status), .. }
        | Input::Paged { result: Err(status), .. }
        | Input::SyncEnded { result: Err(status), .. } => status,
        _ => return,
    };
    if let Some(chain) = &failure.chain {
        routing.apply_chain(chain);
    }
}

impl Caller {
    fn client(&self) -> Result<&StorageClient, Status> {
        self.client.as_ref().map_err(Clone::clone)
    }

    async fn forward(&self, forward: &Forward<SharedBuf>) -> Result<(), Status> {
        let (request, bulk) = wire::forward_request(self.chain, forward);
        let rpc = Rpc { timeout: limits::FORWARD_TIMEOUT, bulk, into: None };
        let (reply, _) = self.client()?.forward(&request, rpc).await?;
        check(reply.status)
    }

    async fn query(&self, target: u64, chunk: ChunkId) -> Result<Standing, Status> {
        let request = pb::QueryVersionRequest {
            chain: self.chain,
            chain_version: self.chain_version,
            target,
            chunk: Some(chunk.into()),
        };
        let rpc = Rpc::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.query_version(&request, rpc).await?;
        check(reply.status.clone())?;
        Ok(wire::standing(&reply))
    }

    async fn page(
        &self,
        target: u64,
        request: &PageRequest,
    ) -> Result<Page<pb::SyncChunk>, Status> {
        let request = pb::SyncPageRequest {
            chain: self.chain,
            chain_version: request.chain_version.0,
            target,
            after: request.after.map(Into::into),
            limit: request.limit,
            done_chunks: request.done_chunks,
            total_chunks: request.total_chunks,
        };
        let rpc = Rpc::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.sync_page(&request, rpc).await?;
        check(reply.status)?;
        Ok(Page { chunks: reply.chunks, end: reply.end })
    }

    async fn sync_done(&self, target: u64) -> Result<(), Status> {
        let request =
            pb::SyncDoneRequest { chain: self.chain, chain_version: self.chain_version, target };
        let rpc = Rpc::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.sync_done(&request, rpc).await?;
        check(reply.status)
    }
}
