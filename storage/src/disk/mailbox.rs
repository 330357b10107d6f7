//! The bounded way to who turns the ring.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ff2_fabric::buf::Buf;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{DiskError, ReadPart, WritePart, sleeper::Sleeper};
use crate::engine::limits::DISK_REQUESTS_MAX;

pub(super) type Answer<T> = oneshot::Sender<Result<T, DiskError>>;

/// What the thread is asked for. The permit lives as long as the request.
#[derive(Debug)]
pub(super) enum Request {
    Read { buf: Buf, parts: Vec<ReadPart>, done: Answer<Buf>, _permit: OwnedSemaphorePermit },
    Write { parts: Vec<WritePart>, done: Answer<()>, _permit: OwnedSemaphorePermit },
    Sync { done: Answer<()>, _permit: OwnedSemaphorePermit },
    Punch { position: u64, length: u64, done: Answer<()>, _permit: OwnedSemaphorePermit },
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// The thread is gone: nobody would take what is put here.
    abandoned: bool,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    permits: Arc<Semaphore>,
    queue: Mutex<Queue>,
    closed: AtomicBool,
    /// The thread: it wants the eventfd written.
    sleeper: Sleeper<AtomicBool>,
    wake: File,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let wake = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self {
            permits: Arc::new(Semaphore::new(DISK_REQUESTS_MAX)),
            queue: Mutex::default(),
            closed: AtomicBool::new(false),
            sleeper: Sleeper::new(AtomicBool::new(false)),
            wake,
        })
    }

    /// Waits for a permit, then hands the request over.
    pub(super) async fn put(
        &self,
        request: impl FnOnce(OwnedSemaphorePermit) -> Request,
    ) -> Result<(), DiskError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| DiskError::Closed)?;
        {
            let mut queue = self.queue.lock();
            if queue.abandoned {
                return Err(DiskError::Closed);
            }
            queue.requests.push_back(request(permit));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().requests.is_empty()
    }

    /// The thread takes what was put in before, if it sleeps.
    pub(super) fn wake_sleeper(&self) {
        if self.sleeper.must_wake() {
            self.wake_up();
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.permits.close();
        self.wake_up();
    }

    /// The thread ends early. Who waits hears that nobody will answer.
    pub(super) fn abandon(&self) {
        self.permits.close();
        let mut queue = self.queue.lock();
        queue.abandoned = true;
        queue.requests.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn take(&self) -> Option<Request> {
        self.queue.lock().requests.pop_front()
    }

    /// Called by the thread before it waits. False: something came in meanwhile.
    pub(super) fn may_sleep(&self) -> bool {
        self.sleeper.may_sleep(|| self.queue.lock().requests.is_empty())
    }

    /// Called by the thread when the eventfd is readable.
    pub(super) fn clear_wake(&self) {
        let mut count = [0; 8];
        let read = (&self.wake).read(&mut count);
        debug_assert!(read.is_ok(), "only the disk's thread reads it");
    }

    pub(super) fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    pub(super) fn waiting(&self) -> u64 {
        (DISK_REQUESTS_MAX - self.permits.available_permits()) as u64
    }

    fn wake_up(&self) {
        let written = (&self.wake).write(&1u64.to_ne_bytes());
        debug_assert!(written.is_ok(), "an eventfd takes 2^64 wake-ups");
    }
}
