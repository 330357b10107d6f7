//! Chunk I/O on chains: the client side of CRAQ.
//!
//! Owns the way from "these bytes of this chunk" to an answer: looks the chain up in the routing,
//! asks the head (updates) or any serving member (reads), follows refusals, waits for newer routing
//! while nobody serves, and keeps an update's exactly-once tag through all its retries. It gives up
//! only for a final answer or at the caller's deadline: a server failure is a pause, not an error.
//! It never asks a metad; the routing cache is kept fresh by others.
//!
//! Used by the client library for files, and by metad to cut and collect chunks.

mod attempt;
mod read;
fn random() -> Result<u64, Status> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Status::new(Code::Internal, format!("draw a random number: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests;
mod update;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
pub use ff2_client_core::ReadSpan;
use ff2_client_core::{Channels, TargetHealth, limits};
use ff2_proto::{
    ChainId, ChunkId, ChunkVersion, Code, InodeId, Status, pb,
    pb::{NodeRole, UpdateKind},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{BufPool, Call, Peers, RoutingCache, SharedBuf, StorageClient, clock};
use attempt::Pursuit;
pub use read::Came;

/// One attempt of a read: above the time of a slow disk. Another replica is asked after it.
const READ_ATTEMPT: Duration = Duration::from_secs(2);
/// One attempt of an update: it waits for every replica's disk.
const UPDATE_ATTEMPT: Duration = Duration::from_secs(5);
/// One attempt of a listing or a question about space.
const LIST_ATTEMPT: Duration = Duration::from_secs(2);

/// Reads and updates chunks. Cheap to share; one per session.
pub struct ChainClient {
    peers: Arc<Peers>,
    routing: Arc<RoutingCache>,
    pool: Arc<BufPool>,
    channels: Mutex<Channels>,
    /// A permit per channel: who waits for a channel waits here.
    channel_free: Arc<Semaphore>,
    health: Mutex<TargetHealth>,
    started: Instant,
    salt: AtomicU64,
    counters: Counters,
}

/// Totals since the start, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    read_bytes: AtomicU64,
    read_calls: AtomicU64,
    written_bytes: AtomicU64,
    updates: AtomicU64,
    retries: AtomicU64,
}

/// A reading of [`ChainClient::totals`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub read_bytes: u64,
    pub read_calls: u64,
    pub written_bytes: u64,
    pub updates: u64,
    pub retries: u64,
}

/// One change of one chunk.
#[derive(Clone, Debug)]
pub struct ChunkUpdate {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// [`UpdateKind::Write`], [`UpdateKind::Truncate`] or [`UpdateKind::Remove`].
    pub kind: UpdateKind,
    /// First byte of a write; new length of a truncation.
    pub offset: u32,
    /// Of a write; else empty.
    pub payload: SharedBuf,
    /// Of the file's layout: no byte lies at or above it.
    pub chunk_size: u32,
    /// What metad granted at open; empty for a daemon.
    pub grant: Bytes,
}

/// A chunk after an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated {
    pub version: ChunkVersion,
    pub chunk_length: u32,
}

/// The bytes of one [`ReadSpan`]: all of its length, zeros where the chunk has none.
#[derive(Clone, Debug)]
pub struct ReadPiece {
    pub bytes: SharedBuf,
    pub version: ChunkVersion,
    /// Committed length of the whole chunk.
    pub chunk_length: u32,
}

/// Some chunks on one chain, in order of their inode and index.
#[derive(Clone, Debug, Default)]
pub struct ChunkPage {
    pub chunks: Vec<pb::ChunkInfo>,
    /// Nothing lies behind these.
    pub end: bool,
}

impl ChainClient {
    /// Fails only where the kernel gives no random numbers.
    pub fn new(peers: Arc<Peers>, routing: Arc<RoutingCache>) -> Result<Arc<Self>, Status> {
        // Makes the tags of this client's updates its own: who could guess it could answer them in
        // its place.
        let session = random()?;
        let salt = random()?;
        Ok(Self::with_session(peers, routing, session, salt))
    }

    /// A client whose tags and waits follow from `seed`: for simulations, which repeat themselves.
    /// Anyone who knows the seed can answer updates in this client's place.
    pub fn seeded(peers: Arc<Peers>, routing: Arc<RoutingCache>, seed: u64) -> Arc<Self> {
        Self::with_session(peers, routing, seed, seed)
    }

