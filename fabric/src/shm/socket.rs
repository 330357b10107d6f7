//! A local socket: bytes, and now and then memory with them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::Interest,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::stream::ReadHalf;

/// Descriptors that wait for their frame: each comes with one, and the reader is not far behind.
const WAITING_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Incoming {
    half: OwnedReadHalf,
    /// Came with bytes that were read; their frames were not yet.
    memory: VecDeque<OwnedFd>,
}

impl Incoming {
    pub(super) fn new(half: OwnedReadHalf) -> Self {
        Self { half, memory: VecDeque::new() }
    }

    /// What came with the frame that was read last.
    pub(super) fn take_memory(&mut self) -> Option<OwnedFd> {
        self.memory.pop_front()
    }
}

impl ReadHalf for Incoming {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Self { half, memory } = self;
        let stream: &UnixStream = half.as_ref();
        let read = stream.async_io(Interest::READABLE, || receive(stream.as_fd(), into));
        let (count, came) = read.await?;
        memory.extend(came);
        if memory.len() > WAITING_MAX {
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
