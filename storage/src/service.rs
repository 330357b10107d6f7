//! The data-plane service: takes calls apart, asks the target that they concern, and answers.
//!
//! Holds no state of its own beside the memory of genuine grants. A client's call is checked for its
//! grant; calls between targets are for daemons only.

mod read;

use std::sync::Arc;

use ff2_daemon::Operations;
use ff2_fabric::{
    Answer, Context, Storage,
    buf::{Buf, BufPool},
};
use ff2_proto::{ChainId, ChunkId, Code, InodeId, Status, TargetId, pb};
use ff2_storage_core::target::{Done, Input, Reply};

use crate::{
    grants::{Grants, Want},
    metrics::StorageMetrics,
    target_driver::{TargetHandle, no_such_target},
    targets::Targets,
    wire,
};

/// The service over the targets of this node.
#[derive(Debug)]
pub struct StorageService {
    targets: Arc<Targets>,
    grants: Grants,
    /// For what is read, and nothing else.
    read_pool: Arc<BufPool>,
    metrics: Arc<StorageMetrics>,
    operations: Operations,
}

impl StorageService {
    pub(crate) fn new(
        targets: Arc<Targets>,
        grants: Grants,
        read_pool: Arc<BufPool>,
        metrics: Arc<StorageMetrics>,
        operations: Operations,
    ) -> Self {
        Self { targets, grants, read_pool, metrics, operations }
    }

    /// The target of a chain on this node; with `target` it must be that one.
    fn target(&self, chain: u32, target: Option<u64>) -> Result<TargetHandle, Status> {
        let chain = ChainId(chain);
        let target = target.map(TargetId);
        let handle = self.targets.of_chain(chain);
        let handle = handle.filter(|handle| target.is_none_or(|target| target == handle.meta.id));
        handle.ok_or_else(|| no_such_target(chain, target))
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
        let bytes = bulk.len() as u64;
        let update = wire::update(&request, bulk)?;
        if update.chunk.snapshot != 0 {
            // Whoever makes clones go is told which are no snapshot's any more.
            cx.require_daemon()?;
            if !update.change.removes() {
                return Err(wire::invalid("nobody writes what a snapshot shows"));
            }
        }
        self.grants.check(&cx, &request.grant, update.chunk.inode, Want::Write)?;
        let target = self.target(request.chain, None)?;
        let detail = format!("{} of chain {}", update.chunk, request.chain);
        let operation = self.operations.begin("update", detail);
        operation.waits_for("the chain's members");
        let reply = target.call(cx.remaining(), move |call| Input::Update { call, update }).await;
        let done = operation.end(reply.and_then(done))?;
        self.metrics.wrote(bytes);
        Ok(update_reply(done).into())
    }

    async fn forward(
        &self,
        cx: Context,
        request: pb::ForwardRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        cx.require_daemon()?;
        let chain = request.update.as_ref().map_or(0, |update| update.chain);
        let target = self.target(chain, Some(request.to_target))?;
        let forward = wire::forward(request, bulk)?;
        let op = if forward.resync { "copy" } else { "forward" };
        let operation = self.operations.begin(op, format!("{} of chain {chain}", forward.chunk));
        let reply = target.call(cx.remaining(), move |call| Input::Forward { call, forward }).await;
        let done = operation.end(reply.and_then(done))?;
        Ok(update_reply(done).into())
    }

