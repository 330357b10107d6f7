//! What a target asks of the targets of its chain on other nodes. The driver of real disks and the simulator
//! both ask through here.

use ff2_fabric::{Call, Peers, RoutingCache, StorageClient};
use ff2_proto::{ChunkId, Code, NodeId, Status, pb, status::check};
use ff2_storage_core::target::{Forward, Page, PageRequest, Standing};

use crate::{limits, payload::Payload, wire};

/// The way to one node, on behalf of a target of one chain. Each call fails with what the node says, or with
/// UNREACHABLE, TIMEOUT or UNKNOWN_OUTCOME.
#[derive(Debug)]
pub struct Neighbour {
    client: Result<StorageClient, Status>,
    chain: u32,
    chain_version: u64,
}

impl Neighbour {
    pub fn new(
        peers: &Peers,
        routing: &RoutingCache,
        node: u32,
        chain: u32,
        chain_version: u64,
    ) -> Self {
        let routing = routing.get();
        let address = routing.address(NodeId(node));
        let client = address.map(|address| StorageClient::new(peers.channel(address)));
        let unknown =
            || Status::new(Code::Unreachable, format!("the address of node {node} is not known"));
        Self { client: client.ok_or_else(unknown), chain, chain_version }
    }

    fn client(&self) -> Result<&StorageClient, Status> {
        self.client.as_ref().map_err(Clone::clone)
    }

    /// Sends an update on; answers when it is durable there and on all behind.
    pub async fn forward(&self, forward: &Forward<Payload>) -> Result<(), Status> {
        let (request, bulk) = wire::forward_request(self.chain, forward);
        let call = Call { timeout: limits::FORWARD_TIMEOUT, bulk, into: None };
        let (reply, _) = self.client()?.forward(&request, call).await?;
        check(reply.status)
    }

    /// Asks what the head knows of a chunk.
    pub async fn query(&self, target: u64, chunk: ChunkId) -> Result<Standing, Status> {
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

    /// Asks a syncing target for a page of what it has.
    pub async fn page(
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
            gives_way: request.gives_way,
        };
        let call = Call::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.sync_page(&request, call).await?;
        check(reply.status)?;
        Ok(Page { chunks: reply.chunks, end: reply.end })
    }

    /// Tells a syncing target that it has everything.
    pub async fn sync_done(&self, target: u64) -> Result<(), Status> {
        let request =
            pb::SyncDoneRequest { chain: self.chain, chain_version: self.chain_version, target };
        let call = Call::within(limits::ASK_TIMEOUT);
        let (reply, _) = self.client()?.sync_done(&request, call).await?;
        check(reply.status)
    }

    /// Tells the successor what became of updates. If that is lost, the successor asks the head.
    pub async fn settle(
        &self,
        from: u64,
        to: u64,
        updates: Vec<pb::SettledUpdate>,
    ) -> Result<(), Status> {
        let request = pb::SettleRequest {
            chain: self.chain,
            chain_version: self.chain_version,
            from_target: from,
            to_target: to,
            updates,
        };
        let (reply, _) = self.client()?.settle(&request, Call::within(limits::ASK_TIMEOUT)).await?;
        check(reply.status)
    }
}

/// A refusal that carries a newer chain teaches the whole process.
pub fn learn(routing: &RoutingCache, failure: &Status) {
    if let Some(chain) = &failure.chain {
        routing.apply_chain(chain);
    }
}
