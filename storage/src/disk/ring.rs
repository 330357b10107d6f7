//! A disk's ring, and what is in progress on it: a machine that somebody has to turn.

use std::{
    collections::VecDeque,
    fs::File,
    io, mem,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ff2_fabric::buf::{Buf, Slab};
use io_uring::{IoUring, opcode, squeue, types};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    DiskError, ReadPart, Shared, WritePart,
    mailbox::{Answer, Request},
    registered::Registered,
};

const DATA: types::Fixed = types::Fixed(0);
const WAKE: types::Fixed = types::Fixed(1);
/// `user_data` of the entries that belong to no job.
const WAKE_TAG: u64 = u64::MAX;
const SYNC_TAG: u64 = u64::MAX - 1;
/// Pause before the kernel is asked again when it was short of something.
const SHORT_PAUSE: Duration = Duration::from_millis(1);
/// Entries kept free for the wake-up and the sync.
const SPARE_ENTRIES: u32 = 2;

/// A request in progress.
struct Job {
    began: Instant,
    work: Work,
    parts_left: usize,
    error: Option<DiskError>,
}

enum Work {
    Read { buf: Buf, parts: Vec<ReadPart>, done: Answer<Buf> },
    Write { parts: Vec<WritePart>, done: Answer<()> },
    Punch { position: u64, length: u64, done: Answer<()> },
}

/// A part to submit: whole, or what a short transfer left of it.
#[derive(Clone, Copy)]
struct Entry {
    job: u32,
    part: u32,
    skip: usize,
}

pub(super) struct Ring {
    ring: IoUring,
    registered: Registered,
    shared: Arc<Shared>,
    _file: File,
    depth: u32,
    jobs: Vec<Option<(Job, OwnedSemaphorePermit)>>,
    vacant: Vec<u32>,
    queue: VecDeque<Entry>,
    /// By `user_data`: the part that is in the kernel.
    in_kernel: Vec<Option<Entry>>,
    free_slots: Vec<u32>,
    /// Waiting for the next sync, and for the one in progress.
    sync_next: Vec<(Answer<()>, OwnedSemaphorePermit)>,
    sync_now: Vec<(Answer<()>, OwnedSemaphorePermit)>,
    sync_began: Instant,
    wake_armed: bool,
    /// Whoever turns it now finds that there is nothing to turn.
    lost: bool,
}

/// Fewest interrupts: the ring belongs to the thread that builds it (`SINGLE_ISSUER`), and completions
/// are run when that thread waits (`DEFER_TASKRUN`). Kernels before 6.1 refuse both.
fn build_for_one_thread(entries: u32) -> io::Result<IoUring> {
    let modern = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
    modern.or_else(|_| IoUring::new(entries))
}

/// Completions are run when the thread that submitted enters the kernel for whatever reason. Kernels
/// before 5.19 interrupt it.
fn build_for_all_threads(entries: u32) -> io::Result<IoUring> {
    let modern = IoUring::builder().setup_coop_taskrun().build(entries);
    modern.or_else(|_| IoUring::new(entries))
}

/// Entries of a ring for so many requests.
fn entries(depth: u32) -> u32 {
    (depth + SPARE_ENTRIES).next_power_of_two()
}

impl Ring {
    /// To be turned by the calling thread alone.
    pub(super) fn of_one_thread(file: File, depth: u32, shared: Arc<Shared>) -> io::Result<Self> {
        Self::new(build_for_one_thread(entries(depth))?, file, depth, shared)
    }

    /// To be turned by any thread; `completed` is written when there is something to take out.
    pub(super) fn of_all_threads(
        file: File,
        depth: u32,
        shared: Arc<Shared>,
        completed: RawFd,
    ) -> io::Result<Self> {
        let ring = build_for_all_threads(entries(depth))?;
        ring.submitter().register_eventfd(completed)?;
        Self::new(ring, file, depth, shared)
    }

    fn new(ring: IoUring, file: File, depth: u32, shared: Arc<Shared>) -> io::Result<Self> {
        ring.submitter().register_files(&[file.as_raw_fd(), shared.mailbox.wake_fd()])?;
        let registered = Registered::new(&ring.submitter());
        Ok(Self {
            ring,
            registered,
            shared,
            _file: file,
            depth,
            jobs: Vec::new(),
            vacant: Vec::new(),
            queue: VecDeque::new(),
            in_kernel: vec![None; depth as usize],
            free_slots: (0..depth).rev().collect(),
            sync_next: Vec::new(),
            sync_now: Vec::new(),
            sync_began: Instant::now(),
            wake_armed: false,
            lost: false,
        })
    }

