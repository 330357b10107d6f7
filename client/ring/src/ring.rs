//! A connection to the mount's process, and the program's side of its ring.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
        socket_with,
    },
};

use crate::{
    Completion, Error, Op, Region, Result, RingFile,
    control::{self, ATTRIBUTE, Question, ring_bell},
    layout::{Line, Submission},
    limits::{ENTRIES_MAX, REGION_BYTES_MAX},
    mapping::{Mapping, RingMemory},
    queue::{Memory, ProgramSide},
};

/// How to make a ring.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operations that may be pushed and not reaped, at most 4096; rounded up to a power of two.
    pub entries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: 256 }
    }
}

/// A ring belongs to one thread at a time, and to the process that made it; a program may have several.
/// Dropped, the mount forgets its files and regions; reads under way are given up, writes go on to their
/// end.
#[derive(Debug)]
pub struct Ring {
    socket: OwnedFd,
    /// Rings when completions came, and hangs up when the mount is gone.
    bell: OwnedFd,
    side: ProgramSide<RingMemory>,
}

impl Ring {
    /// Connects to the process that serves the mount on which this path lies.
    pub fn connect(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let path = path.as_ref();
        let entries = options.entries.checked_next_power_of_two().unwrap_or(u32::MAX);
        if options.entries == 0 || entries > ENTRIES_MAX {
            let asked = options.entries;
            return Err(Error::Invalid(format!(
                "a ring has 1 to {ENTRIES_MAX} entries, not {asked}"
            )));
        }
        let socket = dial(path)?;
        let (memory, descriptor) =
            RingMemory::create(entries).map_err(Error::system("make the ring's memory"))?;
        let question = Question::Serve { entries };
        let (_, bell) = asked(socket.as_fd(), question, Some(descriptor.as_fd()))?;
        let bell = bell.ok_or_else(|| closed(Errno::PROTO))?;
        Ok(Self { socket, bell, side: ProgramSide::new(memory) })
    }

    /// New zeroed memory for operations, in bytes.
    pub fn region(&mut self, bytes: usize) -> Result<Region> {
        if bytes == 0 || bytes as u64 > REGION_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "a region has 1 to {REGION_BYTES_MAX} bytes, not {bytes}"
            )));
        }
        let (mapping, descriptor) =
            Mapping::create("ff2-region", bytes).map_err(Error::system("make a region"))?;
        let question = Question::AddRegion { bytes: bytes as u64 };
        let (number, _) = asked(self.socket.as_fd(), question, Some(descriptor.as_fd()))?;
        Ok(Region::new(mapping, number))
    }

    /// The mount forgets a region; operations under way keep it to their end. The memory stays the
    /// program's.
    pub fn remove_region(&mut self, region: &Region) -> Result<()> {
        asked(self.socket.as_fd(), Question::RemoveRegion { region: region.number() }, None)
            .map(drop)
    }

    /// Registers an open file of the mount. What the descriptor allows the ring may do; it may be closed
    /// afterwards.
    pub fn file(&mut self, file: impl AsFd) -> Result<RingFile> {
        let (number, _) = asked(self.socket.as_fd(), Question::AddFile, Some(file.as_fd()))?;
        Ok(RingFile(number))
    }

    /// The mount forgets a file; operations under way keep it to their end.
    pub fn remove_file(&mut self, file: RingFile) -> Result<()> {
        asked(self.socket.as_fd(), Question::RemoveFile { file: file.0 }, None).map(drop)
    }

    /// Puts an operation into the next batch.
    pub fn push(&mut self, op: Op) -> Result<()> {
        self.push_raw(op.submission())
    }

    pub(crate) fn push_raw(&mut self, submission: Submission) -> Result<()> {
        if self.side.push(submission) {
            return Ok(());
        }
        Err(Error::Full { entries: self.side.memory().entries() })
    }

    /// Starts what was pushed. A system call only if the mount sleeps.
    pub fn submit(&mut self) {
        if self.side.publish() {
            ring_bell(&self.bell);
        }
    }

    /// Operations that were pushed and not reaped.
    pub fn outstanding(&self) -> u32 {
        self.side.outstanding()
    }

    /// Submits what was pushed, waits for at least `min` completions (as many as are outstanding, if that
    /// is less) and returns all that there are. Fewer only when the time is over (`None` waits for ever) or the
    /// mount is gone.
    pub fn reap(&mut self, min: usize, timeout: Option<Duration>) -> Result<Vec<Completion>> {
        let mut found = Vec::new();
        self.reap_into(&mut found, usize::MAX, min, timeout)?;
        Ok(found)
    }

    /// As [`Ring::reap`]: adds at most `max` completions to `found` and returns how many.
    pub fn reap_into(
        &mut self,
        found: &mut Vec<Completion>,
        max: usize,
        min: usize,
        timeout: Option<Duration>,
    ) -> Result<usize> {
        self.submit();
        let min = min.min(max).min(self.side.outstanding() as usize);
        let before = found.len();
        let deadline = timeout.and_then(|time| Instant::now().checked_add(time));
        let mut is_over = false;
        loop {
            while found.len() - before < max {
                match self.side.reap() {
                    Ok(Some(completed)) => found.push(Completion(completed)),
                    Ok(None) => break,
                    Err(_) => return Err(closed(Errno::PROTO)),
                }
            }
            let count = found.len() - before;
            if count >= min || is_over {
                return Ok(count);
            }
            match self.wait(min - count, deadline) {
                // Also of a time that is over: some may have come, though fewer than were waited for.
                Ok(heard) => is_over = !heard,
                // What came before the end is not lost; the next call tells of it.
                Err(_) if count > 0 => return Ok(count),
                Err(gone) => return Err(gone),
            }
        }
    }

    /// For `poll(2)` and the like: after [`Ring::arm`] it becomes readable with the next completion, or when
    /// the mount is gone; then reap with `min` 1 and no time to wait.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Silences the bell and asks for it at the next completion. False: there is one already, reap first.
    pub fn arm(&mut self) -> bool {
        // Whether anything was heard does not matter, nor that the other side is gone: it stays readable.
        let _ = recv(&self.bell, &mut [0_u8; 64], RecvFlags::DONTWAIT);
        self.side.waits(1)
    }

    /// Sleeps until so many completions came. False: the time is over.
    fn wait(&mut self, wanted: usize, deadline: Option<Instant>) -> Result<bool> {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if !self.side.waits(wanted) {
            return Ok(true);
        }
        let heard = listen(self.bell.as_fd(), deadline);
        self.side.wakes();
        match heard {
            Ok(heard) => Ok(heard),
            // Its last completions may have come before it went.
            Err(_) if !self.side.waits(1) => Ok(true),
            Err(gone) => {
                self.side.wakes();
                let why = self.side.memory().line(Line::ClosedBy).load(Ordering::Acquire);
                let why = i32::try_from(why).ok().filter(|errno| *errno != 0);
                Err(why
                    .map_or_else(|| closed(gone), |errno| closed(Errno::from_raw_os_error(errno))))
            }
        }
    }
}

