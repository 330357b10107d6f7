//! What the engine's parts share, and the small things that belong to none of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ff2_fabric::buf::BufPool;
use ff2_proto::{Status, TargetId, status::Code};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::{
    Space, TargetMeta,
    index::{Changes, Index, IndexStats, SharedIndex},
    ledger::Ledger,
    limits,
    shards::Shards,
    syncer::Syncer,
};
use crate::disk::{Disk, DiskStats};

/// How to run an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Requests in progress on the disk.
    pub depth: u32,
    /// A thread that turns the disk's ring; else the runtime's do.
    pub disk_thread: bool,
    /// False only for disks whose cache survives a power cut.
    pub sync_data: bool,
    /// The same for all engines of the process.
    pub shared: SharedIndex,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { depth: 128, disk_thread: true, sync_data: true, shared: SharedIndex::default() }
    }
}

/// What an engine did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    pub prepares: u64,
    pub commits: u64,
    pub aborts: u64,
    pub reads: u64,
    pub refused_for_space: u64,
    pub corrupt_sectors: u64,
    /// Syncs of the index log.
    pub index_syncs: u64,
    /// Sectors waiting in the index for their place.
    pub patches: u64,
    pub patches_written_back: u64,
    pub disk: DiskStats,
    pub index: IndexStats,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) prepares: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) aborts: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) refused_for_space: AtomicU64,
    pub(super) corrupt_sectors: AtomicU64,
    pub(super) index_syncs: AtomicU64,
    pub(super) patches_written_back: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) dir: PathBuf,
    pub(super) disk: Disk,
    pub(super) index: Index,
    pub(super) shards: Shards,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) syncer: Syncer,
    pub(super) staging: Arc<BufPool>,
    pub(super) targets: Mutex<BTreeMap<TargetId, TargetMeta>>,
    pub(super) prepares: Semaphore,
    pub(super) sync_data: bool,
    pub(super) counters: Counters,
    /// Patches are worth a round of writing back.
    pub(super) patches_kick: Notify,
    /// Patches were written back: there is room for more.
    pub(super) patches_room: Notify,
    /// Why the last round of writing back failed, if it did.
    pub(super) write_back_failure: Mutex<Option<Status>>,
    /// Why the index takes no batches any more.
    pub(super) broken: OnceLock<Status>,
    pub(super) file_system: Mutex<FileSystemSpace>,
    /// The space as of the last look at the ledger.
    pub(super) space: Mutex<Space>,
}

/// The last look at the file system under the index, and what was promised since.
#[derive(Debug, Default)]
pub(super) struct FileSystemSpace {
    looked: Option<Instant>,
    free: u64,
    reserve: u64,
    /// Bytes of updates on their way to the disk, which the look may not have seen.
    coming: u64,
    /// Those, and the ones that arrived since the look.
    taken: u64,
}

impl FileSystemSpace {
    /// Looks again, if the last look is not of just now.
    fn look(&mut self, dir: &Path) {
        let fresh = Duration::from_millis(limits::SPACE_CHECK_MS);
        if self.looked.is_none_or(|looked| looked.elapsed() >= fresh)
            && let Ok(now) = rustix::fs::statvfs(dir)
        {
            let total = now.f_blocks * now.f_frsize;
            self.looked = Some(Instant::now());
            self.free = now.f_bavail * now.f_frsize;
            self.reserve = (total / limits::INDEX_RESERVE_DIVISOR).min(limits::INDEX_RESERVE_MAX);
            self.taken = self.coming;
        }
    }
}

/// Room on the file system for one update while it is written.
#[derive(Debug)]
pub(super) struct Room<'a> {
    space: &'a Mutex<FileSystemSpace>,
    bytes: u64,
}

impl<'a> Room<'a> {
    /// For what makes room rather than takes it.
    pub(super) fn none(core: &'a Core) -> Self {
        Self { space: &core.file_system, bytes: 0 }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.space.lock().coming -= self.bytes;
    }
}

/// A use of the blocks as they were when it began; see [`Ledger`].
#[derive(Debug)]
pub(super) struct Use<'a> {
    ledger: &'a Mutex<Ledger>,
    began: u64,
}

impl<'a> Use<'a> {
    /// `locked` is what `core.ledger` guards.
    pub(super) fn begin(core: &'a Core, locked: &mut Ledger) -> Self {
        Self { ledger: &core.ledger, began: locked.begin_use() }
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.ledger.lock().end_use(self.began);
    }
}