    fn with_session(
        peers: Arc<Peers>,
        routing: Arc<RoutingCache>,
        session: u64,
        salt: u64,
    ) -> Arc<Self> {
        let pool = peers.pool().clone();
        Arc::new(Self {
            peers,
            routing,
            pool,
            channels: Mutex::new(Channels::new(session, limits::CHANNELS_MAX)),
            channel_free: Arc::new(Semaphore::new(limits::CHANNELS_MAX as usize)),
            health: Mutex::new(TargetHealth::new()),
            started: clock::now(),
            salt: AtomicU64::new(salt),
            counters: Counters::default(),
        })
    }

    pub fn routing(&self) -> &Arc<RoutingCache> {
        &self.routing
    }

    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            read_bytes: read(&self.counters.read_bytes),
            read_calls: read(&self.counters.read_calls),
            written_bytes: read(&self.counters.written_bytes),
            updates: read(&self.counters.updates),
            retries: read(&self.counters.retries),
        }
    }

    /// Chunks of an inode on one chain from an index on, as the chain's head has them: with those
    /// whose first version is still pending, so that a collector leaves none behind.
    pub async fn list_chunks(
        &self,
        chain: ChainId,
        inode: InodeId,
        from_index: u32,
        limit: u32,
        grant: Bytes,
        deadline: Instant,
    ) -> Result<ChunkPage, Status> {
        let asked = pb::ListChunksRequest {
            chain: chain.0,
            inode: inode.0,
            from_index,
            limit,
            grant,
            ..Default::default()
        };
        self.list(asked, deadline).await
    }

    /// Chunks of all inodes from one on, with all clones, as [`Self::list_chunks`]; for daemons.
    pub async fn list_chain(
        &self,
        chain: ChainId,
        from: ChunkId,
        limit: u32,
        deadline: Instant,
    ) -> Result<ChunkPage, Status> {
        let asked = pb::ListChunksRequest {
            chain: chain.0,
            inode: from.inode.0,
            from_index: from.index,
            from_snapshot: from.snapshot,
            limit,
            every_inode: true,
            ..Default::default()
        };
        self.list(asked, deadline).await
    }

    async fn list(
        &self,
        mut asked: pb::ListChunksRequest,
        deadline: Instant,
    ) -> Result<ChunkPage, Status> {
        let mut pursuit = Pursuit::new(self, deadline);
        loop {
            let failure = match self.head(asked.chain.into()) {
                Err(failure) => failure,
                Ok(head) => {
                    asked.chain_version = head.chain_version.0;
                    let call = Call { timeout: pursuit.limit(LIST_ATTEMPT), ..Call::default() };
                    let client = StorageClient::new(self.peers.channel(&head.address));
                    match client.list_chunks(&asked, call).await {
                        Ok((reply, _)) => match ff2_proto::status::check(reply.status) {
                            Ok(()) => {
                                return Ok(ChunkPage { chunks: reply.chunks, end: reply.end });
                            }
                            Err(failure) => failure,
                        },
                        Err(failure) => failure,
                    }
                }
            };
            pursuit.failed(failure, false).await?;
        }
    }

    /// Space of all storage nodes that answer, summed; replicas are not divided out.
    pub async fn space(&self, deadline: Instant) -> Result<pb::SpaceReply, Status> {
        let routing = self.routing.get();
        let limit = deadline.saturating_duration_since(clock::now()).min(LIST_ATTEMPT);
        let nodes = routing.nodes.values().filter(|node| node.role() == NodeRole::Storaged);
        let asked = nodes.filter(|node| node.alive && !node.address.is_empty()).map(|node| {
            let client = StorageClient::new(self.peers.channel(&node.address));
            async move {
                let call = Call { timeout: limit, ..Call::default() };
                client.space(&pb::SpaceRequest {}, call).await
            }
        });
        let mut total = pb::SpaceReply::default();
        let mut failure = None;
        let mut answered = false;
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok((space, _)) => {
                    answered = true;
                    total.capacity_bytes += space.capacity_bytes;
                    total.used_bytes += space.used_bytes;
                }
                Err(status) => failure = Some(status),
            }
        }
        match failure {
            Some(failure) if !answered => Err(failure),
            _ => Ok(total),
        }
    }

    /// Time since this client began: the clock of its machines.
    fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }

    fn next_salt(&self) -> u64 {
        self.salt.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// The checksum that travels with a payload.
fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

impl fmt::Debug for ChainClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainClient").field("totals", &self.totals()).finish_non_exhaustive()
    }
}
