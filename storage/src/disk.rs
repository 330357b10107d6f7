//! One disk's bytes: direct I/O on a data file or raw device through an io_uring of its own.
//!
//! Owns the file, the ring ([`ring`]) and who turns it ([`driver`]: a thread, by default), the memory
//! that the ring knows ([`registered`]), and the bounded mailbox in front of it ([`mailbox`]). It
//! knows positions and lengths, never chunks; the engine is its only caller. Positions, lengths and
//! memory are multiples of 4 KiB, as direct I/O wants.
//!
//! The story of a request: a caller takes a permit (the bound), puts the request with its buffers
//! into the mailbox and wakes the thread if it sleeps. The thread makes ring entries of it, up to
//! the depth, and answers through a oneshot when the last part is done. The request owns its
//! buffers until then, so a caller that goes away leaves no memory behind for the kernel to write.
//! Syncs that are asked for while one is running share the next one.

mod driver;
mod mailbox;
#[cfg(test)]
pub(crate) mod power_cut;
mod registered;
mod ring;
mod sleeper;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ff2_fabric::buf::{Buf, SharedBuf};
use ff2_proto::{Status, status::Code};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::engine::limits::DISK_STALL_MAX;
use driver::Driver;
use mailbox::{Mailbox, Request};

/// Between two looks that both find a request late.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Granularity of every position, length and address.
pub const ALIGNMENT: usize = 4096;

/// A part of a read: `length` bytes at `position` of the disk go to `at` in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPart {
    pub position: u64,
    pub at: usize,
    pub length: usize,
}

/// A part of a write.
#[derive(Clone, Debug)]
pub struct WritePart {
    pub position: u64,
    pub bytes: SharedBuf,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    #[error("no space is left on the file system of the disk")]
    NoSpace,
    #[error("the disk answered {}", io::Error::from_raw_os_error(*.0))]
    Failed(i32),
    #[error("the disk is being closed")]
    Closed,
}

impl From<DiskError> for Status {
    fn from(error: DiskError) -> Self {
        let code = match error {
            DiskError::NoSpace => Code::NoSpace,
            DiskError::Failed(_) => Code::DiskFailed,
            DiskError::Closed => Code::ShuttingDown,
        };
        Self::new(code, error.to_string())
    }
}

/// What a disk did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub write_bytes: u64,
    pub syncs: u64,
    pub punches: u64,
    pub errors: u64,
    /// Parts of reads and writes whose memory was registered with the ring.
    pub registered: u64,
    /// Ring entries in progress now.
    pub in_progress: u64,
    /// Requests accepted and not answered yet.
    pub waiting: u64,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    syncs: AtomicU64,
    punches: AtomicU64,
    errors: AtomicU64,
    registered: AtomicU64,
    in_progress: AtomicU64,
}

/// What callers and the thread share.
#[derive(Debug)]
struct Shared {
    mailbox: Mailbox,
    counters: Counters,
    /// A write or sync failed for good: what is on the disk is not known any more.
    failed: AtomicBool,
    /// Since when the oldest request is in progress.
    oldest: Oldest,
}

impl Shared {
    fn new() -> io::Result<Self> {
        Ok(Self {
            mailbox: Mailbox::new()?,
            counters: Counters::default(),
            failed: AtomicBool::new(false),
            oldest: Oldest {
                born: Instant::now(),
                began: AtomicU64::new(0),
                late: Mutex::new(None),
            },
        })
    }

    /// Also if the disk keeps a request for longer than that.
    fn is_failed(&self, patience: Duration) -> bool {
        let age = self.oldest.age();
        if age > patience && !self.failed.load(Ordering::Acquire) && self.oldest.is_still_late() {
            self.fail(&format!("a request is in progress for {age:?}"));
        }
        self.failed.load(Ordering::Acquire)
    }

    /// From now on the disk takes no writes.
    fn fail(&self, why: &dyn fmt::Display) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(%why, "the disk cannot write any more");
        }
    }
}

/// A moment that the ring's thread writes and everybody may read, whatever the thread is stuck in.
#[derive(Debug)]
struct Oldest {
    born: Instant,
    /// Milliseconds since `born`, and one; 0 while nothing is in progress.
    began: AtomicU64,
    /// Which one was found late, and when.
    late: Mutex<Option<(u64, Instant)>>,
}

impl Oldest {
    fn set(&self, began: Option<Instant>) {
        let since = |began: Instant| began.duration_since(self.born).as_millis() as u64 + 1;
        self.began.store(began.map_or(0, since), Ordering::Relaxed);
    }

    /// Whether the same request was found late some time ago. A process that was stopped finds a late
    /// request when it goes on, and its answer a moment later.
    fn is_still_late(&self) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        let mut late = self.late.lock();
        match *late {
            Some((known, since)) if known == began => since.elapsed() >= SECOND_LOOK,
            Some(_) | None => {
                *late = Some((began, Instant::now()));
                false
            }
        }
    }

    fn age(&self) -> Duration {
        match self.began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => self.born.elapsed().saturating_sub(Duration::from_millis(began - 1)),
        }
    }
}

/// See the module. Dropping it ends the thread after the requests in progress.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    size: u64,
    direct: bool,
    device: bool,
    #[cfg(test)]
    pub(crate) unsynced: power_cut::Unsynced,
    driver: Driver,
}

