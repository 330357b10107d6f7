//! A local socket: bytes, and now and then memory with them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::fcntl_get_seals,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::{
    io::Interest,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{limits::DESCRIPTORS_WAITING_MAX, stream::ReadHalf};

#[derive(Debug)]
pub(super) struct Incoming {
    half: OwnedReadHalf,
    /// Came with bytes that were read; their frames were not yet.
    memory: VecDeque<OwnedFd>,
    /// Before that the kernel throws descriptors away.
    takes_memory: bool,
}

impl Incoming {
    pub(super) fn new(half: OwnedReadHalf) -> Self {
        Self { half, memory: VecDeque::new(), takes_memory: false }
    }

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
        let Self { half, memory, takes_memory } = self;
        if !*takes_memory {
            return tokio::io::AsyncReadExt::read(half, into).await;
        }
        let stream: &UnixStream = half.as_ref();
        let read = stream.async_io(Interest::READABLE, || receive(stream.as_fd(), into));
        let (count, came) = read.await?;
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

/// Sends bytes and with the first of them a descriptor; returns how many were taken.
pub(super) async fn send_with(
    half: &OwnedWriteHalf,
    bytes: &[u8],
    memory: BorrowedFd<'_>,
) -> io::Result<usize> {
    let stream: &UnixStream = half.as_ref();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let memory = [memory];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&memory)), "there is room for one");
        let slices = [IoSlice::new(bytes)];
        Ok(sendmsg(stream.as_fd(), &slices, &mut ancillary, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}
