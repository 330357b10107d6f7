//! One operation of a ring, as the mount does it for the kernel.

use std::{mem, ops::Range, sync::Arc};

use ff2_client::{Code, Result, SharedBuf, Status};
use ff2_ring::{
    layout::{Completed, FSYNC, HIGH, LOW, READ, Submission, WRITE},
    limits::OPERATION_BYTES_MAX,
};

use parking_lot::Mutex;

use super::{
    asks::{Region, Ring},
    file::RingFile,
};
use crate::{limits, mounted::Mounted, ops::data};

/// A submission whose numbers were found to be of something.
#[derive(Debug)]
pub(super) struct Work {
    file: Arc<RingFile>,
    user_data: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Read(Transfer),
    Write(Transfer),
    Fsync,
}

/// Bytes between a file and a region in which they have room.
#[derive(Debug)]
struct Transfer {
    region: Arc<Region>,
    region_offset: usize,
    file_offset: u64,
    length: u64,
}

impl Work {
    /// `Err`: the outcome, since it cannot be.
    pub(super) fn parse(ring: &Ring, asked: Submission) -> std::result::Result<Self, Completed> {
        let user_data = asked.user_data;
        let cannot = |errno: i32| Completed { user_data, result: -i64::from(errno) };
        if ![HIGH, LOW].contains(&asked.class) {
            return Err(cannot(libc::EINVAL));
        }
        let file = ring.files.get(asked.file).ok_or(cannot(libc::EBADF))?;
        let transfer = || {
            if asked.length > OPERATION_BYTES_MAX || i64::try_from(asked.file_offset).is_err() {
                return Err(cannot(libc::EINVAL));
            }
            let region = ring.regions.get(asked.region).ok_or(cannot(libc::EFAULT))?;
            if !region.memory.has(asked.region_offset, asked.length) {
                return Err(cannot(libc::EFAULT));
            }
            let region_offset = asked.region_offset as usize;
            let Submission { file_offset, length, .. } = asked;
            Ok(Transfer { region, region_offset, file_offset, length })
        };
        let kind = match asked.op {
            READ if file.may_read => Kind::Read(transfer()?),
            WRITE if file.may_write => Kind::Write(transfer()?),
            READ | WRITE => return Err(cannot(libc::EBADF)),
            FSYNC => Kind::Fsync,
            _ => return Err(cannot(libc::EINVAL)),
        };
        Ok(Self { file, user_data, kind })
    }

    /// Bytes that it moves.
    pub(super) fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::Read(transfer) | Kind::Write(transfer) => transfer.length,
            Kind::Fsync => 0,
        }
    }

    /// Whether another one is a small read of the same file as this one.
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        let is_small = |work: &Self| {
            work.range().is_some() && work.bytes() <= limits::RING_SMALL_READ_BYTES_MAX
        };
        Arc::ptr_eq(&self.file, &other.file) && is_small(self) && is_small(other)
    }

    /// What a read reads.
    fn range(&self) -> Option<Range<u64>> {
        let Kind::Read(transfer) = &self.kind else { return None };
        Some(transfer.range())
    }

    /// Dropped in the middle, a read ends and anything else goes on.
    pub(super) async fn run(self, at: Arc<Mounted>) -> Completed {
        let Self { file, user_data, kind } = self;
        let inode = file.file.inode().0;
        let name = match &kind {
            Kind::Read(_) => "ring_read",
            Kind::Write(_) => "ring_write",
            Kind::Fsync => "ring_fsync",
        };
        let operation = at.operations.begin(name, format!("inode {inode}"));
        let outcome = match kind {
            Kind::Read(transfer) => read(&at, &file, &transfer).await,
            changing => {
                let requests = at.requests.clone();
                let task = requests.spawn(async move {
                    match changing {
                        Kind::Write(transfer) => write(&at, &file, &transfer).await,
                        Kind::Fsync | Kind::Read(_) => file.file.fsync().await.map(|()| 0),
                    }
                });
                let stopped = |error| Err(Status::new(Code::Internal, format!("{error}")));
                task.await.unwrap_or_else(stopped)
            }
        };
        let result = match operation.end(outcome) {
            Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Err(failure) => {
                tracing::debug!(inode, %failure, "refused");
                -i64::from(failure.errno())
            }
        };
        Completed { user_data, result }
    }
}

/// What operations that run together have come to so far, and the bytes that each was to move.
#[derive(Clone, Debug, Default)]
pub(super) struct Posted(Arc<Mutex<Vec<(u64, Completed)>>>);

