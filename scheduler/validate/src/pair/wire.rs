//! A connection with a deadline, and chunks on it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{limits, pattern};

pub(super) const TRIP: u8 = b'P';
pub(super) const UPLOAD: u8 = b'U';
pub(super) const DOWNLOAD: u8 = b'D';
pub(super) const END: u8 = b'E';

/// Each read and write ends by the deadline, whatever the other side does.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    deadline: Instant,
    chunk: Vec<u8>,
}

/// What was received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) wrong_chunks: u64,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, deadline: Instant) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(false)?;
        // The same on both sides, and not worth a secret: it is only compared.
        const SEED: u64 = 2_012_092;
        Ok(Self { stream, deadline, chunk: pattern::bytes(SEED, limits::PAIR_CHUNK) })
    }

    pub(super) fn extend(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&self.stream, self.deadline, bytes)
    }

    pub(super) fn receive<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        receive(&self.stream, self.deadline, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn receive_number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.receive()?))
    }

    /// So many bytes in whole chunks, or what can be sent in this time; then the end. Returns how many.
    pub(super) fn send_chunks(&mut self, bytes: u64, time: Duration) -> io::Result<u64> {
        let (until, mut sent) = (Instant::now() + time, 0);
        while sent + limits::PAIR_CHUNK as u64 <= bytes && Instant::now() < until {
            send(&self.stream, self.deadline, &[1])?;
            send(&self.stream, self.deadline, &self.chunk)?;
            sent += limits::PAIR_CHUNK as u64;
        }
        self.send(&[0])?;
        Ok(sent)
    }

    /// All chunks to the end.
    ///
    /// # Errors
    /// More than so many bytes come, or what cannot be a chunk.
    pub(super) fn receive_chunks(&mut self, bytes_max: u64) -> io::Result<Received> {
        let (mut received, mut chunk) = (Received::default(), vec![0; limits::PAIR_CHUNK]);
        loop {
            match self.receive()? {
                [0] => return Ok(received),
                [1] if received.bytes < bytes_max => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            receive(&self.stream, self.deadline, &mut chunk)?;
            received.bytes += limits::PAIR_CHUNK as u64;
            received.wrong_chunks += u64::from(chunk != self.chunk);
        }
    }

    /// Spoils what the other side will compare.
    #[cfg(test)]
    pub(super) fn damage(&mut self) {
        self.chunk[limits::PAIR_CHUNK / 2] ^= 1;
    }
}

pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A timeout of zero would be none.
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn send(mut stream: &TcpStream, deadline: Instant, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_retry(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(mut stream: &TcpStream, deadline: Instant, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if is_retry(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next look at the deadline ends it.
fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