    async fn settle(
        &self,
        cx: Context,
        request: pb::SettleRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SettleReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.chain, Some(request.to_target))?;
        let detail = format!("chain {}", request.chain);
        let operation = self.operations.begin("settle", detail);
        let outcomes = wire::outcomes(&request)?;
        let (chain_version, from) = (request.chain_version.into(), request.from_target.into());
        operation.end(target.tell(Input::Settle { chain_version, from, outcomes }))?;
        Ok(pb::SettleReply::default().into())
    }

    async fn list_chunks(
        &self,
        cx: Context,
        request: pb::ListChunksRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ListChunksReply>, Status> {
        let inode = InodeId(request.inode);
        let clones = request.every_inode;
        let from_snapshot = if clones { request.from_snapshot } else { 0 };
        let from = ChunkId::new(inode, request.from_index).at(from_snapshot);
        let last = if request.every_inode {
            cx.require_daemon()?;
            ChunkId::new(InodeId(u64::MAX), u32::MAX).at(u32::MAX)
        } else {
            self.grants.check(&cx, &request.grant, inode, Want::Length)?;
            ChunkId::new(inode, u32::MAX)
        };
        let target = self.target(request.chain, None)?;
        let operation = self.operations.begin("list", format!("inode {inode}"));
        let limit = request.limit;
        let make = move |call| Input::List { call, from, last, limit, clones };
        let reply = target.call(cx.remaining(), make).await;
        let page = operation.end(reply.and_then(|reply| match reply {
            Reply::List(result) => result,
            other => Err(unexpected(&other)),
        }))?;
        Ok(pb::ListChunksReply { status: None, chunks: page.chunks, end: page.end }.into())
    }

    async fn query_version(
        &self,
        cx: Context,
        request: pb::QueryVersionRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::QueryVersionReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.chain, Some(request.target))?;
        let chunk = wire::chunk(request.chunk)?;
        let operation = self.operations.begin("query", chunk.to_string());
        let chain_version = request.chain_version.into();
        let make = move |call| Input::Query { call, chain_version, chunk };
        let reply = target.call(cx.remaining(), make).await;
        let standing = operation.end(reply.and_then(|reply| match reply {
            Reply::Query(result) => result,
            other => Err(unexpected(&other)),
        }))?;
        Ok(wire::query_reply(standing).into())
    }

    async fn sync_page(
        &self,
        cx: Context,
        request: pb::SyncPageRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncPageReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.chain, Some(request.target))?;
        let page = wire::page_request(&request);
        let make = move |call| Input::SyncPage { call, request: page };
        let operation = self.operations.begin("sync_page", format!("chain {}", request.chain));
        let reply = target.call(cx.remaining(), make).await;
        let page = operation.end(reply.and_then(|reply| match reply {
            Reply::SyncPage(result) => result,
            other => Err(unexpected(&other)),
        }))?;
        Ok(pb::SyncPageReply { status: None, chunks: page.chunks, end: page.end }.into())
    }

    async fn sync_done(
        &self,
        cx: Context,
        request: pb::SyncDoneRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncDoneReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.chain, Some(request.target))?;
        let chain_version = request.chain_version.into();
        let make = move |call| Input::SyncDone { call, chain_version };
        let operation = self.operations.begin("sync_done", format!("chain {}", request.chain));
        let reply = target.call(cx.remaining(), make).await;
        operation.end(reply.and_then(|reply| match reply {
            Reply::SyncDone(result) => result,
            other => Err(unexpected(&other)),
        }))?;
        Ok(pb::SyncDoneReply::default().into())
    }

    async fn space(
        &self,
        _cx: Context,
        _request: pb::SpaceRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SpaceReply>, Status> {
        let _operation = self.operations.begin("space", "");
        let (capacity_bytes, used_bytes) = self.targets.space();
        Ok(pb::SpaceReply { capacity_bytes, used_bytes }.into())
    }
}

fn done(reply: Reply) -> Result<Done, Status> {
    match reply {
        Reply::Update(result) => result,
        other => Err(unexpected(&other)),
    }
}

fn update_reply(done: Done) -> pb::UpdateReply {
    pb::UpdateReply {
        status: None,
        version: done.version.0,
        chunk_length: done.chunk_length,
        chunk_crc32c: 0,
    }
}

fn unexpected(reply: &Reply) -> Status {
    Status::new(Code::Internal, format!("the target answered something else: {reply:?}"))
}
