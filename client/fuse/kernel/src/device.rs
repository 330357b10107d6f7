//! Requests over `/dev/fuse`: one read takes a request, one write answers it.
//!
//! A message is read into two places at once: what leads a write goes to a small array, the written
//! bytes to a page-aligned buffer, which the write then keeps. Answers are gathered by the kernel from
//! where their pieces lie.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno as Failure,
};
use tokio::io::{Interest, unix::AsyncFd};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    abi::{self, InHeader, OutHeader, opcode},
    answer::Answer,
    limits::BATCH,
    memory::{Place, WriteMemory},
    mount,
    reply::Reply,
    request::{self, Malformed, Operation},
    session::{Filesystem, Session},
};

/// What leads the bytes of a write.
const LEAD: usize = size_of::<InHeader>() + size_of::<abi::WriteIn>();

/// The end of the connection is an error to be read.
const WATCHED: Interest = Interest::READABLE.add(Interest::ERROR);

/// One opening of the connection; a request is answered through the one that read it.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
}

impl Device {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another opening of the same connection, with a queue of its own.
    pub(crate) fn another(&self) -> io::Result<Self> {
        mount::clone_device(&self.fd).map(Self::new)
    }

    pub(crate) fn read_whole(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Err(Failure::INTR | Failure::NOENT) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    pub(crate) fn answer(&self, unique: u64, reply: &Reply) {
        match self.send(reply.error, unique, &reply.head, &reply.pieces) {
            Ok(()) => {}
            // The kernel gave the request up: its connection ended.
            Err(Failure::NOENT | Failure::NODEV | Failure::NOTCONN) => {}
            Err(error) => tracing::warn!(unique, %error, "the kernel refuses an answer"),
        }
    }

    /// Tells the kernel something that it did not ask for.
    pub(crate) fn notify(&self, code: i32, parts: &[&[u8]]) -> io::Result<()> {
        Ok(self.send(code, 0, &[], parts)?)
    }

    fn send(
        &self,
        error: i32,
        unique: u64,
        head: &[u8],
        pieces: &[impl AsRef<[u8]>],
    ) -> Result<(), Failure> {
        let body: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        let len = size_of::<OutHeader>() + head.len() + body;
        let len = u32::try_from(len).map_err(|_| Failure::INVAL)?;
        let header = OutHeader { len, error, unique };
        let mut parts = Vec::with_capacity(2 + pieces.len());
        parts.push(IoSlice::new(header.as_bytes()));
        parts.push(IoSlice::new(head));
        parts.extend(pieces.iter().map(|piece| IoSlice::new(piece.as_ref())));
        loop {
            match rustix::io::writev(&self.fd, &parts) {
                Err(Failure::INTR) => {}
                outcome => return outcome.map(drop),
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// Takes requests from a device, on the thread that serves them.
pub(crate) struct Reader {
    device: Arc<Device>,
    memory: WriteMemory,
    /// Largest write.
    bytes_max: usize,
    lead: [u8; LEAD],
    place: Option<Place>,
    /// What follows the lead of anything but a write.
    rest: Vec<u8>,
}

/// What came of an attempt to read.
enum Taken {
    Message(usize),
    Nothing,
    End,
}

impl Reader {
    pub(crate) fn new(device: Arc<Device>, memory: WriteMemory, bytes_max: usize) -> Self {
        Self { device, memory, bytes_max, lead: [0; LEAD], place: None, rest: Vec::new() }
    }

    /// Hands on requests until the connection ends. In a runtime's context.
    pub(crate) async fn run<F: Filesystem>(mut self, session: &Session<F>) -> io::Result<()> {
        fcntl_setfl(&self.device, fcntl_getfl(&self.device)? | OFlags::NONBLOCK)?;
        // SAFETY: the device keeps its descriptor open, and the same, as long as anybody has the device.
        let ready = unsafe { AsyncFd::register_with_interest(self.device.clone(), WATCHED) }?;
        loop {
            let mut guard = ready.ready(WATCHED).await?;
            for _ in 0..BATCH {
                if self.place.is_none() {
                    self.place = Some(self.memory.place(self.bytes_max).await);
                }
                match self.take()? {
                    Taken::Message(len) => self.hand_on(session, len),
                    Taken::Nothing => {
                        guard.clear_ready();
                        break;
                    }
                    Taken::End => return Ok(()),
                }
            }
            drop(guard);
            // What was handed on gets its turn before the next batch.
            tokio::task::yield_now().await;
        }
    }

    fn take(&mut self) -> io::Result<Taken> {
        let place = self.place.as_mut().expect("the caller got one");
        let mut parts = [IoSliceMut::new(&mut self.lead), IoSliceMut::new(&mut place.buf)];
        loop {
            return match rustix::io::readv(&self.device, &mut parts) {
                Ok(len) => Ok(Taken::Message(len)),
                // NOENT: the request was taken back while it was read.
                Err(Failure::INTR | Failure::NOENT) => continue,
                Err(Failure::AGAIN) => Ok(Taken::Nothing),
                Err(Failure::NODEV) => Ok(Taken::End),
                Err(error) => Err(error.into()),
            };
        }
    }

    fn hand_on<F: Filesystem>(&mut self, session: &Session<F>, len: usize) {
        if let Err(malformed) = self.try_hand_on(session, len) {
            tracing::error!(%malformed, "a message of the kernel is not understood");
        }
    }

    fn try_hand_on<F: Filesystem>(
        &mut self,
        session: &Session<F>,
        len: usize,
    ) -> Result<(), Malformed> {
        let lead = &self.lead[..len.min(LEAD)];
        let Ok((header, after)) = InHeader::read_from_prefix(lead) else {
            return Err(Malformed::NoHeader { has: len, needs: size_of::<InHeader>() });
        };
        let answer = Answer::by_device(self.device.clone(), header.unique);
        if header.len as usize != len {
            return Err(Malformed::WrongLength { has: len, says: header.len as usize });
        }
        let behind = len.saturating_sub(LEAD);
        if header.opcode == opcode::WRITE {
            let place = self.place.as_ref().expect("it was read into");
            let mut decoded = request::decode(&header, after, &place.buf[..behind])?;
            if let request::Decoded::Operation(Operation::Write(write)) = &mut decoded {
                write.payload = self.memory.take(&mut self.place, behind);
            }
            session.hand_on(&header, decoded, answer);
            return Ok(());
        }
        let args = request::args_bytes(header.opcode);
        let decoded = if behind == 0 {
            let (args, rest) = after.split_at(args.min(after.len()));
            request::decode(&header, args, rest)?
        } else {
            let place = self.place.as_ref().expect("it was read into");
            self.rest.clear();
            self.rest.extend_from_slice(after);
            self.rest.extend_from_slice(&place.buf[..behind]);
            let (args, rest) = self.rest.split_at(args.min(self.rest.len()));
            request::decode(&header, args, rest)?
        };
        session.hand_on(&header, decoded, answer);
        Ok(())
    }
}
