//! The data-plane service: checks who asks and what arrives, then asks the target.

mod read;

use std::sync::Arc;

use ff2_fabric::{Answer, Buf, Context, Peer, Storage};
use ff2_proto::{
    ChainId, ChainVersion, ChunkId, ChunkVersion, Code, InodeId, Status, TargetId, pb,
};
use ff2_storage_core::target::{Done, Outcome, PageRequest, Reply, UpdateId};

use crate::{
    limits,
    node::Node,
    target::{Question, TargetHandle, forward_from, update_from},
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct StorageService {
    pub(crate) node: Arc<Node>,
}

/// What a caller wants to do with an inode's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl StorageService {
    /// A client shows a grant for the inode; a daemon needs none.
    fn may(&self, peer: &Peer, grant: &[u8], inode: InodeId, access: Access) -> Result<(), Status> {
        if matches!(peer, Peer::Daemon) {
            return Ok(());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_s = now.map_or(u64::MAX, |since| since.as_secs());
        let grant = self.node.key.check_grant(grant, now_s)?;
        let allowed = match access {
            Access::Read => grant.read,
            Access::Write => grant.write,
        };
        if grant.inode == inode.0 && allowed {
            return Ok(());
        }
        let detail = format!("the grant does not allow to {access:?} inode {inode}");
        Err(Status::new(Code::Forbidden, detail))
    }

    fn target(&self, id: u64) -> Result<TargetHandle, Status> {
        self.node.target(TargetId(id)).ok_or_else(|| {
            Status::new(Code::NoSuchTarget, format!("target {id} is not on this node (now)"))
        })
    }

    fn target_of(&self, chain: u32) -> Result<TargetHandle, Status> {
        self.node.target_of(ChainId(chain)).ok_or_else(|| {
            let known = self.node.routing.get().chains.get(&ChainId(chain)).cloned();
            Status::stale_routing(known, format!("chain {chain} has no target on this node"))
        })
    }
}

fn unexpected(reply: &Reply) -> Status {
    Status::new(Code::Internal, format!("the target answered another question: {reply:?}"))
}

fn named(chunk: Option<pb::ChunkKey>) -> Result<ChunkId, Status> {
    chunk.map(Into::into).ok_or_else(|| Status::new(Code::InvalidArgument, "no chunk is named"))
}

fn done(reply: Reply) -> Result<Answer<pb::UpdateReply>, Status> {
    match reply {
        Reply::Update(result) => {
            let Done { version, chunk_length } = result?;
            Ok(pb::UpdateReply { version: version.0, chunk_length, ..Default::default() }.into())
        }
        other => Err(unexpected(&other)),
    }
}

impl Storage for StorageService {
    async fn read(
        &self,
        cx: Context,
        request: pb::ReadRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        self.read_parts(&cx, request).await
    }

    async fn update(
        &self,
        cx: Context,
        request: pb::UpdateRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        let chunk = named(request.chunk)?;
        self.may(&cx.peer, &request.grant, chunk.inode, Access::Write)?;
        if request.kind() == pb::UpdateKind::Replace {
            return Err(Status::new(Code::Forbidden, "only a predecessor replaces a chunk"));
        }
        let target = self.target_of(request.chain)?;
        self.node.traffic.wrote(bulk.len() as u64);
        let update = update_from(&request, bulk.freeze())?;
        done(target.ask(Question::Update(update)).await?)
    }

    async fn forward(
        &self,
        cx: Context,
        request: pb::ForwardRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.to_target)?;
        self.node.traffic.wrote(bulk.len() as u64);
        let forward = forward_from(request, bulk.freeze())?;
        done(target.ask(Question::Forward(Box::new(forward))).await?)
    }

    async fn settle(
        &self,
        cx: Context,
        request: pb::SettleRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SettleReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.to_target)?;
        let outcomes = request
            .updates
            .into_iter()
            .map(|update| {
                let id = UpdateId {
                    made_under: ChainVersion(update.made_under),
                    version: ChunkVersion(update.version),
                };
                Ok(Outcome { chunk: named(update.chunk)?, id, committed: update.committed })
            })
            .collect::<Result<Vec<_>, Status>>()?;
        let version = ChainVersion(request.chain_version);
        target.settle(version, TargetId(request.from_target), outcomes)?;
        Ok(pb::SettleReply::default().into())
    }

    async fn list_chunks(
        &self,
        cx: Context,
        request: pb::ListChunksRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ListChunksReply>, Status> {
        let inode = InodeId(request.inode);
        self.may(&cx.peer, &request.grant, inode, Access::Read)?;
        let target = self.target_of(request.chain)?;
        let limit = request.limit.clamp(1, limits::LIST_CHUNKS_MAX);
        let question = Question::List { inode, from_index: request.from_index, limit };
        match target.ask(question).await? {
            Reply::List(page) => {
                let page = page?;
                let reply =
                    pb::ListChunksReply { chunks: page.chunks, end: page.end, status: None };
                Ok(reply.into())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn query_version(
        &self,
        cx: Context,
        request: pb::QueryVersionRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::QueryVersionReply>, Status> {
        cx.require_daemon()?;
        let chunk = named(request.chunk)?;
        let chain_version = ChainVersion(request.chain_version);
        let target = self.target(request.target)?;
        match target.ask(Question::Query { chain_version, chunk }).await? {
            Reply::Query(standing) => {
                let standing = standing?;
                let version = |id: Option<UpdateId>| id.map_or(0, |id| id.version.0);
                let made_under = |id: Option<UpdateId>| id.map_or(0, |id| id.made_under.0);
                let reply = pb::QueryVersionReply {
                    status: None,
                    committed_version: version(standing.committed),
                    committed_made_under: made_under(standing.committed),
                    pending_version: version(standing.pending),
                    pending_made_under: made_under(standing.pending),
                };
                Ok(reply.into())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn sync_page(
        &self,
        cx: Context,
        request: pb::SyncPageRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncPageReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.target)?;
        let page = PageRequest {
            chain_version: ChainVersion(request.chain_version),
            after: request.after.map(Into::into),
            limit: request.limit,
            done_chunks: request.done_chunks,
            total_chunks: request.total_chunks,
        };
        match target.ask(Question::SyncPage(page)).await? {
            Reply::SyncPage(page) => {
                let page = page?;
                let reply = pb::SyncPageReply { chunks: page.chunks, end: page.end, status: None };
                Ok(reply.into())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn sync_done(
        &self,
        cx: Context,
        request: pb::SyncDoneRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncDoneReply>, Status> {
        cx.require_daemon()?;
        let chain_version = ChainVersion(request.chain_version);
        let target = self.target(request.target)?;
        match target.ask(Question::SyncDone { chain_version }).await? {
            Reply::SyncDone(result) => result.map(|()| pb::SyncDoneReply::default().into()),
            other => Err(unexpected(&other)),
        }
    }

    async fn space(
        &self,
        _cx: Context,
        _request: pb::SpaceRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SpaceReply>, Status> {
        let mut reply = pb::SpaceReply::default();
        for disk in &self.node.disks {
            let space = disk.engine.space();
            reply.capacity_bytes += space.capacity_bytes;
            reply.used_bytes += space.used_bytes;
        }
        Ok(reply.into())
    }
}
