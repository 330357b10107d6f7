//! Scrub: reads all that is stored, slowly, so that what a disk lost is found while others have it.
//!
//! Each disk has a task that walks its targets, one after the other, and each target's committed chunks
//! in the order of their ids. A chunk is read as for a client, but its checksums are looked at here; one
//! that is damaged goes the way of any other that somebody finds: the target leaves its chain while
//! others serve, and gets a copy. What is written behind the walk is young; the next walk reads it.

mod book;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ff2_fabric::{RoutingCache, buf::BufPool};
use ff2_proto::{ChunkId, Code, Status};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use book::Scrubs;
use book::{Tally, Walked};

use crate::{
    engine::Check,
    limits,
    metrics::StorageMetrics,
    target_driver::{DiskRead, TargetHandle, stopping},
    targets::Targets,
};

/// How much, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Of one disk.
    pub bytes_per_s: u64,
    /// From the end of a target's walk to its next. Zero: only when somebody asks.
    pub every: Duration,
}

/// What the walks of all disks share.
#[derive(Clone, Debug)]
pub(crate) struct Scrubber {
    pub(crate) targets: Arc<Targets>,
    pub(crate) routing: Arc<RoutingCache>,
    pub(crate) pool: Arc<BufPool>,
    pub(crate) metrics: Arc<StorageMetrics>,
    pub(crate) pace: Pace,
    pub(crate) stop: CancellationToken,
}

impl Scrubber {
    /// Scrubs the targets of one disk, whenever it is time, until the node stops.
    pub(crate) async fn run(self, disk_uuid: [u8; 16]) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.scrub(disk_uuid) => {}
        }
    }

    async fn scrub(&self, disk_uuid: [u8; 16]) {
        let mut routing = self.routing.subscribe();
        loop {
            let round = self.routing.get().scrub_round;
            let mut handles = self.targets.all();
            handles.retain(|handle| handle.disk_uuid == disk_uuid);
            let ids: Vec<_> = handles.iter().map(|handle| handle.meta.id).collect();
            if let Err(error) = self.targets.scrubs().meets(&ids, now_s()) {
                tracing::warn!(%error, "cannot note since when targets are here");
            }
            let is_due = |handle: &TargetHandle| {
                self.targets.scrubs().is_due(handle.meta.id, round, now_s(), self.pace.every)
            };
            handles.retain(is_due);
            // Those that do not serve do not hold up the others.
            let (serving, others): (Vec<_>, Vec<_>) =
                handles.into_iter().partition(|handle| handle.seen().role.serves());
            for handle in serving {
                self.walk(&handle, round).await;
            }
            let pause = if others.is_empty() { limits::SCRUB_LOOK } else { limits::SCRUB_PAUSE };
            // Another round, or another day; without the routing the node is about to end.
            let changed = timeout(pause, async {
                while self.routing.get().scrub_round == round && routing.changed().await.is_ok() {}
            });
            let _ = changed.await;
        }
    }

    /// Reads all chunks of a target, unless it is given up meanwhile.
    async fn walk(&self, first: &TargetHandle, round: u64) {
        let meta = first.meta.clone();
        let total = first.seen().chunks as u64;
        let mut tally = Tally { total, ..Tally::default() };
        let mut pacer = Pacer { bytes_per_s: self.pace.bytes_per_s, free_at: Instant::now() };
        let mut after = None;
        loop {
            self.targets.scrubs().walks(meta.id, tally);
            // The task of a target that had damage is another one afterwards.
            let handle = self.targets.of_chain(meta.chain).filter(|h| h.meta.id == meta.id);
            let Some(handle) = handle else { return self.targets.scrubs().gives_up(meta.id) };
            match self.page(&handle, &mut after, &mut tally, &mut pacer).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(status) => {
                    tracing::debug!(target_id = meta.id.0, %status, "the scrub waits");
                    sleep(limits::SCRUB_PAUSE).await;
                }
            }
        }
        let Tally { done, damaged, .. } = tally;
        tracing::info!(target_id = meta.id.0, round, chunks = done, damaged, "scrubbed");
        let walked = Walked { round, at_s: now_s(), chunks: done, damaged, is_scrubbed: true };
        let known: Vec<_> = self.targets.all().iter().map(|handle| handle.meta.id).collect();
        if let Err(error) = self.targets.scrubs().finished(meta.id, walked, &known) {
            // It is scrubbed again sooner than it has to be.
            tracing::warn!(%error, "cannot note that a scrub has ended");
        }
    }

    /// Reads the next chunks. False: there are none. A failure: the target cannot say at this time.
    async fn page(
        &self,
        handle: &TargetHandle,
        after: &mut Option<ChunkId>,
        tally: &mut Tally,
        pacer: &mut Pacer,
    ) -> Result<bool, Status> {
        if !handle.seen().role.serves() {
            return Err(Status::new(Code::Busy, "the target does not serve"));
        }
        let chunks = handle.chunks(*after).await?;
        for &(chunk, length) in &chunks {
            match self.chunk(handle, chunk, length, pacer).await {
                Ok(()) => {}
                Err(status) if status.code == Code::Corrupt => {
                    tally.damaged += 1;
                    self.metrics.scrub_damaged_chunks.inc();
                    tracing::error!(target_id = handle.meta.id.0, %status, "a scrub found damage");
                }
                Err(status) => return Err(status),
            }
            *after = Some(chunk);
            tally.done += 1;
            self.metrics.scrubbed_chunks.inc();
            self.targets.scrubs().walks(handle.meta.id, *tally);
        }
        Ok(!chunks.is_empty())
    }

    async fn chunk(
        &self,
        handle: &TargetHandle,
        chunk: ChunkId,
        chunk_length: u32,
        pacer: &mut Pacer,
    ) -> Result<(), Status> {
        for offset in (0..chunk_length).step_by(limits::SCRUB_BYTES as usize) {
            let length = (chunk_length - offset).min(limits::SCRUB_BYTES);
            pacer.turn(length).await;
            let buf = self.pool.get(length as usize).await;
            let read = DiskRead { chunk, offset, length, check: Check::Here, buf };
            let answer = timeout(limits::REPLY_WAIT, handle.read(read)?).await;
            let late = |_| Status::new(Code::Timeout, "a read of the scrub took too long");
            answer.map_err(late)?.map_err(|_| stopping())??;
            self.metrics.scrubbed_bytes.inc_by(length.into());
        }
        Ok(())
    }
}

/// Keeps a walk to its share of the disk.
struct Pacer {
    bytes_per_s: u64,
    /// When what was read is paid for.
    free_at: Instant,
}

impl Pacer {
    /// Waits until so many bytes may be read.
    async fn turn(&mut self, bytes: u32) {
        sleep_until(self.free_at).await;
        let takes = Duration::from_secs_f64(f64::from(bytes) / self.bytes_per_s as f64);
        self.free_at = self.free_at.max(Instant::now()) + takes;
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_walk_reads_no_faster_than_it_may() {
        let begun = Instant::now();
        let mut pacer = Pacer { bytes_per_s: 1 << 20, free_at: begun };
        for _ in 0..10 {
            pacer.turn(512 << 10).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 4_500, "the first half second is not waited for");
        // Time in which nothing was read is no credit.
        sleep(Duration::from_secs(100)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pacer.turn(1 << 20).await;
        }
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
}
