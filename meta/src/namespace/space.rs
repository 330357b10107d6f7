//! How much space the storage nodes have, for statfs.

use std::time::{Duration, Instant};

use ff2_proto::{Routing, pb};
use tokio::sync::Mutex;

use super::Chunks;
use crate::limits;

/// A user waits for statfs: rather an older figure than a slow one.
const ASK: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct SpaceCache {
    chunks: Chunks,
    last: Mutex<Option<(Instant, pb::SpaceReply)>>,
}

impl SpaceCache {
    pub(super) fn new(chunks: Chunks) -> Self {
        Self { chunks, last: Mutex::new(None) }
    }

    /// Adds the space that files can use: what the disks have, divided by the replicas.
    pub(super) async fn fill(&self, statfs: &mut pb::StatFs, routing: &Routing) {
        let replicas =
            routing.tables.last_key_value().map_or(1, |(_, table)| table.replicas.max(1));
        let Some(space) = self.current().await else { return };
        let free = space.capacity_bytes.saturating_sub(space.used_bytes);
        statfs.capacity_bytes = space.capacity_bytes / u64::from(replicas);
        statfs.available_bytes = free / u64::from(replicas);
    }

    async fn current(&self) -> Option<pb::SpaceReply> {
        let mut last = self.last.lock().await;
        if let Some((at, space)) = &*last
            && at.elapsed() < limits::SPACE_AGE
        {
            return Some(*space);
        }
        if let Ok(space) = self.chunks.client.space(Instant::now() + ASK).await {
            *last = Some((Instant::now(), space));
        }
        last.as_ref().map(|(_, space)| *space)
    }
}
