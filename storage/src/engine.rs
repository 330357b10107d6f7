//! The chunk engine of one disk: versions of chunks, durable, checked, never half there.
//!
//! Owns a data file driven by [`crate::disk`] and an index in RocksDB. It keeps one committed and at
//! most one pending version of each chunk, and answers reads from either. It never decides whether a
//! pending version becomes committed: the target's machine does, through its driver, which is the
//! only caller. [`types`] lists the calls.
//!
//! # The life of an update
//! `prepare` plans it ([`ff2_storage_core::plan`]), takes blocks, builds the new sectors
//! ([`image`]), writes and syncs them, then puts one batch (the pending record with all it needs)
//! into the index and returns when that is durable. Syncs are shared: the disk's thread merges those
//! of the data, the [`syncer`] those of the index, and the two overlap. `commit` is one unsynced
//! batch that makes the pending state the committed one. `abort` is one that forgets it. Small
//! overwrites live in the index as patches until [`writeback`] brings them to their place.
//!
//! # Lock order
//! One order, everywhere: **shard, then ledger, then RocksDB**.
//! - A shard ([`shards`]) holds the chunks of one hash class. Whoever changes a chunk's rows holds
//!   its shard from before the batch is written until the memory says the same, so memory and index
//!   are never seen to differ. A miss is filled from RocksDB under the shard too.
//! - The [`ledger`] holds the allocator and numbers the batches. It is locked around each batch, so
//!   the numbers are the order in which RocksDB takes them, and a block freed by a batch belongs to
//!   that number. It also says which batches are settled, which is when their blocks are reused.
//! - RocksDB is written only under both. Its log is synced under neither (by the syncer alone).
//!
//! No lock is held over an `.await`. The caller has one prepare, commit or abort in progress for a
//! chunk; reads, and work on other chunks, run beside it.
//!
//! # A crash at any point
//! Blocks, holes and patched sectors are touched only after nothing durable refers to their old
//! content. After a crash each chunk has its committed version and, if one was prepared and its
//! commit did not become durable, a pending one; both complete. The allocator is rebuilt from the
//! index, so nothing leaks.

mod chunk;
mod commit;
mod core;
mod image;
mod index;
mod ledger;
pub mod limits;
mod open;
mod prepare;
mod read;
mod shards;
mod syncer;
mod targets;
pub mod types;
mod writeback;

use std::{fmt, path::Path, sync::Arc, thread::JoinHandle, time::Instant};

use ff2_fabric::buf::Buf;
use ff2_proto::{ChainVersion, ChunkId, ChunkVersion, Status, TargetId, status::Code};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::core::Core;
pub use self::{
    core::{EngineOptions, EngineStats},
    index::{IndexStats, SharedIndex},
};
pub use types::*;

/// A chunk of a target of this disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LocalChunk {
    target: TargetId,
    chunk: ChunkId,
}

impl fmt::Display for LocalChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of target {}", self.chunk, self.target)
    }
}

/// See the module. Clones are the same engine; when the last goes, its threads end, and what was
/// not durable is as after a crash.
#[derive(Clone, Debug)]
pub struct Engine {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    core: Arc<Core>,
    stop: CancellationToken,
    syncer: Mutex<Option<JoinHandle<()>>>,
    background: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Engine {
    /// Makes an empty disk in the folder. A file `data` that is there already (a link to a raw
    /// device) is used as it is. Blocking.
    pub fn format(dir: &Path, options: &FormatOptions) -> Result<(), Status> {
        open::format(dir, options)
    }

    /// Whether the folder holds a disk.
    pub fn is_formatted(dir: &Path) -> bool {
        dir.join(open::INDEX).join("CURRENT").exists()
    }

    /// Opens a disk and rebuilds what is kept in memory. Blocking; needs a tokio runtime around it.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Self, Status> {
        let core = Arc::new(open::open(dir, options)?);
        let stop = CancellationToken::new();
        let syncer = syncer::start(core.clone())?;
        let background = tokio::spawn(writeback::run(core.clone(), stop.clone()));
        Ok(Self {
            running: Arc::new(Running {
                core,
                stop,
                syncer: Mutex::new(Some(syncer)),
                background: Mutex::new(Some(background)),
            }),
        })
    }

    pub fn targets(&self) -> Vec<TargetMeta> {
        self.core().targets()
    }

