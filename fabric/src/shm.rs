//! Frames between processes of one host: heads through a local socket, bulk bytes through memory.
//!
//! Each side shares the slabs that its buffers are cut from, as it first uses them (`Slab` frames bring
//! them), and a frame says where its bulk bytes lie instead of carrying them. A request's payload is
//! pulled by the server, out of the client's memory into its own; a reply's bulk bytes are pushed by
//! the server to where the client wanted them. So a server shows no client any memory of its own, as
//! with one-sided RDMA, and what a client shares it must keep still: payloads and landing places stay
//! with their call until the reply, or until the server has closed the connection, even when nobody
//! waits for the outcome any more. Bytes that lie in no slab follow in the stream.
//!
//! The server offers a name in its welcome; a client on the same host connects to it, and both prove
//! themselves there as they do over TCP, and that they mean the same name. Before that no descriptor is
//! taken, and after it as many as the welcome grants.

mod annex;
mod mapping;
mod socket;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    sync::Arc,
};

use annex::Annex;
pub(crate) use annex::Span;
use mapping::Theirs;
use socket::{Incoming, Outgoing};
use tokio::net::UnixStream;

use crate::{
    buf::{SharedBuf, Slab},
    frame::{FrameError, HEAD_BYTES_MIN, HEADER_BYTES, Header, Kind, Limits, seal},
    pulse::Pulse,
    stream::{Reader, write_all},
    transport::{self, Frame, Head, Landing, LinkError},
};

/// Splits a connected socket.
pub(crate) fn split(
    stream: UnixStream,
    pulse: &Arc<Pulse>,
) -> io::Result<(transport::Sender, transport::Receiver)> {
    let (half, incoming) = socket::halves(stream)?;
    let theirs = Arc::<Theirs>::default();
    let sender = Sender {
        half,
        ours: HashMap::new(),
        may_share: 0,
        theirs: theirs.clone(),
        pulse: pulse.clone(),
    };
    let receiver = Receiver {
        reader: Reader::new(incoming),
        theirs,
        bulk: Bulk::default(),
        pulse: pulse.clone(),
    };
    Ok((transport::Sender::Shm(sender), transport::Receiver::Shm(receiver)))
}

#[derive(Debug)]
pub(crate) struct Sender {
    half: Outgoing,
    /// The slabs that the peer has, by their id here: their numbers on this connection.
    ours: HashMap<u64, Shared>,
    /// So many slabs the peer takes.
    may_share: u32,
    theirs: Arc<Theirs>,
    pulse: Arc<Pulse>,
}

/// A slab that the peer has. It is kept, so that its id is not met again as another one's.
#[derive(Debug)]
struct Shared {
    number: u32,
    _slab: Arc<Slab>,
}

impl Sender {
    /// The peer takes so many slabs of ours.
    pub(crate) fn may_share(&mut self, slabs: u32) {
        self.may_share = slabs;
    }

    #[cfg(test)]
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        write_all(&mut self.half, &mut [IoSlice::new(bytes)], &self.pulse).await.unwrap();
    }

    pub(crate) async fn send(&mut self, frames: &mut [Frame]) -> Result<(), LinkError> {
        for frame in &*frames {
            for slab in frame.bulk.iter().filter_map(|part| part.slab()) {
                // What a reply brings is pushed: a client never sees memory of the server.
                if frame.header.kind == Kind::Request {
                    self.share(slab).await?;
                }
            }
            if let Some(Landing::Ours { slab, .. }) = &frame.landing {
                self.share(slab).await?;
            }
        }
        let mut slices = Vec::with_capacity(frames.len());
        for frame in frames {
            let landed = self.push(frame)?;
            let places = if landed { Vec::new() } else { self.places(frame) };
            let annex = Annex {
                landed,
                landing: frame.landing.as_ref().and_then(|landing| self.landing(landing)),
                parts: spans(frame, &places),
            };
            let streamed = annex.parts.iter().any(|part| part.slab == Span::IN_STREAM);
            let mut annex = if annex == Annex::default() { Vec::new() } else { annex.encode() };
            if streamed {
                let so_far = frame.head.len() + annex.len();
                annex.resize(annex.len() + HEAD_BYTES_MIN.saturating_sub(so_far), 0);
            }
            let bulk_bytes = frame.bulk_bytes();
            seal(&mut frame.head, frame.header, &annex, bulk_bytes);
            slices.push(IoSlice::new(&frame.head));
            let parts = frame.bulk.iter().zip(&places).filter(|(part, _)| !part.is_empty());
            let in_stream = parts.filter(|(_, place)| place.is_none());
            slices.extend(in_stream.map(|(part, _)| IoSlice::new(part)));
        }
        write_all(&mut self.half, &mut slices, &self.pulse).await
    }

    /// Makes a slab known to the peer, unless it has as many as it takes: then bytes go in the stream.
    async fn share(&mut self, slab: &Arc<Slab>) -> Result<(), LinkError> {
        let number = self.ours.len();
        if self.ours.contains_key(&slab.id()) || number >= self.may_share as usize {
            return Ok(());
        }
        let mut head = vec![0; HEADER_BYTES];
        seal(&mut head, Header::new(Kind::Slab, 0, 0), &[], 0);
        let sent = self.half.send_with(&head, slab.memory()).await?;
        self.pulse.sent(sent);
        let mut rest = [IoSlice::new(&head[sent..])];
        write_all(&mut self.half, &mut rest[..usize::from(sent < head.len())], &self.pulse).await?;
        let shared = Shared { number: number as u32, _slab: slab.clone() };
        self.ours.insert(slab.id(), shared);
        Ok(())
    }

    /// Puts a reply's bulk bytes where the client wants them; whether there is such a place.
    fn push(&self, frame: &Frame) -> Result<bool, LinkError> {
        let bytes = frame.bulk_bytes();
        let Some(Landing::Theirs(mut place)) = frame.landing else { return Ok(false) };
        if bytes == 0 || bytes > place.len as usize {
            return Ok(false);
        }
        for part in &frame.bulk {
            self.theirs.push(part, place)?;
            place.offset += part.len() as u32;
            place.len -= part.len() as u32;
        }
        Ok(true)
    }

    /// Where the peer finds each part of a frame's bulk bytes; `None`: in the stream.
    fn places(&self, frame: &Frame) -> Vec<Option<Span>> {
        if frame.header.kind != Kind::Request || frame.bulk.len() >= Annex::SPANS_MAX {
            return vec![None; frame.bulk.len()];
        }
        let place = |part: &SharedBuf| {
            let (slab, offset) = part.place()?;
            self.span(slab, offset, part.len())
        };
        frame.bulk.iter().map(place).collect()
    }

    fn landing(&self, landing: &Landing) -> Option<Span> {
        match landing {
            Landing::Ours { slab, offset, len } => self.span(slab, *offset, *len),
            Landing::Theirs(_) => None,
        }
    }

    /// The place in a slab that the peer has.
    fn span(&self, slab: &Slab, offset: usize, len: usize) -> Option<Span> {
        let known = self.ours.get(&slab.id())?;
        Some(Span { slab: known.number, offset: offset as u32, len: len as u32 })
    }
}