impl Posted {
    pub(super) fn take(&self) -> Vec<(u64, Completed)> {
        mem::take(&mut self.0.lock())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Runs reads that go together, and posts each when it is done. Returns those that must be run each by itself, to
/// have an outcome of their own.
pub(super) async fn run_together(at: &Mounted, works: Vec<Work>, posted: &Posted) -> Vec<Work> {
    let patience = limits::RING_READS_TOGETHER_PATIENCE;
    let mut is_done = vec![false; works.len()];
    let mut done = |place: usize, completed| {
        is_done[place] = true;
        posted.0.lock().push((works[place].bytes(), completed));
    };
    let reading = read_together(at, &works, &mut done);
    match tokio::time::timeout(patience, reading).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(_)) | Err(_) => {
            works.into_iter().zip(is_done).filter(|(_, done)| !done).map(|(work, _)| work).collect()
        }
    }
}

/// Small reads of one file, with a call for each server.
async fn read_together(
    at: &Mounted,
    works: &[Work],
    done: &mut (dyn FnMut(usize, Completed) + Send),
) -> Result<()> {
    let file = &works[0].file;
    let inode = file.file.inode().0;
    let detail = format!("inode {inode}, {} reads", works.len());
    let _operation = at.operations.begin("ring_reads", detail);
    at.lock_owners.check(&at.client, file.handle).await?;
    let ranges: Vec<Range<u64>> = works.iter().filter_map(Work::range).collect();
    let mut found = |place: usize, pieces: Vec<SharedBuf>| {
        let work = &works[place];
        let moved = match &work.kind {
            Kind::Read(transfer) => transfer.fill(at, &pieces),
            Kind::Write(_) | Kind::Fsync => 0,
        };
        let result = i64::try_from(moved).unwrap_or(i64::MAX);
        done(place, Completed { user_data: work.user_data, result });
    };
    file.file.read_ranges_each(&ranges, &mut found).await
}

/// Fewer bytes than asked for only at the end of the file. Nothing is read ahead: how much is in flight is
/// for the program to say, and what it asked for must not wait for what it did not.
async fn read(at: &Mounted, file: &RingFile, asked: &Transfer) -> Result<u64> {
    at.lock_owners.check(&at.client, file.handle).await?;
    let range = asked.range();
    let found = file.file.read_ranges(std::slice::from_ref(&range)).await?;
    Ok(found.iter().map(|pieces| asked.fill(at, pieces)).sum())
}

impl Transfer {
    /// Of the file; its end was found to be a number.
    fn range(&self) -> Range<u64> {
        self.file_offset..self.file_offset + self.length
    }

    /// Puts bytes that were read into the region, and counts them.
    fn fill(&self, at: &Mounted, pieces: &[SharedBuf]) -> u64 {
        let mut moved = 0;
        for piece in pieces {
            // The one copy: programs may not see the memory that is shared with servers.
            self.region.memory.write(self.region_offset + moved, piece);
            moved += piece.len();
        }
        at.traffic.read_bytes.inc_by(moved as u64);
        moved as u64
    }
}

/// Durable on the chains when it returns, or, of a small file, with the fsync.
async fn write(at: &Arc<Mounted>, file: &RingFile, asked: &Transfer) -> Result<u64> {
    at.lock_owners.check(&at.client, file.handle).await?;
    if asked.length == 0 {
        return Ok(0);
    }
    let inode = file.file.inode().0;
    // Whoever writes: that it is a user with privileges only the kernel would know.
    data::drop_privileges(at, &at.client.me(), &file.file).await?;
    let pages = u32::try_from(asked.length.div_ceil(4096)).unwrap_or(u32::MAX);
    let budget = at.rings.write_budget.clone();
    let _share = budget.acquire_many_owned(pages.min(limits::RING_WRITE_PAGES)).await;
    // A copy that the program cannot change under the checksums.
    let bytes = copied(at, asked);
    at.known.written(inode);
    let written = if file.appends {
        file.file.append_buf(bytes).await
    } else {
        file.file.write_buf_exact(asked.file_offset, bytes).await
    };
    // Also after a failure, which may have written something. The kernel must not show older bytes to who
    // reads after the completion; of an append only the library knows where it went.
    let (offset, length) = if file.appends { (0, 0) } else { (asked.file_offset, asked.length) };
    at.drop_some_pages(inode, offset, length).await;
    let written = written? as u64;
    if file.syncs {
        file.file.fsync().await?;
    }
    at.traffic.written_bytes.inc_by(written);
    Ok(written)
}

fn copied(at: &Mounted, asked: &Transfer) -> SharedBuf {
    let length = asked.length as usize;
    if let Some(mut buffer) = at.client.pool().try_get(length) {
        asked.region.memory.read(asked.region_offset, &mut buffer);
        return buffer.freeze();
    }
    // Waiting for the pool could wait for writes that wait for a server.
    let mut bytes = vec![0; length];
    asked.region.memory.read(asked.region_offset, &mut bytes);
    SharedBuf::from(bytes)
}