    /// Durable when it returns. `EXISTS` if the disk has the target.
    pub async fn create_target(&self, meta: TargetMeta) -> Result<(), Status> {
        self.core().create_target(meta).await
    }

    /// Durable when it returns: its chain, its generation, and what it took part in.
    pub async fn update_target(&self, meta: TargetMeta) -> Result<(), Status> {
        self.core().update_target(meta).await
    }

    /// Removes a target and all its chunks; nothing else may be asked of it meanwhile. After a crash
    /// in between the target is still there, and removing it again goes on.
    pub async fn remove_target(&self, target: TargetId) -> Result<(), Status> {
        let core = self.core().clone();
        run_to_end(async move { core.remove_target(target).await }).await
    }

    /// All chunks of a target in order of their ids: for its start, before updates begin.
    pub async fn load(&self, target: TargetId) -> Result<Vec<LoadedChunk>, Status> {
        let core = self.core().clone();
        tokio::task::spawn_blocking(move || core.load(target)).await.unwrap_or_else(|_| Err(gone()))
    }

    /// Makes a pending version durable beside the committed one. A chunk takes one at a time. On an
    /// error nothing is pending. May be dropped: then it runs to its end all the same.
    pub async fn prepare(
        &self,
        target: TargetId,
        chunk: ChunkId,
        pending: Pending,
    ) -> Result<Prepared, Status> {
        let core = self.core().clone();
        let of = LocalChunk { target, chunk };
        run_to_end(async move { core.prepare(of, pending).await }).await
    }

    /// Makes the pending `version` the committed one. Reads see it at once; it is durable with the
    /// next prepare, or soon. Committing a version that is committed already does nothing.
    pub async fn commit(
        &self,
        target: TargetId,
        chunk: ChunkId,
        version: ChunkVersion,
        chain_version: ChainVersion,
    ) -> Result<(), Status> {
        self.core().commit(LocalChunk { target, chunk }, version, chain_version)
    }

    /// Forgets the pending version, if there is one; durable when it returns.
    pub async fn abort(&self, target: TargetId, chunk: ChunkId) -> Result<(), Status> {
        if self.core().abort(LocalChunk { target, chunk })? {
            self.core().sync_index().await?;
        }
        Ok(())
    }

    /// Reads `len` bytes at `offset` into `buf`, whose capacity holds them; it comes back with
    /// exactly `len` bytes, zeros where the chunk has none. With `offset` on 4 KiB the disk writes
    /// straight into it. `CORRUPT` if a checksum does not match, `NOT_FOUND` without such a version.
    #[expect(clippy::too_many_arguments, reason = "each says another thing of the read")]
    pub async fn read(
        &self,
        target: TargetId,
        chunk: ChunkId,
        which: Which,
        offset: u32,
        len: u32,
        check: Check,
        buf: Buf,
    ) -> Result<(Buf, Readout), Status> {
        self.core().read(LocalChunk { target, chunk }, which, (offset, len), check, buf).await
    }

    pub fn space(&self) -> Space {
        self.core().space()
    }

    /// Whether there is room again, with some distance to the point where there was none.
    pub fn has_room(&self) -> bool {
        self.core().has_room()
    }

    pub fn stats(&self) -> EngineStats {
        self.core().stats()
    }

    /// True once the disk or the index refused a write for good, and not for want of space.
    pub fn is_failed(&self) -> bool {
        self.core().is_failed()
    }

    /// Ends the work in progress, makes everything durable and stops. Calls after it fail.
    pub async fn shutdown(&self) {
        let core = self.core();
        core.refuse_prepares().await;
        self.running.stop.cancel();
        let background = self.running.background.lock().take();
        if let Some(background) = background {
            let _ = background.await;
        }
        if let Err(error) = core.sync_index().await {
            tracing::error!(%error, "the last commits may have to be decided again at the next start");
        }
        // Nobody remembers what was freed.
        core.punch_freed(Instant::now()).await;
        self.running.end_syncer();
        core.stop_index();
    }

    fn core(&self) -> &Arc<Core> {
        &self.running.core
    }
}

impl Running {
    fn end_syncer(&self) {
        self.core.syncer.stop();
        if let Some(syncer) = self.syncer.lock().take() {
            let _ = syncer.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.end_syncer();
    }
}

/// Runs work that must not stop halfway when its caller goes away.
async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(gone()))
}

fn gone() -> Status {
    Status::new(Code::ShuttingDown, "the engine of this disk is stopping")
}

#[cfg(test)]
mod tests;
