//! Updates: to the head, exactly once, until the chain acknowledges.

use std::{sync::atomic::Ordering, time::Instant};

use ff2_proto::{ChunkVersion, Code, Status, pb, pb::UpdateKind, status::check};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    ChainClient, ChunkUpdate, UPDATE_ATTEMPT, Updated,
    attempt::{Head, Pursuit},
    crc32c,
};
use crate::{Call, StorageClient};

/// The level of a cluster whose storage servers all know `ack_below`.
const ACK_BELOW_LEVEL: u32 = 3;

/// A channel in use; given back when dropped, so that an abandoned update costs none.
struct Channel<'a> {
    client: &'a ChainClient,
    tag: pb::UpdateTag,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Channel<'_> {
    fn drop(&mut self) {
        self.client.channels.lock().give_back(&self.tag);
    }
}

impl ChainClient {
    /// Applies one update to its chunk: when it returns, every replica has it durably.
    ///
    /// Two updates of one chunk that are called at the same time may be applied in either order.
    pub async fn update(&self, update: &ChunkUpdate, deadline: Instant) -> Result<Updated, Status> {
        check_bounds(update)?;
        let mut pursuit = Pursuit::new(self, deadline);
        let Some(channel) = pursuit.before_deadline(self.channel()).await else {
            let detail = "gave up at the deadline: every channel has an update in flight";
            return Err(Status::new(Code::Busy, detail));
        };
        let mut request = pb::UpdateRequest {
            chain: update.chain.0,
            chain_version: 0,
            chunk: Some(update.chunk.into()),
            kind: update.kind.into(),
            offset: update.offset,
            length: update.payload.len() as u32,
            crc32c: crc32c(&update.payload),
            tag: Some(channel.tag),
            chunk_size: update.chunk_size,
            grant: update.grant.clone(),
        };
        loop {
            let failure = match self.head(update.chain) {
                Err(failure) => failure,
                Ok(head) => {
                    request.chain_version = head.chain_version.0;
                    match self.ask_head(&head, &request, update, &pursuit).await {
                        Ok(updated) => {
                            self.count(update);
                            return Ok(updated);
                        }
                        Err(failure) => failure,
                    }
                }
            };
            pursuit.failed(failure, false).await?;
        }
    }

    async fn ask_head(
        &self,
        head: &Head,
        request: &pb::UpdateRequest,
        update: &ChunkUpdate,
        pursuit: &Pursuit<'_>,
    ) -> Result<Updated, Status> {
        let bulk =
            if update.payload.is_empty() { Vec::new() } else { vec![update.payload.clone()] };
        let timeout = pursuit.limit(UPDATE_ATTEMPT);
        let call = Call { timeout, bulk, ..Call::default() };
        let client = StorageClient::new(self.peers.channel(&head.address));
        let asked = std::pin::pin!(client.update(request, call));
        let changed = std::pin::pin!(self.head_changed(update.chain, head.target));
        let (reply, _) = match futures::future::select(asked, changed).await {
            futures::future::Either::Left((answer, _)) => answer?,
            // The same tag goes to the new head, so it does not matter what became of this attempt.
            futures::future::Either::Right(((), _)) => {
                let why = "the chain has a new head";
                return Err(Status::new(Code::UnknownOutcome, why));
            }
        };
        check(reply.status)?;
        Ok(Updated { version: ChunkVersion(reply.version), chunk_length: reply.chunk_length })
    }

    async fn channel(&self) -> Channel<'_> {
        let permit = self.channel_free.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            if let Some(mut tag) = self.channels.lock().take() {
                // All members of a chain must forget the same.
                if self.routing.get().level < ACK_BELOW_LEVEL {
                    tag.ack_below = 0;
                }
                return Channel { client: self, tag, _permit: permit };
            }
            // Its last user gave the permit back just before the channel.
            tokio::task::yield_now().await;
        }
    }

    fn count(&self, update: &ChunkUpdate) {
        self.counters.updates.fetch_add(1, Ordering::Relaxed);
        let bytes = update.payload.len() as u64;
        self.counters.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Refuses what every server would refuse, before a byte is sent.
fn check_bounds(update: &ChunkUpdate) -> Result<(), Status> {
    let end = u64::from(update.offset) + update.payload.len() as u64;
    if end > u64::from(update.chunk_size) {
        let why = format!("{} lies above its chunk size {}", end, update.chunk_size);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    let payload_fits = match update.kind {
        UpdateKind::Write => !update.payload.is_empty(),
        UpdateKind::Truncate | UpdateKind::Remove => update.payload.is_empty(),
        UpdateKind::Replace | UpdateKind::UpdateUnknown => false,
    };
    if payload_fits {
        Ok(())
    } else {
        let why = format!("{:?} with {} bytes", update.kind, update.payload.len());
        Err(Status::new(Code::InvalidArgument, why))
    }
}