/// Waits for the bell and silences it. False: the time is over. Err: the other side is gone.
fn listen(bell: BorrowedFd<'_>, deadline: Option<Instant>) -> rustix::io::Result<bool> {
    let mut waiting = libc::pollfd { fd: bell.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, so that the last millisecond is not waited for in a loop.
        let left = left.map_or(-1, |left| {
            i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: one entry, which lives on this stack.
        match unsafe { libc::poll(&raw mut waiting, 1, left) } {
            0 => return Ok(false),
            1 => break,
            _ => match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                errno => return Err(Errno::from_raw_os_error(errno.unwrap_or(libc::EIO))),
            },
        }
    }
    match recv(bell, &mut [0_u8; 64], RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Err(Errno::CONNRESET),
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Finds the mount's socket and connects to it.
fn dial(path: &Path) -> Result<OwnedFd> {
    let not_served =
        |errno: Errno| Error::NotServed { path: path.to_owned(), source: errno.into() };
    let mut name = [0_u8; 128];
    let length = rustix::fs::getxattr(path, ATTRIBUTE, &mut name).map_err(not_served)?;
    let address = SocketAddrUnix::new_abstract_name(&name[..length]).map_err(not_served)?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(Error::system("make a socket"))?;
    connect(&socket, &address).map_err(|errno| Error::Refused {
        errno: errno.raw_os_error(),
        why: format!(
            "connect to the mount's process: {}; a container needs the network namespace of its \
             host for that",
            io::Error::from(errno)
        ),
    })?;
    Ok(socket)
}

/// The number of an answer that is no refusal, and its descriptor.
fn asked(
    socket: BorrowedFd<'_>,
    question: Question,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(u32, Option<OwnedFd>)> {
    let (answer, descriptor) = control::ask(socket, question, descriptor).map_err(closed)?;
    match answer.errno {
        0 => Ok((answer.number, descriptor)),
        errno => Err(Error::Refused { errno, why: answer.text }),
    }
}

fn closed(errno: Errno) -> Error {
    Error::Closed { why: errno.into() }
}
