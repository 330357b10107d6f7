//! What programs ask beside their rings. On a thread of the connection, because looking at a descriptor
//! of somebody else's file system, and closing it, may take for ever: that is the program's own loss.

use std::{
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream,
    sync::Arc,
};

use ff2_ring::{
    control::{self, Answer, Question, next_question},
    limits::{ENTRIES_MAX, FILES_MAX, REGION_BYTES_MAX, REGIONS_MAX},
    mapping::{Mapping, RingMemory},
};
use rustix::net::{Shutdown, shutdown};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    file::{self, RingFile},
    quota::Share,
    serve,
    table::Table,
};
use crate::mounted::Mounted;

/// A program that connected.
pub(super) struct Connection {
    pub(super) at: Arc<Mounted>,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) uid: u32,
    pub(super) device: (u32, u32),
    /// Where its operations run.
    pub(super) executor: Handle,
}

/// What the thread of a connection and its task share.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) files: Table<RingFile>,
    pub(super) regions: Table<Region>,
    pub(super) stop: CancellationToken,
    /// Shut down when the task ends, which ends the thread.
    socket: Arc<OwnedFd>,
    _share: Share,
}

/// Memory that operations move bytes to and from.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) memory: Mapping,
    _share: Share,
}

impl Ring {
    /// The task ended.
    pub(super) fn ended(&self) {
        self.files.close();
        self.regions.close();
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }
}

/// Ends the task with the thread.
struct Ends(Arc<Ring>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

/// Says why a connection gets no ring.
pub(super) fn refuse(socket: &OwnedFd, errno: i32, why: String) -> rustix::io::Result<()> {
    control::answer(socket.as_fd(), &Answer::refusal(errno, why), None)
}

/// Answers until the program is gone.
pub(super) fn serve(connection: Connection, share: Share) {
    // Who lets go of a file last closes it, which needs a runtime.
    let _entered = connection.executor.enter();
    let socket = connection.socket.clone();
    let mut ring = None;
    let mut share = Some(share);
    while let Ok(Some((question, descriptors))) = next_question(socket.as_fd()) {
        let descriptor = descriptors.first();
        let outcome = match (&ring, question) {
            (_, Err(why)) => Err(Answer::refusal(libc::EPROTO, why)),
            (None, Ok(Question::Serve { entries })) => {
                match begin(&connection, entries, descriptor, &mut share) {
                    Ok((begun, bell)) => {
                        ring = Some(Ends(begun));
                        Ok((0, Some(bell)))
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            (Some(ring), Ok(question)) => {
                asked(&connection, &ring.0, question, descriptor).map(|number| (number, None))
            }
            (None, Ok(_)) => Err(Answer::refusal(libc::EPROTO, "the ring itself comes first")),
        };
        let (answer, bell) = match outcome {
            Ok((number, bell)) => (Answer::done(number), bell),
            Err(refusal) => (refusal, None),
        };
        let bell = bell.as_ref().map(AsFd::as_fd);
        if control::answer(socket.as_fd(), &answer, bell).is_err() {
            return;
        }
        // Here, after the answer, descriptors are closed.
    }
}

/// Starts to serve a ring; the program gets the other end of its bell.
fn begin(
    connection: &Connection,
    entries: u32,
    memory: Option<&OwnedFd>,
    share: &mut Option<Share>,
) -> Result<(Arc<Ring>, UnixStream), Answer> {
    let Connection { at, socket, executor, .. } = connection;
    if !entries.is_power_of_two() || entries > ENTRIES_MAX {
        let why =
            format!("a ring has a power of two of entries, up to {ENTRIES_MAX}, not {entries}");
        return Err(Answer::refusal(libc::EINVAL, why));
    }
    let memory = RingMemory::of_peer(sent(memory)?.as_fd(), entries).map_err(unusable)?;
    let (ours, theirs) = UnixStream::pair().map_err(unusable)?;
    ours.set_nonblocking(true).map_err(unusable)?;
    let share = share.take().ok_or_else(|| Answer::refusal(libc::EPROTO, "there is a ring"))?;
    let ring = Arc::new(Ring {
        files: Table::new(FILES_MAX),
        regions: Table::new(REGIONS_MAX),
        stop: at.rings.stop.child_token(),
        socket: socket.clone(),
        _share: share,
    });
    at.rings.served.spawn_on(serve::serve(at.clone(), ring.clone(), memory, ours), executor);
    Ok((ring, theirs))
}

fn asked(
    connection: &Connection,
    ring: &Ring,
    question: Question,
    descriptor: Option<&OwnedFd>,
) -> Result<u32, Answer> {
    let at = &connection.at;
    match question {
        Question::Serve { .. } => Err(Answer::refusal(libc::EPROTO, "a connection has one ring")),
        Question::AddRegion { bytes } => {
            if bytes > REGION_BYTES_MAX {
                let why = format!("a region has at most {REGION_BYTES_MAX} bytes, not {bytes}");
                return Err(Answer::refusal(libc::EINVAL, why));
            }
            let share = at.rings.quotas.region(connection.uid, bytes);
            let share = share.map_err(|why| Answer::refusal(libc::ENOMEM, why))?;
            let memory = Mapping::of_peer(sent(descriptor)?.as_fd(), bytes).map_err(unusable)?;
            let added = ring.regions.insert(Region { memory, _share: share });
            added.ok_or_else(|| full("regions", REGIONS_MAX))
        }
        Question::RemoveRegion { region } => removed(ring.regions.remove(region), "region", region),
        Question::AddFile => {
            let file = file::find(at, connection.device, sent(descriptor)?.as_fd())?;
            ring.files.insert(file).ok_or_else(|| full("files", FILES_MAX))
        }
        Question::RemoveFile { file } => removed(ring.files.remove(file), "file", file),
    }
}

fn sent(descriptor: Option<&OwnedFd>) -> Result<&OwnedFd, Answer> {
    descriptor
        .ok_or_else(|| Answer::refusal(libc::EBADF, "no open descriptor came with the question"))
}

fn removed(was_there: bool, what: &str, number: u32) -> Result<u32, Answer> {
    let missing = || Answer::refusal(libc::ENOENT, format!("the ring has no {what} {number}"));
    was_there.then_some(number).ok_or_else(missing)
}

fn full(what: &str, most: usize) -> Answer {
    Answer::refusal(libc::ENFILE, format!("a ring has at most {most} {what}: remove some"))
}

fn unusable(error: std::io::Error) -> Answer {
    Answer::refusal(error.raw_os_error().unwrap_or(libc::EINVAL), error.to_string())
}
