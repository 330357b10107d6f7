//! Requests over io_uring: one command to the kernel both answers a request and waits for the next.
//!
//! The kernel has a queue of requests for each CPU, and each queue has entries: a header and a payload
//! that the kernel was told of when the entry was registered. A request arrives as the completion of
//! the entry's command, its parts lying in header and payload; the answer is put in their place and the
//! command is given again. An entry that is with us takes no other request. The kernel looks at the
//! requests for which it found no entry only when an answer arrives, not when an entry is added: so a
//! queue has all its entries from the start, and those that may stay long (waits for locks) are kept
//! from taking the last.
//!
//! The addresses never change, so the payload is the kernel's interface to the bytes of reads and
//! writes. It is a pool of exactly one buffer: an operation may keep a write's bytes, or read into the
//! pool, for as long as it likes, and the entry goes back to the kernel when the buffer has come home.
//! What a read found elsewhere (read ahead, in several pieces) is copied into the payload, which this
//! interface makes necessary.
//!
//! A ring belongs to one thread, which also runs the operations of its requests. Answers of other
//! threads wake it.

mod entry;
mod port;

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
};

use io_uring::{IoUring, cqueue, squeue::Entry128, types};
use tokio::io::{Interest, unix::AsyncFd};

use entry::{Commit, Entry};
pub(crate) use port::Place;
use port::Port;

use crate::{
    abi::{RingCommand, uring},
    answer::Answer,
    device::Device,
    limits::{BATCH, LATE_PAUSE, SUBMISSIONS, away_max},
    reply::{Errno, Reply},
    request::Decoded,
    session::{Filesystem, Session},
};

/// Run what the kernel deferred to this thread, without waiting.
const GET_EVENTS: u32 = 1;
/// Where the kernel's command structure has the number of parts of an entry, and their number.
const PARTS_AT: usize = 24;
const PARTS: u32 = 2;

/// The ring of one thread, for some of the kernel's queues.
pub(crate) struct Ring {
    ring: IoUring<Entry128, cqueue::Entry>,
    /// Signalled when the kernel has deferred work, or completions, for us.
    wake: AsyncFd<OwnedFd>,
    device: Arc<Device>,
    payload_bytes: usize,
    entries_of_queue: usize,
    entries: Vec<Entry>,
    queues: Vec<Queue>,
    port: Arc<Port>,
    /// Answers whose payload some operation still uses.
    late: Vec<(usize, Commit)>,
}

/// A queue of the kernel's.
#[derive(Debug)]
struct Queue {
    number: u16,
    /// Entries that the kernel does not have.
    away: usize,
}

impl Ring {
    /// On the thread, and in the runtime, that will run it.
    pub(crate) fn new(
        device: Arc<Device>,
        queues: &[u16],
        entries_of_queue: usize,
        payload_bytes: usize,
    ) -> io::Result<Self> {
        let entries = queues.len() * entries_of_queue;
        let completions = u32::try_from(entries).map_err(io::Error::other)?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(completions.max(2 * SUBMISSIONS))
            .build(SUBMISSIONS)?;
        // SAFETY: makes a descriptor, which is ours alone.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if wake < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let wake = unsafe { OwnedFd::from_raw_fd(wake) };
        ring.submitter().register_eventfd(wake.as_raw_fd())?;
        let queue = |number: &u16| Queue { number: *number, away: 0 };
        Ok(Self {
            ring,
            // SAFETY: owned, so that it stays open and the same.
            wake: unsafe { AsyncFd::register_with_interest(wake, Interest::READABLE) }?,
            device,
            payload_bytes,
            entries_of_queue,
            entries: Vec::with_capacity(entries),
            queues: queues.iter().map(queue).collect(),
            port: Arc::default(),
            late: Vec::new(),
        })
    }

