//! The services of a simulated storage node: chunks, which its targets answer for, and plain calls,
//! which do nothing but be counted.

use std::{collections::BTreeMap, sync::Arc};

use ff2_fabric::{Answer, Buf, BufPool, Context, Namespace, SharedBuf, Storage};
use ff2_proto::{ChainId, ChunkId, Code, InodeId, Status, TargetId, pb};
use ff2_storage_core::{
    format::crc32c,
    target::{Done, Input, ReadAnswer, Reply},
};
use ff2_storaged::wire;
use tokio::time::{Duration, sleep, timeout};

use super::{cells, chronicle::Chronicle, driver::Handle, ledger::Ledger};

/// [`pb::NsRequest::volume`] of a plain call that is to fail.
pub(super) const FAILS: u32 = 1;

#[derive(Debug)]
pub(super) struct Service {
    pub(super) targets: Arc<BTreeMap<ChainId, Handle>>,
    pub(super) read_pool: Arc<BufPool>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) chronicle: Arc<Chronicle>,
}

impl Service {
    fn target(&self, chain: u32, target: Option<u64>) -> Result<&Handle, Status> {
        let handle = self.targets.get(&ChainId(chain));
        let handle = handle.filter(|handle| target.is_none_or(|t| TargetId(t) == handle.id));
        handle.ok_or_else(|| Status::new(Code::NoSuchTarget, "not on this node"))
    }

    async fn read_part(
        &self,
        cx: &Context,
        part: &pb::ReadPart,
    ) -> Result<(pb::ReadPartReply, SharedBuf), Status> {
        let target = self.target(part.chain, Some(part.target))?;
        let chunk = wire::chunk(part.chunk)?;
        let buf = timeout(cx.remaining(), self.read_pool.get(part.length as usize)).await;
        let mut buf = buf.map_err(|_| Status::new(Code::Busy, "no buffers in time"))?;
        let (reply, found) =
            target.call(cx.remaining(), move |call| Input::Read { call, chunk }).await?;
        let found = match reply {
            Reply::Read(Ok(ReadAnswer::Absent)) => None,
            Reply::Read(Ok(ReadAnswer::Data)) => found,
            Reply::Read(Err(status)) => return Err(status),
            other => return Err(unexpected(&other)),
        };
        let content = found.as_ref().map(|(_, cells)| cells::to_bytes(cells)).unwrap_or_default();
        let bytes = content.get(part.offset as usize..).unwrap_or_default();
        let length = bytes.len().min(buf.len());
        buf.fill(0);
        buf[..length].copy_from_slice(&bytes[..length]);
        let bytes = buf.freeze();
        let answer = pb::ReadPartReply {
            status: None,
            version: found.map_or(0, |(id, _)| id.version.0),
            chunk_length: content.len() as u32,
            length: length as u32,
            crc32c: crc32c(&bytes),
        };
        Ok((answer, bytes))
    }
}

impl Storage for Service {
    async fn read(
        &self,
        cx: Context,
        request: pb::ReadRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        let mut reply = pb::ReadReply::default();
        let mut bulk = Vec::new();
        for part in &request.parts {
            match self.read_part(&cx, part).await {
                Ok((answer, bytes)) => {
                    reply.parts.push(answer);
                    bulk.push(bytes);
                }
                Err(status) => {
                    let status = Some(status.into());
                    reply.parts.push(pb::ReadPartReply { status, ..Default::default() });
                }
            }
        }
        Ok(Answer::with_bulk(reply, bulk))
    }

    async fn update(
        &self,
        cx: Context,
        request: pb::UpdateRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        let update = wire::update(&request, bulk)?;
        let target = self.target(request.chain, None)?;
        let reply = target.call(cx.remaining(), move |call| Input::Update { call, update }).await;
        Ok(update_reply(done(reply?.0)?).into())
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
        let reply = target.call(cx.remaining(), move |call| Input::Forward { call, forward }).await;
        Ok(update_reply(done(reply?.0)?).into())
    }

    async fn settle(
        &self,
        cx: Context,
        request: pb::SettleRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SettleReply>, Status> {
        cx.require_daemon()?;
        let target = self.target(request.chain, Some(request.to_target))?;
        let outcomes = wire::outcomes(&request)?;
        let (chain_version, from) = (request.chain_version.into(), request.from_target.into());
        target.tell(Input::Settle { chain_version, from, outcomes })?;
        Ok(pb::SettleReply::default().into())
    }

    async fn list_chunks(
        &self,
        cx: Context,
        request: pb::ListChunksRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ListChunksReply>, Status> {
        let target = self.target(request.chain, None)?;
        let inode = InodeId(request.inode);
        let from = ChunkId::new(inode, request.from_index);
        let (last, limit) = (ChunkId::new(inode, u32::MAX), request.limit);
        let make = move |call| Input::List { call, from, last, limit, clones: false };
        match target.call(cx.remaining(), make).await?.0 {
            Reply::List(page) => {
                let page = page?;
                Ok(pb::ListChunksReply { status: None, chunks: page.chunks, end: page.end }.into())
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
        let target = self.target(request.chain, Some(request.target))?;
        let chunk = wire::chunk(request.chunk)?;
        let chain_version = request.chain_version.into();
        let make = move |call| Input::Query { call, chain_version, chunk };
        match target.call(cx.remaining(), make).await?.0 {
            Reply::Query(standing) => Ok(wire::query_reply(standing?).into()),
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
        let target = self.target(request.chain, Some(request.target))?;
        let page = wire::page_request(&request);
        let make = move |call| Input::SyncPage { call, request: page };
        match target.call(cx.remaining(), make).await?.0 {
            Reply::SyncPage(page) => {
                let page = page?;
                Ok(pb::SyncPageReply { status: None, chunks: page.chunks, end: page.end }.into())
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
        let target = self.target(request.chain, Some(request.target))?;
        let chain_version = request.chain_version.into();
        let make = move |call| Input::SyncDone { call, chain_version };
        match target.call(cx.remaining(), make).await?.0 {
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
        Ok(pb::SpaceReply { capacity_bytes: 1 << 30, used_bytes: 0 }.into())
    }
}

/// A plain call: `seq` is its number, every byte of its payload is the number's lowest, it takes
/// `session` milliseconds, and its answer has `ack_below` bytes of the same value.
impl Namespace for Service {
    async fn execute(
        &self,
        _cx: Context,
        request: pb::NsRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        self.ledger.executed(request.seq);
        let value = request.seq as u8;
        if bulk.iter().any(|&byte| byte != value) {
            self.chronicle.problem(format!("call {:#x} came with other bytes", request.seq));
        }
        sleep(Duration::from_millis(request.session)).await;
        if request.volume == FAILS {
            return Err(Status::new(Code::NotFound, "as it was asked to"));
        }
        let bytes = vec![value; request.ack_below as usize];
        let reply = pb::NsReply { session: request.seq, ..Default::default() };
        Ok(Answer::with_bulk(reply, vec![SharedBuf::from(bytes)]))
    }
}

fn done(reply: Reply) -> Result<Done, Status> {
    match reply {
        Reply::Update(result) => result,
        other => Err(unexpected(&other)),
    }
}

fn update_reply(done: Done) -> pb::UpdateReply {
    let Done { version, chunk_length } = done;
    pb::UpdateReply { status: None, version: version.0, chunk_length, chunk_crc32c: 0 }
}

fn unexpected(reply: &Reply) -> Status {
    Status::new(Code::Internal, format!("the target answered something else: {reply:?}"))
}
