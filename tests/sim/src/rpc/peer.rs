//! Calls of a target to the targets of other nodes, through the generated stubs.

use std::sync::Arc;

use ff2_fabric::{Call, Peers, RoutingCache, SharedBuf, StorageClient};
use ff2_proto::{ChunkId, Code, NodeId, Status, pb, status::check};
use ff2_storage_core::target::{Attempt, Forward, Input, Outcome, Page, PageRequest, Standing};
use ff2_storaged::{limits, wire};

/// What is asked, of which target.
#[derive(Debug)]
pub(super) enum Question {
    Forward { attempt: Attempt, forward: Forward<SharedBuf>, copy: bool },
    Query { attempt: Attempt, target: u64, chunk: ChunkId },
    Page { attempt: Attempt, target: u64, request: PageRequest },
    SyncDone { attempt: Attempt, target: u64 },
}

/// The way to one node, on behalf of a target of one chain.
pub(super) struct Asker {
    client: Result<StorageClient, Status>,
    chain: u32,
    chain_version: u64,
}

impl Asker {
    pub(super) fn new(peers: &Peers, routing: &RoutingCache, node: u32, chain: &pb::Chain) -> Self {
        let routing = routing.get();
        let address = routing.address(NodeId(node));
        let client = address.map(|address| StorageClient::new(peers.channel(address)));
        let unknown = || Status::new(Code::Unreachable, "the address of the node is not known");
        Self { client: client.ok_or_else(unknown), chain: chain.id, chain_version: chain.version }
    }

    /// Asks once; what came of it is for the machine.
    pub(super) async fn ask(
        self,
        question: Question,
        routing: Arc<RoutingCache>,
    ) -> Input<SharedBuf> {
        match question {
            Question::Forward { attempt, forward, copy } => {
                let chunk = forward.chunk;
                let result = learned(&routing, self.forward(&forward).await);
                match copy {
                    true => Input::Copied { chunk, attempt, result },
                    false => Input::Forwarded { chunk, attempt, result },
                }
            }
            Question::Query { attempt, target, chunk } => {
                let result = learned(&routing, self.query(target, chunk).await);
                Input::Queried { chunk, attempt, result }
            }
            Question::Page { attempt, target, request } => {
                let result = learned(&routing, self.page(target, &request).await);
                Input::Paged { attempt, result }
            }
            Question::SyncDone { attempt, target } => {
                let result = learned(&routing, self.sync_done(target).await);
                Input::SyncEnded { attempt, result }
            }
        }
    }

    /// Tells the successor an outcome. If it is lost, the successor asks the head.
    pub(super) async fn settle(self, from: u64, to: u64, outcome: Outcome) -> Result<(), Status> {
        let request = pb::SettleRequest {
            chain: self.chain,
            chain_version: self.chain_version,
            from_target: from,
            to_target: to,
            updates: vec![wire::settled(&outcome)],
        };
        let (reply, _) = self.client()?.settle(&request, Call::within(limits::ASK_TIMEOUT)).await?;
        check(reply.status)
    }

    fn client(&self) -> Result<&StorageClient, Status> {
        self.client.as_ref().map_err(Clone::clone)
    }

    async fn forward(&self, forward: &Forward<SharedBuf>) -> Result<(), Status> {
        let (request, bulk) = wire::forward_request(self.chain, forward);
        let call = Call { timeout: limits::FORWARD_TIMEOUT, bulk, into: None };
        let (reply, _) = self.client()?.forward(&request, call).await?;
        check(reply.status)
    }

    async fn query(&self, target: u64, chunk: ChunkId) -> Result<Standing, Status> {
        let request = pb::QueryVersionRequest {
            chain: self.chain,
            chain_version: self.chain_version,
            target,
            chunk: Some(chunk.into()),
        };
        let call = Call::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.query_version(&request, call).await?;
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
        let call = Call::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.sync_page(&request, call).await?;
        check(reply.status)?;
        Ok(Page { chunks: reply.chunks, end: reply.end })
    }

    async fn sync_done(&self, target: u64) -> Result<(), Status> {
        let (chain, chain_version) = (self.chain, self.chain_version);
        let request = pb::SyncDoneRequest { chain, chain_version, target };
        let call = Call::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.sync_done(&request, call).await?;
        check(reply.status)
    }
}

/// A refusal that carries a newer chain teaches the whole process.
fn learned<T>(routing: &RoutingCache, result: Result<T, Status>) -> Result<T, Status> {
    if let Err(Status { chain: Some(chain), .. }) = &result {
        routing.apply_chain(chain);
    }
    result
}
