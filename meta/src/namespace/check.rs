//! The check that each chunk has a file, which an administrator asks for.
//!
//! Chunks are listed before the namespace is asked whose they are, and a file is there before its first
//! chunk: so a chunk whose file is not there then is nobody's. A collector removes the chunks of a file
//! before the file; what it removed between the two looks is not there any more at a third.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ff2_fabric::{SharedBuf, chain::ChunkUpdate};
use ff2_meta_core::{
    KvRead,
    namespace::{self, Chunks as Known},
};
use ff2_proto::{ChainId, ChunkId, Code, Status, limits as wire, pb};
use pb::UpdateKind;

use super::NamespaceGroup;
use crate::limits;

/// One page, with all that it takes.
const PAGE: Duration = Duration::from_secs(8);

impl NamespaceGroup {
    /// A page of a chain's chunks.
    pub(crate) async fn check_chunks(
        &self,
        request: &pb::CheckChunksRequest,
    ) -> Result<pb::CheckChunksReply, Status> {
        let deadline = Instant::now() + PAGE;
        let chain = ChainId(request.chain);
        if !self.chunks.routing.get().chains.contains_key(&chain) {
            return Err(Status::new(Code::NotFound, format!("there is no chain {chain}")));
        }
        let from = request.from.map_or(ChunkId::default(), ChunkId::from);
        let client = &self.chunks.client;
        let page = client.list_chain(chain, from, limits::CHUNK_PAGE, deadline).await?;
        let mut listed: Vec<(ChunkId, u32)> = Vec::with_capacity(page.chunks.len());
        let mut since = BTreeMap::new();
        for info in &page.chunks {
            let unnamed = || Status::new(Code::Corrupt, "a chunk without a name");
            let chunk = ChunkId::from(info.chunk.ok_or_else(unnamed)?);
            listed.push((chunk, info.length));
            since.insert(chunk, info.since);
        }
        let (known, snapshots) = self.known(&listed).await?;
        let mut strays = Vec::new();
        for &(chunk, length) in &listed {
            let orphaned = match known[&chunk.inode.0] {
                // A clone is its snapshots', whatever became of the file.
                _ if chunk.snapshot != 0 => {
                    if namespace::is_kept(&snapshots, since[&chunk], chunk.snapshot) {
                        continue;
                    }
                    true
                }
                Known::Nobodys => true,
                Known::Below(end) if u64::from(chunk.index) >= end && length > 0 => false,
                Known::Below(_) | Known::Unsettled => continue,
            };
            if orphaned && !self.is_there(chain, chunk, deadline).await? {
                continue;
            }
            let removed = orphaned && request.repair;
            if removed {
                self.remove_stray(chain, chunk, deadline).await?;
                tracing::warn!(%chain, %chunk, length, "a chunk of no file is removed");
            }
            strays.push(pb::StrayChunk { chunk: Some(chunk.into()), length, orphaned, removed });
        }
        let last = listed.last().filter(|_| !page.end);
        let next = last.and_then(|(chunk, _)| behind(*chunk)).map(Into::into);
        Ok(pb::CheckChunksReply { chunks: listed.len() as u64, strays, next })
    }

    /// What the namespace says of each inode, as of now.
    async fn known(
        &self,
        listed: &[(ChunkId, u32)],
    ) -> Result<(BTreeMap<u64, Known>, Vec<pb::SnapshotRecord>), Status> {
        let ids: BTreeSet<u64> = listed.iter().map(|(chunk, _)| chunk.inode.0).collect();
        let look = |kv: &dyn KvRead| {
            let one = |&id: &u64| Ok((id, namespace::chunks_of(kv, id)?));
            let known = ids.iter().map(one).collect::<Result<BTreeMap<_, _>, Status>>()?;
            Ok((known, namespace::snapshots(kv)?))
        };
        self.group.query(look).await?
    }

    async fn is_there(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        deadline: Instant,
    ) -> Result<bool, Status> {
        let page = self.chunks.client.list_chain(chain, chunk, 1, deadline).await?;
        Ok(page.chunks.first().and_then(|info| info.chunk) == Some(chunk.into()))
    }

    /// Its inode's number is never used again, so this harms nobody.
    async fn remove_stray(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        deadline: Instant,
    ) -> Result<(), Status> {
        let update = ChunkUpdate {
            chain,
            chunk,
            kind: UpdateKind::Remove,
            offset: 0,
            payload: SharedBuf::from(Bytes::new()),
            chunk_size: wire::CHUNK_SIZE_MIN,
            grant: Bytes::new(),
        };
        self.chunks.client.update(&update, deadline).await?;
        Ok(())
    }
}

/// The first chunk, or clone, that may lie behind this one.
pub(super) fn behind(chunk: ChunkId) -> Option<ChunkId> {
    if let Some(snapshot) = chunk.snapshot.checked_add(1) {
        return Some(chunk.at(snapshot));
    }
    match chunk.index.checked_add(1) {
        Some(index) => Some(ChunkId::new(chunk.inode, index)),
        None => Some(ChunkId::new(chunk.inode.0.checked_add(1)?.into(), 0)),
    }
}