    /// Gives the kernel the entries of each queue. When all queues of all rings have some, requests come
    /// here; so the first of each go first.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        for _ in 0..self.entries_of_queue {
            for place in 0..self.queues.len() {
                let entry = Entry::new(place, self.payload_bytes);
                let parts = entry.parts();
                let number = self.entries.len();
                self.entries.push(entry);
                self.push(number, uring::REGISTER, 0, Some(parts))?;
            }
        }
        self.turn()
    }

    /// Serves requests until the connection ends. In the context of the thread's runtime.
    pub(crate) async fn run<F: Filesystem>(mut self, session: &Session<F>) -> io::Result<()> {
        // Whether the kernel may have deferred work: it signals only the first of what we did not fetch.
        let mut signalled = true;
        loop {
            for answered in self.port.take() {
                let entry = &mut self.entries[answered.entry];
                let commit = entry.prepare(answered.reply);
                self.commit(answered.entry, commit)?;
            }
            for (entry, commit) in std::mem::take(&mut self.late) {
                self.commit(entry, commit)?;
            }
            if signalled || self.has_to_submit() {
                self.turn()?;
            }
            signalled = false;
            let mut arrived = 0;
            while arrived < BATCH
                && let Some(completion) = self.next_completion()
            {
                arrived += 1;
                if !self.arrive(session, &completion)? {
                    return Ok(());
                }
            }
            if arrived > 0 {
                // What was handed on gets its turn; its answers go out together.
                tokio::task::yield_now().await;
                continue;
            }
            let late = !self.late.is_empty();
            tokio::select! {
                biased;
                () = self.port.filled() => {}
                ready = self.wake.readable() => {
                    ready?.clear_ready();
                    signalled = true;
                }
                () = tokio::time::sleep(LATE_PAUSE), if late => {}
                () = session.ended() => return Ok(()),
            }
        }
    }

    /// Also when completions found no room, which the kernel then has to put there.
    fn has_to_submit(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.cq_overflow()
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Submits what was prepared, and lets the kernel do what it deferred.
    fn turn(&mut self) -> io::Result<()> {
        loop {
            let mut submission = self.ring.submission();
            submission.sync();
            let count = u32::try_from(submission.len()).expect("below the size of the queue");
            drop(submission);
            // SAFETY: no argument; the entries that are submitted point to memory that `self` keeps.
            let entered = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(count, 0, GET_EVENTS, None)
            };
            match entered {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
                Ok(submitted) if submitted < count as usize => {}
                Ok(_) => return Ok(()),
            }
        }
    }

    /// An entry came back with a request. False: the connection ended.
    fn arrive<F: Filesystem>(
        &mut self,
        session: &Session<F>,
        completion: &cqueue::Entry,
    ) -> io::Result<bool> {
        let number = usize::try_from(completion.user_data()).expect("an index of ours");
        let queue = self.entries[number].queue;
        self.queues[queue].away += 1;
        match completion.result() {
            0 => {}
            error if [-libc::ENOTCONN, -libc::ECONNABORTED, -libc::ECANCELED].contains(&error) => {
                return Ok(false);
            }
            // Refused: the kernel goes on with the entries that it has, without any over /dev/fuse.
            error => {
                let error = io::Error::from_raw_os_error(-error);
                tracing::warn!(%error, queue = self.queues[queue].number, "an entry is not taken");
                return Ok(true);
            }
        }
        let entry = &mut self.entries[number];
        let unique = entry.unique();
        let place = Place::new(self.port.clone(), number, entry.room());
        let answer = Answer::by_ring(place, unique);
        match entry.take() {
            Ok((_, Decoded::Operation(operation)))
                if operation.may_stay() && self.is_crowded(queue) =>
            {
                answer.send(Reply::error(Errno(libc::ENOLCK)));
            }
            Ok((header, decoded)) => session.hand_on(&header, decoded, answer),
            // Dropped, the answer is an error.
            Err(malformed) => tracing::error!(%malformed, "a request is not understood"),
        }
        Ok(true)
    }

    /// Whether so many requests are here that no more should come to stay.
    fn is_crowded(&self, place: usize) -> bool {
        self.queues[place].away > away_max(self.entries_of_queue)
    }

    fn commit(&mut self, number: usize, commit: Commit) -> io::Result<()> {
        let entry = &mut self.entries[number];
        if let Err(commit) = entry.put(commit) {
            self.late.push((number, commit));
            return Ok(());
        }
        let commit_id = entry.commit_id();
        self.queues[entry.queue].away -= 1;
        self.push(number, uring::COMMIT_AND_FETCH, commit_id, None)
    }

    /// Prepares a command; `parts`: the address of an array of header and payload.
    fn push(
        &mut self,
        number: usize,
        command: u32,
        commit_id: u64,
        parts: Option<u64>,
    ) -> io::Result<()> {
        let queue = self.queues[self.entries[number].queue].number;
        let said = RingCommand { flags: 0, commit_id, queue, padding: [0; 6] };
        let mut bytes = [0; 80];
        bytes[..size_of::<RingCommand>()].copy_from_slice(zerocopy::IntoBytes::as_bytes(&said));
        let fd = types::Fd(self.device.as_raw_fd());
        let built = io_uring::opcode::UringCmd80::new(fd, command).cmd(bytes).addr(parts).build();
        let mut built = built.user_data(number as u64);
        if parts.is_some() {
            set_parts(&mut built);
        }
        if self.ring.submission().is_full() {
            self.turn()?;
        }
        // SAFETY: the command points to the entry's array, header and payload, which live as long as the
        // ring does, and which the entry leaves alone until the command completes.
        let pushed = unsafe { self.ring.submission().push(&built) };
        pushed.map_err(|_| io::Error::other("the submission queue stays full"))
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("queues", &self.queues).finish_non_exhaustive()
    }
}

/// The crate has no name for this field of the command.
fn set_parts(command: &mut Entry128) {
    const { assert!(size_of::<Entry128>() == 128 && align_of::<Entry128>() >= align_of::<u32>()) };
    let start: *mut u8 = std::ptr::from_mut(command).cast();
    // SAFETY: within the 128 bytes of `struct io_uring_sqe`, whose `len` lies there, aligned.
    unsafe { start.add(PARTS_AT).cast::<u32>().write(PARTS) };
}
