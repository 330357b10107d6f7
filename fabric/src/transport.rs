//! The transports behind one closed enum: frames in, frames out.
//!
//! Above this module nobody knows what carries the bytes. A transport sends whole frames (the head as
//! one piece, the bulk bytes from where they lie) and receives them in two steps, so that the
//! receiver can choose where the bulk bytes go once it has read the head.

use std::{io, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    buf::{SharedBuf, Slab},
    counters::Transport,
    frame::{FrameError, HEADER_BYTES, Header, Limits},
    mem,
    onesided::{self, annex::Span},
    rdma, shm, tcp,
};

/// Why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing was heard from the peer for {0} s")]
    Silent(u64),
    #[error("the peer took none of our bytes for {0} s")]
    Stalled(u64),
    #[error("this process closed the connection")]
    Stopped,
    #[error("{0}")]
    Refused(ff2_proto::Status),
}

/// A frame to be sent.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Without lengths and checksums: the transport seals it.
    pub(crate) header: Header,
    /// Room for the header, and the message.
    pub(crate) head: Vec<u8>,
    pub(crate) bulk: Vec<SharedBuf>,
    pub(crate) landing: Option<Landing>,
}

impl Frame {
    /// `head` as [`crate::frame::encode_message`] makes it.
    pub(crate) fn new(header: Header, head: Vec<u8>, bulk: Vec<SharedBuf>) -> Self {
        Self { header, head, bulk, landing: None }
    }

    pub(crate) fn bulk_bytes(&self) -> usize {
        self.bulk.iter().map(|part| part.len()).sum()
    }

    /// Of the message and all that goes with it.
    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + self.bulk_bytes()
    }
}

/// Where a reply's bulk bytes shall land, so that they need not travel with it.
#[derive(Clone, Debug)]
pub(crate) enum Landing {
    /// Of a request: in this process, and held until the reply is here.
    Ours { slab: Arc<Slab>, offset: usize, len: usize },
    /// Of a reply: in the memory that the client shares.
    Theirs(Span),
}

/// A frame that is coming in: the head is here, `header.bulk_bytes` are still to be taken.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) header: Header,
    pub(crate) message: Bytes,
    /// Of a request: where its reply's bulk bytes may be put.
    pub(crate) landing: Option<Span>,
    /// Of a reply: its bulk bytes are where the request wanted them.
    pub(crate) landed: bool,
}

impl Head {
    pub(crate) fn new(header: Header, message: Bytes) -> Self {
        Self { header, message, landing: None, landed: false }
    }

    /// As [`Frame::bytes`].
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.message.len() + self.header.bulk_bytes as usize
    }
}

/// What a connection carries: small messages never wait behind bulk bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Small,
    Bulk,
}

#[derive(Debug)]
pub(crate) enum Sender {
    Tcp(tcp::Sender),
    Shm(onesided::Sender<shm::Outgoing>),
    Rdma(onesided::Sender<rdma::Outgoing>),
    Mem(mem::Sender),
}

impl Sender {
    /// Sends the frames in order. Not cancel-safe: a dropped send ends the connection.
    pub(crate) async fn send(&mut self, frames: &mut [Frame]) -> Result<(), LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.send(frames).await,
            Self::Shm(shm) => shm.send(frames).await,
            Self::Rdma(rdma) => rdma.send(frames).await,
            Self::Mem(mem) => mem.send(frames).await,
        }
    }

    /// Before the connection is ended: returns when what was sent is not lost by that.
    pub(crate) async fn finish(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Shm(shm) => shm.finish().await,
            Self::Rdma(rdma) => rdma.finish().await,
            Self::Tcp(_) | Self::Mem(_) => Ok(()),
        }
    }

    /// Bytes that are no frame of ours.
    #[cfg(test)]
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(tcp) => tcp.send_raw(bytes).await,
            Self::Shm(shm) => shm.send_raw(bytes).await,
            Self::Rdma(rdma) => rdma.send_raw(bytes).await,
            Self::Mem(_) => panic!("there are only frames inside a process"),
        }
    }

    /// The handshake is done: the peer takes so many slabs of ours.
    pub(crate) fn may_share(&mut self, slabs: u32) {
        match self {
            Self::Shm(shm) => shm.may_share(slabs),
            Self::Rdma(rdma) => rdma.may_share(slabs),
            Self::Tcp(_) | Self::Mem(_) => (),
        }
    }

    /// Whether the peer reads and writes buffers of ours by itself: a call's buffers then stay with it
    /// until its reply, or until [`Receiver::until_closed`].
    pub(crate) fn shares_memory(&self) -> bool {
        matches!(self, Self::Shm(_) | Self::Rdma(_))
    }

    /// What it is, for counting.
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Shm(_) => Transport::Shm,
            Self::Rdma(_) => Transport::Rdma,
            Self::Mem(_) => Transport::Mem,
        }
    }

    /// The place of this host that an RDMA connection leaves from.
    pub(crate) fn place(&mut self) -> Option<&ff2_verbs::Place> {
        match self {
            Self::Rdma(rdma) => Some(rdma.half().place()),
            Self::Tcp(_) | Self::Shm(_) | Self::Mem(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Receiver {
    Tcp(tcp::Receiver),
    Shm(onesided::Receiver<shm::Incoming>),
    Rdma(Box<onesided::Receiver<rdma::Incoming>>),
    Mem(mem::Receiver),
}

impl Receiver {
    /// The next frame's head. [`LinkError::Closed`] if the peer ended the connection between frames.
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.head().await,
            Self::Shm(shm) => shm.head().await,
            Self::Rdma(rdma) => rdma.head().await,
            Self::Mem(mem) => mem.head().await,
        }
    }

    /// The next `into.len()` bulk bytes of the frame.
    pub(crate) async fn bulk(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.bulk(into).await,
            Self::Shm(shm) => shm.bulk(into).await,
            Self::Rdma(rdma) => rdma.bulk(into).await,
            Self::Mem(mem) => mem.bulk(into),
        }
    }

    /// All bulk bytes of the frame, to be taken beside what comes next; `None`: they are to be taken before it.
    pub(crate) fn detach(&mut self) -> Result<Option<rdma::Pulling>, LinkError> {
        match self {
            Self::Rdma(rdma) => rdma.detach(),
            Self::Tcp(_) | Self::Shm(_) | Self::Mem(_) => Ok(None),
        }
    }

    /// Throws away the next `count` bulk bytes of the frame.
    pub(crate) async fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.skip(count).await,
            Self::Shm(shm) => shm.skip(count).await,
            Self::Rdma(rdma) => rdma.skip(count).await,
            Self::Mem(mem) => mem.skip(count),
        }
    }

    /// The handshake is done: larger frames are welcome, and so many slabs of the peer's.
    pub(crate) fn open(&mut self, limits: Limits, slabs: u32) {
        match self {
            Self::Tcp(tcp) => tcp.reader.limits = limits,
            Self::Shm(shm) => shm.open(limits, slabs),
            Self::Rdma(rdma) => rdma.open(limits, slabs),
            Self::Mem(mem) => mem.limits = limits,
        }
    }

    /// Our sending half is gone: returns when the peer can touch no memory of ours any more.
    pub(crate) async fn until_closed(&mut self) {
        match self {
            Self::Shm(shm) => shm.until_closed().await,
            Self::Rdma(rdma) => rdma.until_closed().await,
            Self::Tcp(_) | Self::Mem(_) => (),
        }
    }
}
