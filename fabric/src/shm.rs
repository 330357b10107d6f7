//! Frames between processes of one host: heads through a local socket, bulk bytes through memory.
//!
//! Who shares a slab sends its descriptor, and the other maps it; see [`crate::onesided`] for what is made of
//! that. The peer of a request's payload or landing place is done with them when it has closed its end.
//!
//! The server offers a name in its welcome; a client on the same host connects to it, and both prove
//! themselves there as they do over TCP, and that they mean the same name. Before that no descriptor is
//! taken, and after it as many as the welcome grants.

mod mapping;
mod socket;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use mapping::Theirs;
use tokio::net::UnixStream;

use crate::{
    buf::{SharedBuf, Slab},
    frame::{FrameError, HEADER_BYTES, Header, Kind, seal},
    onesided::{self, annex::Span},
    pulse::Pulse,
    stream::{ReadHalf, write_all},
    transport::{self, LinkError},
};

/// Splits a connected socket.
pub(crate) fn split(
    stream: UnixStream,
    pulse: &Arc<Pulse>,
) -> io::Result<(transport::Sender, transport::Receiver)> {
    let (outgoing, incoming) = socket::halves(stream)?;
    let theirs = Arc::<Theirs>::default();
    let sender =
        onesided::Sender::new(Outgoing { socket: outgoing, theirs: theirs.clone() }, pulse);
    let receiver = onesided::Receiver::new(Incoming { socket: incoming, theirs }, pulse);
    Ok((transport::Sender::Shm(sender), transport::Receiver::Shm(receiver)))
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    socket: socket::Outgoing,
    theirs: Arc<Theirs>,
}

#[derive(Debug)]
pub(crate) struct Incoming {
    socket: socket::Incoming,
    theirs: Arc<Theirs>,
}

impl onesided::Outgoing for Outgoing {
    async fn write_all(
        &mut self,
        slices: &mut [IoSlice<'_>],
        pulse: &Pulse,
    ) -> Result<(), LinkError> {
        write_all(&mut self.socket, slices, pulse).await
    }

    async fn finish(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    async fn share(&mut self, slab: &Arc<Slab>, pulse: &Pulse) -> Result<(), LinkError> {
        let mut head = vec![0; HEADER_BYTES];
        seal(&mut head, Header::new(Kind::Slab, 0, 0), &[], 0);
        let sent = self.socket.send_with(&head, slab.memory()).await?;
        pulse.sent(sent);
        let mut rest = [IoSlice::new(&head[sent..])];
        write_all(&mut self.socket, &mut rest[..usize::from(sent < head.len())], pulse).await
    }

    async fn push(&mut self, parts: &[SharedBuf], mut place: Span) -> Result<(), LinkError> {
        for part in parts {
            self.theirs.push(part, place)?;
            place.offset += part.len() as u32;
            place.len -= part.len() as u32;
        }
        Ok(())
    }
}

impl ReadHalf for Incoming {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.read(into).await
    }
}

impl onesided::Incoming for Incoming {
    fn open(&mut self, slabs: u32) {
        self.socket.open();
        self.theirs.grant(slabs);
    }

    fn learn(&mut self, _annex: &[u8]) -> Result<(), LinkError> {
        let memory = self.socket.take_memory().ok_or(FrameError::BulkMisplaced)?;
        Ok(self.theirs.add(memory)?)
    }

    async fn pull(&mut self, from: Span, into: &mut [u8]) -> Result<(), LinkError> {
        Ok(self.theirs.pull(from, into)?)
    }

    /// The peer does not touch our memory any more when it has closed its end.
    async fn until_closed(&mut self) {
        let mut bin = [0; 4 << 10];
        while self.socket.read(&mut bin).await.is_ok_and(|count| count > 0) {
            while self.socket.take_memory().is_some() {}
        }
    }
}

/// A name for a server's local socket that no other has.
pub(crate) fn new_name() -> io::Result<String> {
    let random = crate::auth::random().map_err(io::Error::other)?;
    let hex: String = random[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("ff2/{hex}"))
}

/// The socket's path: an abstract one, which only this host's network namespace has, and which is gone
/// with its process.
pub(crate) fn path_of(name: &str) -> std::path::PathBuf {
    format!("\0{name}").into()
}