/// The places as an annex names them: what follows in the stream in one piece is one span.
fn spans(frame: &Frame, places: &[Option<Span>]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::with_capacity(places.len());
    for (part, place) in frame.bulk.iter().zip(places) {
        match (place, spans.last_mut()) {
            (Some(place), _) => spans.push(*place),
            (None, Some(last)) if last.slab == Span::IN_STREAM => last.len += part.len() as u32,
            (None, _) => {
                spans.push(Span { slab: Span::IN_STREAM, offset: 0, len: part.len() as u32 });
            }
        }
    }
    spans.retain(|span| span.len > 0);
    spans
}

/// What is left of the bulk bytes of the frame whose head was read last.
#[derive(Debug, Default)]
struct Bulk {
    landed: bool,
    parts: VecDeque<Span>,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    reader: Reader<Incoming>,
    theirs: Arc<Theirs>,
    bulk: Bulk,
    pulse: Arc<Pulse>,
}

impl Receiver {
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        loop {
            let (header, message, annex) = self.reader.head(&self.pulse).await?;
            if header.kind == Kind::Slab {
                let memory = self.reader.half.take_memory().ok_or(FrameError::BulkMisplaced)?;
                self.theirs.add(memory)?;
                continue;
            }
            let Annex { landed, landing, parts } = Annex::decode(&annex)?;
            let named: u64 = parts.iter().map(|part| u64::from(part.len)).sum();
            if !landed && named != u64::from(header.bulk_bytes) {
                return Err(FrameError::BulkMisplaced.into());
            }
            self.bulk = Bulk { landed, parts: parts.into() };
            return Ok(Head { header, message, landing, landed });
        }
    }

    /// Bytes that landed are there already: `into` is the place that the request named.
    pub(crate) async fn bulk(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        let mut at = 0;
        while at < into.len() && !self.bulk.landed {
            let part = self.bulk.next(into.len() - at)?;
            let place = &mut into[at..at + part.len as usize];
            at += place.len();
            if part.slab == Span::IN_STREAM {
                self.reader.bulk(place, &self.pulse).await?;
            } else {
                self.theirs.pull(part, place)?;
            }
        }
        Ok(())
    }

    pub(crate) async fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        let mut left = count;
        while left > 0 && !self.bulk.landed {
            let part = self.bulk.next(left)?;
            left -= part.len as usize;
            if part.slab == Span::IN_STREAM {
                self.reader.skip(part.len as usize, &self.pulse).await?;
            }
        }
        Ok(())
    }

    /// The peer proved who it is, and may share so many slabs.
    pub(crate) fn open(&mut self, limits: Limits, slabs: u32) {
        self.reader.limits = limits;
        self.reader.half.open();
        self.theirs.grant(slabs);
    }

    /// Returns when the peer has closed its end, and so will not touch our memory any more.
    pub(crate) async fn until_closed(&mut self) {
        let mut bin = [0; 4 << 10];
        while crate::stream::ReadHalf::read(&mut self.reader.half, &mut bin)
            .await
            .is_ok_and(|count| count > 0)
        {
            while self.reader.half.take_memory().is_some() {}
        }
    }
}

impl Bulk {
    /// The next bytes that lie together, at most so many.
    fn next(&mut self, most: usize) -> Result<Span, FrameError> {
        let part = self.parts.front_mut().ok_or(FrameError::BulkMisplaced)?;
        let taken = Span { len: part.len.min(u32::try_from(most).unwrap_or(u32::MAX)), ..*part };
        part.len -= taken.len;
        part.offset = part.offset.saturating_add(taken.len);
        if part.len == 0 {
            self.parts.pop_front();
        }
        Ok(taken)
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