    /// Takes in what is asked for, gives it to the kernel, and takes out what is done; `sleep`: when
    /// something is done or asked for. False from when the ring is lost, or is closed and has nothing
    /// in progress any more.
    pub(super) fn turn(&mut self, sleep: bool) -> bool {
        if self.lost {
            return false;
        }
        while let Some(request) = self.shared.mailbox.take() {
            self.accept(request);
        }
        if sleep {
            self.arm_wake();
        }
        self.submit_entries();
        self.submit_sync();
        self.shared.oldest.set(self.oldest());
        if !self.is_busy() && self.shared.mailbox.is_closed() {
            // Nothing is in the kernel now but the poll for wake-ups, which points to no memory.
            return false;
        }
        // Unless a request came in meanwhile.
        let want = usize::from(sleep && self.shared.mailbox.may_sleep());
        if want > 0 || !self.ring.submission().is_empty() {
            match self.ring.submit_and_wait(want).map_err(|error| (passes(&error), error)) {
                Ok(_) | Err((Some(Duration::ZERO), _)) => {}
                Err((Some(pause), _)) => std::thread::sleep(pause),
                Err((None, error)) => {
                    self.give_up(&error);
                    return false;
                }
            }
        }
        self.reap();
        self.shared.oldest.set(self.oldest());
        true
    }

    fn is_busy(&self) -> bool {
        self.free_slots.len() < self.depth as usize || !self.sync_now.is_empty()
    }

    /// Whether another turn would give something to the kernel.
    pub(super) fn has_more(&mut self) -> bool {
        let entry = !self.queue.is_empty() && !self.free_slots.is_empty();
        let sync = !self.sync_next.is_empty() && self.sync_now.is_empty();
        entry || sync || !self.ring.submission().is_empty()
    }

    /// When the oldest request in progress began.
    fn oldest(&self) -> Option<Instant> {
        let jobs = self.jobs.iter().flatten().map(|(job, _)| job.began);
        let sync = (!self.sync_now.is_empty()).then_some(self.sync_began);
        jobs.chain(sync).min()
    }

    /// The ring is lost, and with it this disk alone: everybody who waits, and who comes later,
    /// hears it.
    fn give_up(&mut self, error: &io::Error) {
        self.shared.fail(error);
        self.lost = true;
        let lost = DiskError::Failed(error.raw_os_error().unwrap_or(libc::EIO));
        for slot in self.in_kernel.iter().flatten() {
            // The kernel may still write to this memory: it is never given back.
            mem::forget(self.jobs[slot.job as usize].take());
        }
        for (job, _permit) in self.jobs.drain(..).flatten() {
            job.work.answer(Err(lost));
        }
        for (done, _permit) in self.sync_now.drain(..).chain(self.sync_next.drain(..)) {
            let _ = done.send(Err(lost));
        }
        self.shared.oldest.set(None);
        self.shared.mailbox.abandon();
    }

