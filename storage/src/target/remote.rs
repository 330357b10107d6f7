//! Calls to other members of the chain.

use std::sync::Arc;

use ff2_fabric::{Call, Channel, SharedBuf, StorageClient};
use ff2_proto::{
    ChainId, ChainVersion, ChunkId, ChunkVersion, Code, NodeId, Status, TargetId, pb, status,
};
use ff2_storage_core::target::{Forward, Outcome, Page, PageRequest, Standing, UpdateId};

use super::convert::forward_to;
use crate::{limits, node::Node};

/// Speaks for one target.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    node: Arc<Node>,
    id: TargetId,
    chain: ChainId,
}

impl Remote {
    pub(super) fn new(node: Arc<Node>, id: TargetId, chain: ChainId) -> Self {
        Self { node, id, chain }
    }

    fn channel(&self, to: &pb::ChainMember) -> Result<Channel, Status> {
        let routing = self.node.routing.get();
        let address = routing.address(NodeId(to.node)).ok_or_else(|| {
            Status::new(Code::Unreachable, format!("node {} has no address", to.node))
        })?;
        Ok(self.node.peers.channel(address))
    }

    pub(super) async fn forward(
        &self,
        to: &pb::ChainMember,
        forward: Forward<SharedBuf>,
    ) -> Result<(), Status> {
        let (request, payload) = forward_to(self.chain.0, forward);
        let client = StorageClient::new(self.channel(to)?);
        let call =
            Call { bulk: payload.into_iter().collect(), ..Call::within(limits::FORWARD_TIMEOUT) };
        let (reply, _) = client.forward(&request, call).await?;
        status::check(reply.status)
    }

    pub(super) async fn settle(
        &self,
        to: &pb::ChainMember,
        chain_version: u64,
        outcomes: Vec<Outcome>,
    ) {
        let updates = outcomes
            .into_iter()
            .map(|outcome| pb::SettledUpdate {
                chunk: Some(outcome.chunk.into()),
                version: outcome.id.version.0,
                made_under: outcome.id.made_under.0,
                committed: outcome.committed,
            })
            .collect();
        let request = pb::SettleRequest {
            chain: self.chain.0,
            chain_version,
            from_target: self.id.0,
            to_target: to.target,
            updates,
        };
        let Ok(channel) = self.channel(to) else { return };
        let call = Call::within(limits::QUESTION_TIMEOUT);
        if let Err(status) = StorageClient::new(channel).settle(&request, call).await {
            tracing::debug!(target = self.id.0, %status, "outcomes did not arrive; they will be asked for");
        }
    }

    pub(super) async fn query(
        &self,
        to: &pb::ChainMember,
        chain_version: u64,
        chunk: ChunkId,
    ) -> Result<Standing, Status> {
        let request = pb::QueryVersionRequest {
            chain: self.chain.0,
            chain_version,
            target: to.target,
            chunk: Some(chunk.into()),
        };
        let client = StorageClient::new(self.channel(to)?);
        let call = Call::within(limits::QUESTION_TIMEOUT);
        let (reply, _) = client.query_version(&request, call).await?;
        status::check(reply.status.clone())?;
        let id = |made_under, version| {
            (version != 0).then_some(UpdateId {
                made_under: ChainVersion(made_under),
                version: ChunkVersion(version),
            })
        };
        Ok(Standing {
            committed: id(reply.committed_made_under, reply.committed_version),
            pending: id(reply.pending_made_under, reply.pending_version),
        })
    }

    pub(super) async fn sync_page(
        &self,
        to: &pb::ChainMember,
        page: PageRequest,
    ) -> Result<Page<pb::SyncChunk>, Status> {
        let request = pb::SyncPageRequest {
            chain: self.chain.0,
            chain_version: page.chain_version.0,
            target: to.target,
            after: page.after.map(Into::into),
            limit: page.limit,
            done_chunks: page.done_chunks,
            total_chunks: page.total_chunks,
        };
        let client = StorageClient::new(self.channel(to)?);
        let call = Call::within(limits::QUESTION_TIMEOUT);
        let (reply, _) = client.sync_page(&request, call).await?;
        status::check(reply.status)?;
        Ok(Page { chunks: reply.chunks, end: reply.end })
    }

    pub(super) async fn sync_done(
        &self,
        to: &pb::ChainMember,
        chain_version: u64,
    ) -> Result<(), Status> {
        let request = pb::SyncDoneRequest { chain: self.chain.0, chain_version, target: to.target };
        let client = StorageClient::new(self.channel(to)?);
        let call = Call::within(limits::QUESTION_TIMEOUT);
        let (reply, _) = client.sync_done(&request, call).await?;
        status::check(reply.status)
    }
}
