//! Frames over TCP.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use tokio::{
    io::AsyncReadExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

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
    let sender = Sender { half: write, pulse: pulse.clone() };
    let receiver = Receiver { reader: Reader::new(read), pulse: pulse.clone() };
    Ok((transport::Sender::Tcp(sender), transport::Receiver::Tcp(receiver)))
}

#[derive(Debug)]
pub(crate) struct Sender {
    half: OwnedWriteHalf,
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
    pub(crate) reader: Reader<OwnedReadHalf>,
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

    pub(crate) async fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        self.reader.skip(count, &self.pulse).await
    }
}

impl ReadHalf for OwnedReadHalf {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        AsyncReadExt::read(self, into).await
    }
}
