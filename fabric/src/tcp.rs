//! Frames over TCP: many small frames with one system call, bulk bytes without a copy of ours.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    frame::{FrameError, HEADER_BYTES, Header, Limits},
    limits::{BULK_READ_AHEAD_BYTES, READ_AHEAD_BYTES, SLICES_PER_WRITE},
    pulse::Pulse,
    transport::{self, Frame, Head, Lane, LinkError},
};

/// Splits a connected socket. Buffer sizes are left to the kernel, whose tuning grows them with the
/// traffic; a fixed size would switch that off.
pub(crate) fn split(
    stream: TcpStream,
    pulse: &Arc<Pulse>,
) -> io::Result<(transport::Sender, transport::Receiver)> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let sender = Sender { stream: write, pulse: pulse.clone() };
    let receiver = Receiver {
        stream: read,
        ahead: vec![0; BULK_READ_AHEAD_BYTES].into(),
        start: 0,
        end: 0,
        limits: Limits::HANDSHAKE,
        pulse: pulse.clone(),
    };
    Ok((transport::Sender::Tcp(sender), transport::Receiver::Tcp(receiver)))
}

#[derive(Debug)]
pub(crate) struct Sender {
    stream: OwnedWriteHalf,
    pulse: Arc<Pulse>,
}

impl Sender {
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> Result<(), LinkError> {
        let mut slices = Vec::with_capacity(frames.len() * 2);
        for frame in frames {
            slices.push(IoSlice::new(&frame.head));
            let bulk = frame.bulk.iter().filter(|part| !part.is_empty());
            slices.extend(bulk.map(|part| IoSlice::new(part)));
        }
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let count = left.len().min(SLICES_PER_WRITE);
            let written = self.stream.write_vectored(&left[..count]).await?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.pulse.sent(written);
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Receiver {
    stream: OwnedReadHalf,
    /// Bytes `start..end` were read and not used yet.
    ahead: Box<[u8]>,
    start: usize,
    end: usize,
    limits: Limits,
    pulse: Arc<Pulse>,
}

impl Receiver {
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        self.fill(HEADER_BYTES).await?;
        let header = self.ahead[self.start..self.start + HEADER_BYTES].try_into();
        let header = Header::decode(header.expect("a slice of this length"), self.limits)?;
        self.start += HEADER_BYTES;
        let message = self.message(header.message_bytes as usize).await.map_err(truncated)?;
        header.check_message(&message)?;
        Ok(Head { header, message })
    }

    /// In memory of its own: whoever keeps a part of a message must not keep the whole read-ahead.
    async fn message(&mut self, len: usize) -> Result<Bytes, LinkError> {
        if len <= self.ahead.len() {
            self.fill(len).await?;
            let message = Bytes::copy_from_slice(&self.ahead[self.start..self.start + len]);
            self.start += len;
            return Ok(message);
        }
        let mut message = vec![0; len];
        self.bulk(&mut message).await?;
        Ok(message.into())
    }

    pub(crate) async fn bulk(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        let mut at = self.take_ahead(into.len());
        into[..at].copy_from_slice(&self.ahead[self.start - at..self.start]);
        while at < into.len() {
            at += read(&mut self.stream, &mut into[at..], &self.pulse).await.map_err(truncated)?;
        }
        Ok(())
    }

    pub(crate) async fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        let mut left = count - self.take_ahead(count);
        while left > 0 {
            // The read-ahead is used up, so its memory is free to be a bin.
            let piece = left.min(self.ahead.len());
            let bin = &mut self.ahead[..piece];
            left -= read(&mut self.stream, bin, &self.pulse).await.map_err(truncated)?;
        }
        Ok(())
    }

    pub(crate) fn open(&mut self, lane: Lane, limits: Limits) {
        self.limits = limits;
        if lane == Lane::Small {
            let mut larger = vec![0; READ_AHEAD_BYTES];
            let unused = self.end - self.start;
            larger[..unused].copy_from_slice(&self.ahead[self.start..self.end]);
            (self.ahead, self.start, self.end) = (larger.into(), 0, unused);
        }
    }

    /// Uses up to `most` bytes of what was read ahead, which end at the new `start`.
    fn take_ahead(&mut self, most: usize) -> usize {
        let taken = most.min(self.end - self.start);
        self.start += taken;
        taken
    }

    /// Reads until `need` bytes are ahead.
    async fn fill(&mut self, need: usize) -> Result<(), LinkError> {
        assert!(need <= self.ahead.len());
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.ahead.len() - self.start < need {
            self.ahead.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < need {
            let room = &mut self.ahead[self.end..];
            match read(&mut self.stream, room, &self.pulse).await {
                Ok(count) => self.end += count,
                Err(LinkError::Closed) if self.end > self.start => {
                    return Err(FrameError::Truncated.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn read(
    stream: &mut OwnedReadHalf,
    into: &mut [u8],
    pulse: &Pulse,
) -> Result<usize, LinkError> {
    let count = stream.read(into).await?;
    if count == 0 {
        return Err(LinkError::Closed);
    }
    pulse.heard(count);
    Ok(count)
}

/// Inside a frame the end of the connection is not a clean one.
fn truncated(error: LinkError) -> LinkError {
    match error {
        LinkError::Closed => FrameError::Truncated.into(),
        error => error,
    }
}
