//! Who turns a disk's ring: a thread of its own, or its callers.
//!
//! With a thread of its own a disk never waits for the daemon's other work, and costs two switches
//! between threads for each request. Where the daemon has one thread for everything else that is all
//! price: there (`disk_threads = false`) whoever asks submits, and completions come to the runtime by an
//! eventfd.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
};

use super::{Shared, ring::Ring};

#[derive(Debug)]
pub(super) enum Driver {
    Thread(Option<JoinHandle<()>>),
    Callers(Arc<Callers>, AbortHandle),
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
    pub(super) fn callers(file: File, depth: u32, shared: Arc<Shared>) -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let completed = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if completed < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let completed = File::from(unsafe { OwnedFd::from_raw_fd(completed) });
        let ring = Ring::of_all_threads(file, depth, shared.clone(), completed.as_raw_fd())?;
        let callers = Arc::new(Callers { ring: Mutex::new(ring), shared });
        // SAFETY: a file is its descriptor's owner and has the same one until it is dropped.
        let completed = unsafe { AsyncFd::register_with_interest(completed, Interest::READABLE) }?;
        let watcher = tokio::spawn(callers.clone().watch(completed));
        Ok(Self::Callers(callers, watcher.abort_handle()))
    }

    /// Something was put into the mailbox.
    pub(super) fn kick(&self, shared: &Shared) {
        match self {
            Self::Thread(_) => shared.mailbox.wake_sleeper(),
            Self::Callers(callers, _) => callers.turn(),
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
            Self::Callers(callers, watcher) => {
                watcher.abort();
                let mut ring = callers.ring.lock();
                while ring.turn(true) {}
            }
        }
    }
}

/// A ring that every thread may turn, one at a time.
pub(super) struct Callers {
    ring: Mutex<Ring>,
    shared: Arc<Shared>,
}

impl Callers {
    /// Takes in what was put into the mailbox. Nobody waits for another: who turns the ring meanwhile
    /// looks into the mailbox once more afterwards.
    fn turn(&self) {
        if let Some(ring) = self.ring.try_lock() {
            self.turn_on(ring);
        }
    }

    fn turn_on<'a>(&'a self, mut ring: MutexGuard<'a, Ring>) {
        loop {
            while ring.turn(false) && ring.has_more() {}
            drop(ring);
            if self.shared.mailbox.is_empty() {
                return;
            }
            ring = match self.ring.try_lock() {
                Some(ring) => ring,
                None => return,
            };
        }
    }

    /// Takes out what has completed.
    async fn watch(self: Arc<Self>, completed: AsyncFd<File>) {
        while let Ok(mut ready) = completed.readable().await {
            let mut count = [0; 8];
            let _ = ready.try_io(|file| file.get_ref().read(&mut count));
            self.turn_on(self.ring.lock());
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}
