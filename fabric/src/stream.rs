//! Frames in a stream of bytes: what TCP and local sockets share.

use std::{
    future::Future,
    io::{self, IoSlice},
};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{
    frame::{FrameError, HEAD_BYTES_MIN, HEADER_BYTES, Header, Limits},
    limits::SLICES_PER_WRITE,
    pulse::Pulse,
    transport::LinkError,
};

/// The receiving half of a socket.
pub(crate) trait ReadHalf {
    /// Reads some bytes; 0 at the end of the connection.
    fn read(&mut self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

/// Reads frames. Bulk bytes go straight to where the caller wants them: the read-ahead never has any,
/// see [`crate::frame`].
#[derive(Debug)]
pub(crate) struct Reader<S> {
    pub(crate) half: S,
    /// Bytes `..end` were read and not used yet; a frame begins with them.
    ahead: [u8; HEAD_BYTES_MIN],
    end: usize,
    pub(crate) limits: Limits,
}

impl<S: ReadHalf> Reader<S> {
    pub(crate) fn new(half: S) -> Self {
        Self { half, ahead: [0; HEAD_BYTES_MIN], end: 0, limits: Limits::HANDSHAKE }
    }

    /// The next frame's header, message and annex. [`LinkError::Closed`] if the peer ended the
    /// connection between frames.
    pub(crate) async fn head(
        &mut self,
        pulse: &Pulse,
    ) -> Result<(Header, Bytes, Bytes), LinkError> {
        while self.end < HEADER_BYTES {
            let count = match self.half.read(&mut self.ahead[self.end..]).await? {
                0 if self.end == 0 => return Err(LinkError::Closed),
                0 => return Err(FrameError::Truncated.into()),
                count => count,
            };
            pulse.heard(count);
            self.end += count;
        }
        let header = self.ahead[..HEADER_BYTES].try_into().expect("a slice of this length");
        let header = Header::decode(header, self.limits)?;
        let mut body = vec![0; header.body_bytes()];
        let here = body.len().min(self.end - HEADER_BYTES);
        body[..here].copy_from_slice(&self.ahead[HEADER_BYTES..HEADER_BYTES + here]);
        self.ahead.copy_within(HEADER_BYTES + here..self.end, 0);
        self.end -= HEADER_BYTES + here;
        self.exactly(&mut body[here..], pulse).await?;
        let (message, annex) = header.open(body.into())?;
        Ok((header, message, annex))
    }

    /// Bulk bytes of the frame whose head was read last.
    pub(crate) async fn bulk(&mut self, into: &mut [u8], pulse: &Pulse) -> Result<(), LinkError> {
        if self.end > 0 && !into.is_empty() {
            return Err(FrameError::BulkMisplaced.into());
        }
        self.exactly(into, pulse).await
    }

    /// Throws bulk bytes away.
    pub(crate) async fn skip(&mut self, count: usize, pulse: &Pulse) -> Result<(), LinkError> {
        let mut bin = vec![0; count.min(64 << 10)];
        let mut left = count;
        while left > 0 {
            let piece = left.min(bin.len());
            self.bulk(&mut bin[..piece], pulse).await?;
            left -= piece;
        }
        Ok(())
    }

    async fn exactly(&mut self, into: &mut [u8], pulse: &Pulse) -> Result<(), LinkError> {
        let mut at = 0;
        while at < into.len() {
            let count = self.half.read(&mut into[at..]).await?;
            if count == 0 {
                return Err(FrameError::Truncated.into());
            }
            pulse.heard(count);
            at += count;
        }
        Ok(())
    }
}

/// Writes all of it, many pieces with one system call.
pub(crate) async fn write_all(
    half: &mut (impl AsyncWrite + Unpin),
    mut slices: &mut [IoSlice<'_>],
    pulse: &Pulse,
) -> Result<(), LinkError> {
    while !slices.is_empty() {
        let count = slices.len().min(SLICES_PER_WRITE);
        let written = half.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        pulse.sent(written);
        IoSlice::advance_slices(&mut slices, written);
    }
    // What is encrypted may still wait for the socket.
    half.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests;