    fn accept(&mut self, request: Request) {
        let (work, parts, permit) = match request {
            Request::Sync { done, _permit } => {
                self.sync_next.push((done, _permit));
                return;
            }
            Request::Read { buf, parts, done, _permit } => {
                let count = parts.len();
                (Work::Read { buf, parts, done }, count, _permit)
            }
            Request::Write { parts, done, _permit } => {
                let count = parts.len();
                (Work::Write { parts, done }, count, _permit)
            }
            Request::Punch { position, length, done, _permit } => {
                (Work::Punch { position, length, done }, 1, _permit)
            }
        };
        let job = (Job { began: Instant::now(), work, parts_left: parts, error: None }, permit);
        let index = match self.vacant.pop() {
            Some(index) => {
                self.jobs[index as usize] = Some(job);
                index
            }
            None => {
                self.jobs.push(Some(job));
                (self.jobs.len() - 1) as u32
            }
        };
        self.queue.extend((0..parts as u32).map(|part| Entry { job: index, part, skip: 0 }));
    }

    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        let poll = opcode::PollAdd::new(WAKE, libc::POLLIN as u32).build().user_data(WAKE_TAG);
        // SAFETY: a poll points to no memory.
        self.wake_armed = unsafe { push(&mut self.ring, &poll) };
    }

    fn submit_entries(&mut self) {
        while let Some(entry) = self.queue.front().copied() {
            let Some(slot) = self.free_slots.pop() else { break };
            let sqe = self.sqe(entry).user_data(slot.into());
            // SAFETY: the job owns the memory that the entry points to and stays in `jobs`, unmoved
            // on the heap, until the entry's completion has been reaped.
            if !unsafe { push(&mut self.ring, &sqe) } {
                self.free_slots.push(slot);
                break;
            }
            self.in_kernel[slot as usize] = Some(entry);
            self.queue.pop_front();
        }
        let busy = self.depth as usize - self.free_slots.len();
        self.shared.counters.in_progress.store(busy as u64, Ordering::Relaxed);
    }

    fn sqe(&mut self, entry: Entry) -> squeue::Entry {
        let (job, _) = self.jobs[entry.job as usize].as_mut().expect("queued parts have a job");
        let skip = entry.skip;
        let submitter = self.ring.submitter();
        let mut place = |slab: Option<&Arc<Slab>>| {
            let place = slab.and_then(|slab| self.registered.place(&submitter, slab));
            let fixed = u64::from(place.is_some());
            self.shared.counters.registered.fetch_add(fixed, Ordering::Relaxed);
            place
        };
        match &mut job.work {
            Work::Read { buf, parts, .. } => {
                let part = parts[entry.part as usize];
                let position = part.position + skip as u64;
                let place = place(buf.slab());
                let target = &mut buf[part.at + skip..part.at + part.length];
                let (memory, length) = (target.as_mut_ptr(), target.len() as u32);
                match place {
                    Some(place) => {
                        opcode::ReadFixed::new(DATA, memory, length, place).offset(position).build()
                    }
                    None => opcode::Read::new(DATA, memory, length).offset(position).build(),
                }
            }
            Work::Write { parts, .. } => {
                let part = &parts[entry.part as usize];
                let position = part.position + skip as u64;
                let source = &part.bytes[skip..];
                let (memory, length) = (source.as_ptr(), source.len() as u32);
                match place(part.bytes.slab()) {
                    Some(place) => opcode::WriteFixed::new(DATA, memory, length, place)
                        .offset(position)
                        .build(),
                    None => opcode::Write::new(DATA, memory, length).offset(position).build(),
                }
            }
            Work::Punch { position, length, .. } => opcode::Fallocate::new(DATA, *length)
                .offset(*position)
                .mode(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
                .build(),
        }
    }

    /// One sync at a time; those who ask meanwhile share the next one.
    fn submit_sync(&mut self) {
        if !self.sync_now.is_empty() || self.sync_next.is_empty() {
            return;
        }
        let sync = opcode::Fsync::new(DATA).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: a sync points to no memory.
        if unsafe { push(&mut self.ring, &sync.user_data(SYNC_TAG)) } {
            self.sync_now = mem::take(&mut self.sync_next);
            self.sync_began = Instant::now();
            self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reap(&mut self) {
        let done: Vec<(u64, i32)> =
            self.ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        for (tag, result) in done {
            match tag {
                WAKE_TAG => {
                    self.shared.mailbox.clear_wake();
                    self.wake_armed = false;
                }
                SYNC_TAG => self.finish_sync(result),
                slot => self.finish_part(slot as u32, result),
            }
        }
    }

    fn finish_sync(&mut self, result: i32) {
        if matches!(-result, libc::EINTR | libc::EAGAIN) {
            let waiting = mem::take(&mut self.sync_now);
            self.sync_next.extend(waiting);
            return;
        }
        let answer = if result < 0 { Err(self.failure(-result, true)) } else { Ok(()) };
        for (done, _permit) in mem::take(&mut self.sync_now) {
            let _ = done.send(answer);
        }
    }

    fn finish_part(&mut self, slot: u32, result: i32) {
        let entry = self.in_kernel[slot as usize].take().expect("a completion has its entry");
        self.free_slots.push(slot);
        if matches!(-result, libc::EINTR | libc::EAGAIN) {
            self.queue.push_back(entry);
            return;
        }
        let (job, _) = self.jobs[entry.job as usize].as_ref().expect("its parts are not done");
        let (length, changes) = match &job.work {
            Work::Read { parts, .. } => (parts[entry.part as usize].length, false),
            Work::Write { parts, .. } => (parts[entry.part as usize].bytes.len(), true),
            Work::Punch { .. } => (0, false),
        };
        let moved = entry.skip + usize::try_from(result).unwrap_or(0);
        let short = result > 0 && moved < length;
        if short && (result as usize).is_multiple_of(super::ALIGNMENT) {
            self.queue.push_back(Entry { skip: moved, ..entry });
            return;
        }
        // An end of the file before the end of the part is a file that somebody cut.
        let error = if result < 0 {
            Some(self.failure(-result, changes))
        } else if moved < length {
            Some(self.failure(libc::EIO, changes))
        } else {
            None
        };
        let (job, _) = self.jobs[entry.job as usize].as_mut().expect("its parts are not done");
        job.error = job.error.or(error);
        job.parts_left -= 1;
        if job.parts_left == 0 {
            self.finish_job(entry.job);
        }
    }

    fn finish_job(&mut self, index: u32) {
        let (job, _permit) = self.jobs[index as usize].take().expect("it was just looked at");
        self.vacant.push(index);
        let counters = &self.shared.counters;
        match &job.work {
            Work::Read { parts, .. } => {
                let bytes: usize = parts.iter().map(|part| part.length).sum();
                counters.reads.fetch_add(parts.len() as u64, Ordering::Relaxed);
                counters.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Work::Write { parts, .. } => {
                let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
                counters.writes.fetch_add(parts.len() as u64, Ordering::Relaxed);
                counters.write_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Work::Punch { .. } => {
                counters.punches.fetch_add(1, Ordering::Relaxed);
            }
        }
        job.work.answer(job.error.map_or(Ok(()), Err));
    }

    /// Counts an error; one that leaves the content unknown fails the disk for good.
    fn failure(&self, errno: i32, changes: bool) -> DiskError {
        self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        if matches!(errno, libc::ENOSPC | libc::EDQUOT) {
            return DiskError::NoSpace;
        }
        if changes {
            self.shared.fail(&io::Error::from_raw_os_error(errno));
        }
        DiskError::Failed(errno)
    }
}

impl Work {
    fn answer(self, outcome: Result<(), DiskError>) {
        // Whoever asked may have gone.
        match self {
            Self::Read { buf, done, .. } => {
                let _ = done.send(outcome.map(|()| buf));
            }
            Self::Write { parts, done } => {
                // First, so that who hears the answer has the memory for itself again.
                drop(parts);
                let _ = done.send(outcome);
            }
            Self::Punch { done, .. } => {
                let _ = done.send(outcome);
            }
        }
    }
}

/// How long to pause when the ring could not be entered for a reason that passes; `None`: for good.
fn passes(error: &io::Error) -> Option<Duration> {
    match error.raw_os_error()? {
        libc::EINTR | libc::EBUSY => Some(Duration::ZERO),
        libc::EAGAIN | libc::ENOMEM => Some(SHORT_PAUSE),
        _ => None,
    }
}

/// Adds an entry; false if the submission queue is full.
///
/// # Safety
/// The memory that the entry points to must stay valid until its completion.
unsafe fn push(ring: &mut IoUring, entry: &squeue::Entry) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ring.submission().push(entry) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SECOND_LOOK;
    use tokio::sync::oneshot::{Receiver, channel};

    #[test]
    fn what_passes_is_tried_again() {
        let rows = [
            (libc::EINTR, Some(Duration::ZERO)),
            (libc::EBUSY, Some(Duration::ZERO)),
            (libc::EAGAIN, Some(SHORT_PAUSE)),
            (libc::ENOMEM, Some(SHORT_PAUSE)),
            (libc::EBADF, None),
            (libc::EFAULT, None),
        ];
        for (errno, pause) in rows {
            assert_eq!(passes(&io::Error::from_raw_os_error(errno)), pause, "{errno}");
        }
    }

    async fn put(shared: &Shared) -> Result<Receiver<Result<(), DiskError>>, DiskError> {
        let (done, answer) = channel();
        shared.mailbox.put(|permit| Request::Sync { done, _permit: permit }).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_lost_ring_is_told_to_all_who_wait_and_who_come() {
        let file = tempfile::tempfile().unwrap();
        let shared = Arc::new(Shared::new().unwrap());
        let mut ring = Ring::of_one_thread(file, 4, shared.clone()).unwrap();
        let taken = put(&shared).await.unwrap();
        let request = shared.mailbox.take().unwrap();
        ring.accept(request);
        let queued = put(&shared).await.unwrap();
        ring.give_up(&io::Error::from_raw_os_error(libc::EBADF));
        assert_eq!(taken.await, Ok(Err(DiskError::Failed(libc::EBADF))));
        assert!(queued.await.is_err());
        assert_eq!(put(&shared).await.unwrap_err(), DiskError::Closed);
        assert!(!ring.turn(true) && !ring.turn(false), "nobody can turn it any more");
        assert!(shared.is_failed(Duration::MAX));
    }

    #[test]
    fn a_disk_that_keeps_a_request_is_failed() {
        let shared = Shared::new().unwrap();
        let patience = Duration::from_millis(20);
        shared.oldest.set(Some(Instant::now()));
        assert!(!shared.is_failed(Duration::from_secs(60)));
        std::thread::sleep(2 * patience);
        shared.oldest.set(None);
        assert!(!shared.is_failed(patience), "it was answered");
        shared.oldest.set(Some(Instant::now()));
        std::thread::sleep(2 * patience);
        assert!(!shared.is_failed(patience), "the whole process may have stood still");
        std::thread::sleep(SECOND_LOOK + patience);
        assert!(shared.is_failed(patience));
    }
}
