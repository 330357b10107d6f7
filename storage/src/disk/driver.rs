//! Who turns a disk's ring: a thread of its own, or its callers.
//!
//! With a thread of its own a disk never waits for the daemon's other work, and costs two switches
//! between threads for each request. Where the daemon has one thread for everything else that is all
//! price: there (`disk_threads = false`) a task of the runtime turns the ring. It comes after the tasks that
//! were ready before the first request, so all that they ask for goes to the kernel in one call, and to the
//! device with one notice; completions come to it by an eventfd.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use parking_lot::Mutex;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    task::AbortHandle,
};

use super::{Shared, ring::Ring};

#[derive(Debug)]
pub(super) enum Driver {
    Thread(Option<JoinHandle<()>>),
    Task(Arc<Turned>, AbortHandle),
}

impl Driver {
    /// Starts the thread; returns once the ring works, or with the reason why it does not.
    pub(super) fn thread(file: File, depth: u32, shared: Arc<Shared>) -> io::Result<Self> {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread =
            Builder::new().name("ff2-disk".into()).spawn(move || {
                match Ring::of_one_thread(file, depth, shared) {
                    Ok(mut ring) => {
                        let _ = ready.send(Ok(()));
                        while ring.turn(true) {}
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self::Thread(Some(thread))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the disk's thread ended at its start")),
        }
    }

    /// Needs a tokio runtime around it.
    pub(super) fn task(file: File, depth: u32, shared: Arc<Shared>) -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let completed = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if completed < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let completed = File::from(unsafe { OwnedFd::from_raw_fd(completed) });
        let ring = Ring::of_all_threads(file, depth, shared.clone(), completed.as_raw_fd())?;
        let turned = Arc::new(Turned { ring: Mutex::new(ring), asked: Notify::new(), shared });
        // SAFETY: a file is its descriptor's owner and has the same one until it is dropped.
        let completed = unsafe { AsyncFd::register_with_interest(completed, Interest::READABLE) }?;
        let turner = tokio::spawn(turned.clone().run(completed));
        Ok(Self::Task(turned, turner.abort_handle()))
    }

    /// Something was put into the mailbox.
    pub(super) fn kick(&self, shared: &Shared) {
        match self {
            Self::Thread(_) => shared.mailbox.wake_sleeper(),
            Self::Task(turned, _) => turned.asked.notify_one(),
        }
    }
}

impl Drop for Driver {
    /// After the mailbox was closed: returns when nothing is in progress.
    fn drop(&mut self) {
        match self {
            Self::Thread(thread) => {
                let _ = thread.take().expect("taken here only").join();
            }
            Self::Task(turned, turner) => {
                turner.abort();
                let mut ring = turned.ring.lock();
                while ring.turn(true) {}
            }
        }
    }
}

/// A ring that one task turns, and who ends the disk after it.
pub(super) struct Turned {
    ring: Mutex<Ring>,
    asked: Notify,
    shared: Arc<Shared>,
}

impl Turned {
    /// Submits what was asked for, and takes out what has completed.
    async fn run(self: Arc<Self>, completed: AsyncFd<File>) {
        loop {
            tokio::select! {
                // Who is woken runs next; the others that are ready come before this returns.
                () = self.asked.notified() => tokio::task::yield_now().await,
                ready = completed.readable() => {
                    let Ok(mut ready) = ready else { return };
                    // Each notice is an edge: what was counted so far need not be read to hear of the next one.
                    ready.clear_ready();
                }
            }
            self.turn();
        }
    }

    fn turn(&self) {
        let mut ring = self.ring.lock();
        while ring.turn(false) && (ring.has_more() || !self.shared.mailbox.is_empty()) {}
    }
}

impl fmt::Debug for Turned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turned")
    }
}
