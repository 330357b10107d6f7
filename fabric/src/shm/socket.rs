//! A local socket: bytes, and now and then memory with them.
//!
//! The kernel tells that there is room in a local socket again whenever the peer takes something out of it,
//! full or not, so one that is watched for room wakes its process once more for each message that it sends.
//! This one is watched for what comes, and for room only while it has none.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::fcntl_get_seals,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, recv, recvmsg, sendmsg, shutdown,
    },
};
use tokio::{
    io::{AsyncWrite, Interest, unix::AsyncFd},
    net::UnixStream,
};

use crate::{limits::DESCRIPTORS_WAITING_MAX, stream::ReadHalf};

/// Both halves of a connected socket.
pub(super) fn halves(stream: UnixStream) -> io::Result<(Outgoing, Incoming)> {
    let socket = OwnedFd::from(stream.into_std()?);
    let socket = Arc::new(watched(socket, Interest::READABLE)?);
    let incoming =
        Incoming { socket: socket.clone(), memory: VecDeque::new(), takes_memory: false };
    Ok((Outgoing { socket, room: None }, incoming))
}

fn watched(socket: OwnedFd, what: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and nobody takes it out.
    Ok(unsafe { AsyncFd::register_with_interest(socket, what) }?)
}

#[derive(Debug)]
pub(super) struct Incoming {
    socket: Arc<AsyncFd<OwnedFd>>,
    /// Came with bytes that were read; their frames were not yet.
    memory: VecDeque<OwnedFd>,
    /// Before that the kernel throws descriptors away.
    takes_memory: bool,
}

impl Incoming {
    /// The peer has proved who it is.
    pub(super) fn open(&mut self) {
        self.takes_memory = true;
    }

    /// What came with the frame that was read last.
    pub(super) fn take_memory(&mut self) -> Option<OwnedFd> {
        self.memory.pop_front()
    }
}

impl ReadHalf for Incoming {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Self { socket, memory, takes_memory } = self;
        let takes_memory = *takes_memory;
        let (count, came) = loop {
            let mut ready = socket.readable().await?;
            let read = ready.try_io(|socket| {
                let socket = socket.get_ref().as_fd();
                if takes_memory { receive(socket, into) } else { discard(socket, into) }
            });
            let Ok(read) = read else { continue };
            let (count, came) = read?;
            // Fewer than could be have emptied the socket, where they do not end with memory.
            if takes_memory && came.is_empty() && 0 < count && count < into.len() {
                ready.clear_ready();
            }
            break (count, came);
        };
        for came in came {
            if fcntl_get_seals(&came).is_err() {
                close_elsewhere(came);
                let why = "the peer sends a descriptor that is no memory";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            memory.push_back(came);
        }
        if memory.len() > DESCRIPTORS_WAITING_MAX {
            let why = "the peer sends memory without a word";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(count)
    }
}

/// The kernel throws away what comes with the bytes.
fn discard(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    Ok((recv(socket, into, RecvFlags::empty())?.0, Vec::new()))
}

fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(into)];
    let received = recvmsg(socket, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut came = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(memory) = message {
            came.extend(memory);
        }
    }
    Ok((received.bytes, came))
}

/// To close a file of somebody's own file system (FUSE, NFS) may take as long as that somebody likes.
fn close_elsewhere(descriptor: OwnedFd) {
    let closing = std::thread::Builder::new().name("ff2-close".into());
    // Without a thread it is kept for ever, which is better than to wait for ever.
    let kept = std::mem::ManuallyDrop::new(descriptor);
    let started = closing.spawn(move || drop(std::mem::ManuallyDrop::into_inner(kept)));
    if let Err(error) = started {
        tracing::warn!(%error, "cannot close a descriptor that a peer sent");
    }
}

/// The sending half. The peer reads the end of the connection when it is dropped.
#[derive(Debug)]
pub(super) struct Outgoing {
    socket: Arc<AsyncFd<OwnedFd>>,
    /// While there is none: the same socket once more, watched for room.
    room: Option<AsyncFd<OwnedFd>>,
}

impl Outgoing {
    /// Sends bytes and with the first of them a descriptor; returns how many were taken.
    pub(super) async fn send_with(
        &mut self,
        bytes: &[u8],
        memory: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let slices = [IoSlice::new(bytes)];
        std::future::poll_fn(|cx| self.poll_send(cx, &slices, Some(memory))).await
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        memory: Option<BorrowedFd<'_>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match send(self.socket.get_ref().as_fd(), slices, memory) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                sent => {
                    self.room = None;
                    return Poll::Ready(sent);
                }
            }
            // What is watched anew is told at once if there is room by now.
            if let Some(room) = &self.room {
                ready!(room.poll_write_ready(cx))?.clear_ready();
            } else {
                let same = self.socket.get_ref().try_clone()?;
                self.room = Some(watched(same, Interest::WRITABLE)?);
            }
        }
    }
}

fn send(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    memory: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let memory = memory.as_slice();
    if !memory.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(memory)), "there is room for one");
    }
    Ok(sendmsg(socket, slices, &mut ancillary, SendFlags::NOSIGNAL)?)
}

impl AsyncWrite for Outgoing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(bytes)], None)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, slices, None)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(self.socket.get_ref(), Shutdown::Write)?))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Whoever has closed the other end already needs no word of it.
        let _ = shutdown(self.socket.get_ref(), Shutdown::Write);
    }
}
