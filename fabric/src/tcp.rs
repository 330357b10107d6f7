//! Frames over TCP.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{self as tokio_io, AsyncReadExt, AsyncWrite},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::TlsStream;

use crate::{
    frame::{FrameError, HEAD_BYTES_MIN, seal},
    pulse::Pulse,
    stream::{ReadHalf, Reader, write_all},
    transport::{self, Frame, Head, LinkError},
};

/// Splits a connected socket. Buffer sizes are left to the kernel, whose tuning grows them with the
/// traffic; a fixed size would switch that off.
pub(crate) fn split(
    stream: TcpStream,
    pulse: &Arc<Pulse>,
) -> io::Result<(transport::Sender, transport::Receiver)> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok(ends(Read::Clear(read), Write::Clear(write), pulse))
}

/// As [`split`], of an encrypted connection.
pub(crate) fn split_secured(
    stream: TlsStream<TcpStream>,
    pulse: &Arc<Pulse>,
) -> io::Result<(transport::Sender, transport::Receiver)> {
    stream.get_ref().0.set_nodelay(true)?;
    let (read, write) = tokio_io::split(stream);
    Ok(ends(Read::Secured(read), Write::Secured(write), pulse))
}

fn ends(read: Read, write: Write, pulse: &Arc<Pulse>) -> (transport::Sender, transport::Receiver) {
    let sender = Sender { half: write, pulse: pulse.clone() };
    let receiver = Receiver { reader: Reader::new(read), pulse: pulse.clone() };
    (transport::Sender::Tcp(sender), transport::Receiver::Tcp(receiver))
}

/// The sending half. In clear the bytes go from where they lie to the socket; else they are encrypted, and so
/// copied, on the way.
#[derive(Debug)]
enum Write {
    Clear(OwnedWriteHalf),
    Secured(tokio_io::WriteHalf<TlsStream<TcpStream>>),
}

#[derive(Debug)]
pub(crate) enum Read {
    Clear(OwnedReadHalf),
    Secured(tokio_io::ReadHalf<TlsStream<TcpStream>>),
}

#[derive(Debug)]
pub(crate) struct Sender {
    half: Write,
    pulse: Arc<Pulse>,
}

impl Sender {
    #[cfg(test)]
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        write_all(&mut self.half, &mut [IoSlice::new(bytes)], &self.pulse).await.unwrap();
    }

    pub(crate) async fn send(&mut self, frames: &mut [Frame]) -> Result<(), LinkError> {
        let mut slices = Vec::with_capacity(frames.len() * 2);
        for Frame { header, head, bulk, .. } in frames {
            let bulk_bytes = bulk.iter().map(|part| part.len()).sum();
            let room = if bulk_bytes > 0 { HEAD_BYTES_MIN.saturating_sub(head.len()) } else { 0 };
            seal(head, *header, &[0; HEAD_BYTES_MIN][..room], bulk_bytes);
            slices.push(IoSlice::new(head));
            let parts = bulk.iter().filter(|part| !part.is_empty());
            slices.extend(parts.map(|part| IoSlice::new(part)));
        }
        write_all(&mut self.half, &mut slices, &self.pulse).await
    }
}

#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) reader: Reader<Read>,
    pulse: Arc<Pulse>,
}

impl Receiver {
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        let (header, message, annex) = self.reader.head(&self.pulse).await?;
        if annex.len() > HEAD_BYTES_MIN {
            return Err(FrameError::AnnexTooLong(annex.len()).into());
        }
        Ok(Head::new(header, message))
    }

    pub(crate) async fn bulk(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        self.reader.bulk(into, &self.pulse).await
    }

    /// Of a connection on which nothing is said any more: returns when the peer ends it, or breaks its word.
    pub(crate) async fn ended(&mut self) {
        let _ = self.reader.half.read(&mut [0]).await;
    }

    pub(crate) async fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        self.reader.skip(count, &self.pulse).await
    }
}

impl ReadHalf for Read {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(half) => half.read(into).await,
            Self::Secured(half) => match half.read(into).await {
                // Frames say their lengths, so an end needs no word of TLS to be told from a cut.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl AsyncWrite for Write {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Secured(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(half) => Pin::new(half).poll_write_vectored(cx, slices),
            Self::Secured(half) => Pin::new(half).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(half) => Pin::new(half).poll_flush(cx),
            Self::Secured(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(half) => Pin::new(half).poll_shutdown(cx),
            Self::Secured(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
