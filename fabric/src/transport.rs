//! The transports behind one closed enum: frames in, frames out.
//!
//! Above this module nobody knows what carries the bytes. A transport sends whole frames (the head as
//! one piece, the bulk bytes from where they lie) and receives them in two steps, so that the
//! receiver can choose where the bulk bytes go once it has read the head. RDMA and shared memory
//! join here as further variants.

use std::io;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    buf::SharedBuf,
    frame::{FrameError, Header, Limits},
    mem, tcp,
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
    /// Header and message.
    pub(crate) head: Bytes,
    pub(crate) bulk: Vec<SharedBuf>,
}

/// A frame that is coming in: the head is here, `header.bulk_bytes` are still to be taken.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) header: Header,
    pub(crate) message: Bytes,
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
    Mem(mem::Sender),
}

impl Sender {
    /// Sends the frames in order. Not cancel-safe: a dropped send ends the connection.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> Result<(), LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.send(frames).await,
            Self::Mem(mem) => mem.send(frames).await,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Receiver {
    Tcp(tcp::Receiver),
    Mem(mem::Receiver),
}

impl Receiver {
    /// The next frame's head. [`LinkError::Closed`] if the peer ended the connection between frames.
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.head().await,
            Self::Mem(mem) => mem.head().await,
        }
    }

    /// The next `into.len()` bulk bytes of the frame.
    pub(crate) async fn bulk(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.bulk(into).await,
            Self::Mem(mem) => mem.bulk(into),
        }
    }

    /// Throws away the next `count` bulk bytes of the frame.
    pub(crate) async fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        match self {
            Self::Tcp(tcp) => tcp.skip(count).await,
            Self::Mem(mem) => mem.skip(count),
        }
    }

    /// The handshake is done: larger frames are welcome.
    pub(crate) fn open(&mut self, lane: Lane, limits: Limits) {
        match self {
            Self::Tcp(tcp) => tcp.open(lane, limits),
            Self::Mem(mem) => mem.limits = limits,
        }
    }
}

/// Where a server listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Mem(mem::Listener),
}