impl Disk {
    /// Opens a data file or device, with `depth` ring entries in progress at most. `own_thread`: the
    /// ring has one; else it needs a tokio runtime around it.
    pub fn open(path: &Path, depth: u32, own_thread: bool) -> io::Result<Self> {
        let (file, direct) = open_direct(path)?;
        let size = size_of(&file)?;
        let device = file.metadata()?.file_type().is_block_device();
        let shared = Arc::new(Shared::new()?);
        let depth = depth.max(1);
        let driver = match own_thread {
            true => Driver::thread(file, depth, shared.clone())?,
            false => Driver::task(file, depth, shared.clone())?,
        };
        Ok(Self {
            shared,
            size,
            direct,
            device,
            #[cfg(test)]
            unsynced: power_cut::Unsynced::new(path),
            driver,
        })
    }

    /// Bytes of the file or device when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A raw device, not a file.
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// False where the file system has no direct I/O.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// True once a write or sync has failed for a reason other than space, or the disk has kept a
    /// request for too long: a disk that hangs is as good as none.
    pub fn is_failed(&self) -> bool {
        self.shared.is_failed(DISK_STALL_MAX)
    }

    /// Reads all parts into the buffer. On an error the buffer goes back to its pool.
    pub async fn read(&self, buf: Buf, parts: Vec<ReadPart>) -> Result<Buf, DiskError> {
        if parts.is_empty() {
            return Ok(buf);
        }
        assert!(buf.as_ptr().addr().is_multiple_of(ALIGNMENT), "direct I/O needs aligned memory");
        for part in &parts {
            assert!(part.length > 0 && part.at + part.length <= buf.len(), "{part:?}");
            check_alignment(part.position, part.length, part.at);
        }
        let (done, answer) = oneshot::channel();
        self.put(|permit| Request::Read { buf, parts, done, _permit: permit }).await?;
        answer.await.unwrap_or(Err(DiskError::Closed))
    }

    /// Writes all parts, in any order. Durable only after a [`Disk::sync`] that begins later.
    pub async fn write(&self, parts: Vec<WritePart>) -> Result<(), DiskError> {
        if parts.is_empty() {
            return Ok(());
        }
        self.check_not_failed()?;
        for part in &parts {
            assert!(!part.bytes.is_empty(), "an empty write");
            check_alignment(part.position, part.bytes.len(), part.bytes.as_ptr().addr());
        }
        #[cfg(test)]
        let remembered = self.unsynced.before_write(&parts);
        let (done, answer) = oneshot::channel();
        self.put(|permit| Request::Write { parts, done, _permit: permit }).await?;
        let answer = answer.await.unwrap_or(Err(DiskError::Closed));
        #[cfg(test)]
        self.unsynced.after_write(&remembered);
        answer
    }

    /// Returns when all writes answered before the call are durable.
    pub async fn sync(&self) -> Result<(), DiskError> {
        self.check_not_failed()?;
        #[cfg(test)]
        let covered = self.unsynced.before_sync();
        let (done, answer) = oneshot::channel();
        self.put(|permit| Request::Sync { done, _permit: permit }).await?;
        let answer = answer.await.unwrap_or(Err(DiskError::Closed));
        #[cfg(test)]
        self.unsynced.after_sync(&covered);
        answer
    }

    /// Tells the file system (or device) that a range holds nothing. Reads of it give anything.
    pub async fn punch(&self, position: u64, length: u64) -> Result<(), DiskError> {
        let (done, answer) = oneshot::channel();
        let request = |permit| Request::Punch { position, length, done, _permit: permit };
        self.put(request).await?;
        answer.await.unwrap_or(Err(DiskError::Closed))
    }

    async fn put(
        &self,
        request: impl FnOnce(OwnedSemaphorePermit) -> Request,
    ) -> Result<(), DiskError> {
        self.shared.mailbox.put(request).await?;
        self.driver.kick(&self.shared);
        Ok(())
    }

    pub fn stats(&self) -> DiskStats {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskStats {
            reads: get(&counters.reads),
            read_bytes: get(&counters.read_bytes),
            writes: get(&counters.writes),
            write_bytes: get(&counters.write_bytes),
            syncs: get(&counters.syncs),
            punches: get(&counters.punches),
            errors: get(&counters.errors),
            registered: get(&counters.registered),
            in_progress: get(&counters.in_progress),
            waiting: self.shared.mailbox.waiting(),
        }
    }

    /// After a failed sync nobody knows what the disk holds (the kernel drops the dirty pages), so
    /// nothing more is written to it.
    fn check_not_failed(&self) -> Result<(), DiskError> {
        if self.is_failed() { Err(DiskError::Failed(libc::EIO)) } else { Ok(()) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Then the driver ends.
        self.shared.mailbox.close();
    }
}

fn check_alignment(position: u64, length: usize, address: usize) {
    assert!(position.is_multiple_of(ALIGNMENT as u64), "position {position}");
    assert!(length.is_multiple_of(ALIGNMENT), "length {length}");
    assert!(address.is_multiple_of(ALIGNMENT), "address {address:#x}");
}

fn open_direct(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            tracing::warn!(path = %path.display(), "no direct I/O here, reads will be cached twice");
            Ok((options.open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

fn size_of(file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    if meta.file_type().is_block_device() {
        rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).map_err(io::Error::from)
    } else {
        Ok(meta.len())
    }
}

#[cfg(test)]
mod tests;