impl Core {
    /// Gives a batch to the index and numbers it. The caller holds the shards of its chunks.
    pub(super) fn write(&self, ledger: &mut Ledger, changes: Changes) -> Result<u64, Status> {
        self.check_not_broken()?;
        self.index.write(changes).inspect_err(|error| self.break_index(error))?;
        self.syncer.note();
        Ok(ledger.next_batch())
    }

    /// Returns when all batches written before are durable.
    pub(super) async fn sync_index(&self) -> Result<(), Status> {
        self.check_not_broken()?;
        self.syncer.ask().await
    }

    /// From now on nothing changes: what RocksDB holds after a failed write is not known.
    pub(super) fn break_index(&self, error: &Status) {
        if self.broken.set(error.clone()).is_ok() {
            tracing::error!(%error, dir = %self.dir.display(), "the index cannot be written any more");
        }
    }

    pub(super) fn check_not_broken(&self) -> Result<(), Status> {
        self.broken.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// An index that ran out of space is not counted: what is settled can still be read, and updates
    /// are refused.
    pub(super) fn is_failed(&self) -> bool {
        let is_full = |error: &Status| error.code == Code::NoSpace;
        self.broken.get().is_some_and(|error| !is_full(error)) || self.disk.is_failed()
    }

    pub(super) async fn refuse_prepares(&self) {
        // All permits: nothing is being prepared any more.
        if let Ok(all) = self.prepares.acquire_many(limits::PREPARES_MAX as u32).await {
            all.forget();
            self.prepares.close();
        }
    }

    pub(super) fn stop_index(&self) {
        self.index.stop();
    }

    /// Whether the file system has little left: then what was freed is worth more there.
    pub(super) fn is_tight(&self) -> bool {
        let mut space = self.file_system.lock();
        space.look(&self.dir);
        space.looked.is_some() && space.free < limits::TIGHT_RESERVES * space.reserve
    }

    /// Room for `bytes` more on the file system that holds the index, so that the reserve (or that
    /// part of it) stays free.
    pub(super) fn file_system_room(&self, bytes: u64, divisor: u64) -> Option<Room<'_>> {
        // A raw device takes the bytes elsewhere.
        let bytes = if self.disk.is_device() { 0 } else { bytes };
        let mut space = self.file_system.lock();
        space.look(&self.dir);
        // A file system that does not answer says no in its own way, when it is written.
        if space.looked.is_some() && space.free < space.reserve / divisor + space.taken + bytes {
            return None;
        }
        space.coming += bytes;
        space.taken += bytes;
        Some(Room { space: &self.file_system, bytes })
    }

    /// Whether a target that left its chain for want of room may try again.
    pub(super) fn has_room(&self) -> bool {
        let space = self.space();
        self.check_not_broken().is_ok()
            && space.available_bytes >= space.capacity_bytes / limits::ROOM_DIVISOR
            && self.file_system_room(0, 1).is_some()
    }

    /// Without waiting for an index write, which holds the ledger: then it is as of a moment ago.
    pub(super) fn space(&self) -> Space {
        let patience = Duration::from_millis(limits::SPACE_WAIT_MS);
        let now = self.ledger.try_lock_for(patience).map(|ledger| {
            let (capacity, used) = (ledger.capacity(), ledger.used());
            let reserve = capacity / limits::RESERVE_DIVISOR;
            Space {
                capacity_bytes: capacity,
                used_bytes: used,
                available_bytes: capacity.saturating_sub(used + reserve),
            }
        });
        let mut space = self.space.lock();
        if let Some(now) = now {
            *space = now;
        }
        *space
    }

    pub(super) fn stats(&self) -> EngineStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineStats {
            prepares: get(&self.counters.prepares),
            commits: get(&self.counters.commits),
            aborts: get(&self.counters.aborts),
            reads: get(&self.counters.reads),
            refused_for_space: get(&self.counters.refused_for_space),
            corrupt_sectors: get(&self.counters.corrupt_sectors),
            index_syncs: get(&self.counters.index_syncs),
            patches: self.ledger.lock().patches as u64,
            patches_written_back: get(&self.counters.patches_written_back),
            disk: self.disk.stats(),
            index: self.index.stats(),
        }
    }

    pub(super) fn no_space(&self, why: &str) -> Status {
        count(&self.counters.refused_for_space);
        Status::new(Code::NoSpace, format!("{}: {why}", self.dir.display()))
    }
}
