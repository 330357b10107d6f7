//! Frames whose bulk bytes one side moves into and out of the other's memory: between processes of one host
//! ([`crate::shm`]) and by RDMA ([`crate::rdma`]).
//!
//! The client shares the slabs that its buffers are cut from, as it first uses them (`Slab` frames bring
//! them), and a frame says where its bulk bytes lie instead of carrying them. A request's payload is
//! pulled by the server, out of the client's memory into its own; a reply's bulk bytes are pushed by
//! the server to where the client wanted them. So a server shows no client any memory of its own,
//! and what a client shares it must keep still: payloads and landing places stay
//! with their call until the reply, or until the peer can reach them no more, even when nobody
//! waits for the outcome any more. Bytes that lie in no slab follow in the stream.

pub(crate) mod annex;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io::IoSlice,
    sync::Arc,
};

use annex::{Annex, Span};

use crate::{
    buf::{SharedBuf, Slab},
    frame::{FrameError, HEAD_BYTES_MIN, Kind, Limits, seal},
    pulse::Pulse,
    rdma,
    stream::{ReadHalf, Reader},
    transport::{Frame, Head, Landing, LinkError},
};

/// The sending half of a stream whose peer's memory can be written.
pub(crate) trait Outgoing: Send {
    /// Sends all bytes, in order and after all that was pushed.
    fn write_all(
        &mut self,
        slices: &mut [IoSlice<'_>],
        pulse: &Pulse,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Returns when the peer has all that was sent, so that none is lost if the connection is ended then.
    fn finish(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Makes the next slab known to the peer, by a frame of kind `Slab`.
    fn share(
        &mut self,
        slab: &Arc<Slab>,
        pulse: &Pulse,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Puts bytes at the peer's place, which has room for them.
    fn push(
        &mut self,
        parts: &[SharedBuf],
        place: Span,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// The receiving half of a stream whose peer's memory can be read.
pub(crate) trait Incoming: ReadHalf + Send {
    /// The peer proved who it is, and may share so many slabs.
    fn open(&mut self, slabs: u32);

    /// A frame of kind `Slab` came, with this annex.
    fn learn(&mut self, annex: &[u8]) -> Result<(), LinkError>;

    /// Takes as many bytes as `into` has from the peer's place.
    fn pull(
        &mut self,
        from: Span,
        into: &mut [u8],
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Returns when the peer can reach no memory of ours any more.
    fn until_closed(&mut self) -> impl Future<Output = ()> + Send;
}

#[derive(Debug)]
pub(crate) struct Sender<O> {
    half: O,
    /// The slabs that the peer has, by their id here: their numbers on this connection.
    ours: HashMap<u64, Known>,
    /// So many slabs the peer takes.
    may_share: u32,
    pulse: Arc<Pulse>,
}

/// A slab that the peer has. It is kept, so that its id is not met again as another one's.
#[derive(Debug)]
struct Known {
    number: u32,
    _slab: Arc<Slab>,
}

impl<O: Outgoing> Sender<O> {
    pub(crate) fn new(half: O, pulse: &Arc<Pulse>) -> Self {
        Self { half, ours: HashMap::new(), may_share: 0, pulse: pulse.clone() }
    }

    pub(crate) fn half(&mut self) -> &mut O {
        &mut self.half
    }

    pub(crate) async fn finish(&mut self) -> Result<(), LinkError> {
        self.half.finish().await
    }

    /// The peer takes so many slabs of ours.
    pub(crate) fn may_share(&mut self, slabs: u32) {
        self.may_share = slabs;
    }

    #[cfg(test)]
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.half.write_all(&mut [IoSlice::new(bytes)], &self.pulse).await.unwrap();
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
            let landed = self.push(frame).await?;
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
        self.half.write_all(&mut slices, &self.pulse).await
    }

    /// Makes a slab known to the peer, unless it has as many as it takes: then bytes go in the stream.
    async fn share(&mut self, slab: &Arc<Slab>) -> Result<(), LinkError> {
        let number = self.ours.len();
        if self.ours.contains_key(&slab.id()) || number >= self.may_share as usize {
            return Ok(());
        }
        self.half.share(slab, &self.pulse).await?;
        let known = Known { number: number as u32, _slab: slab.clone() };
        self.ours.insert(slab.id(), known);
        Ok(())
    }

    /// Puts a reply's bulk bytes where the client wants them; whether there is such a place.
    async fn push(&mut self, frame: &Frame) -> Result<bool, LinkError> {
        let bytes = frame.bulk_bytes();
        let Some(Landing::Theirs(place)) = frame.landing else { return Ok(false) };
        if bytes == 0 || bytes > place.len as usize {
            return Ok(false);
        }
        self.half.push(&frame.bulk, place).await?;
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
pub(crate) struct Receiver<I> {
    reader: Reader<I>,
    bulk: Bulk,
    pulse: Arc<Pulse>,
}

impl<I: Incoming> Receiver<I> {
    pub(crate) fn new(half: I, pulse: &Arc<Pulse>) -> Self {
        Self { reader: Reader::new(half), bulk: Bulk::default(), pulse: pulse.clone() }
    }

    pub(crate) fn half(&mut self) -> &mut I {
        &mut self.reader.half
    }

    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        loop {
            let (header, message, annex) = self.reader.head(&self.pulse).await?;
            if header.kind == Kind::Slab {
                self.reader.half.learn(&annex)?;
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
                self.reader.half.pull(part, place).await?;
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
        self.reader.half.open(slabs);
    }

    /// Our sending half is gone: returns when the peer can reach no memory of ours any more.
    pub(crate) async fn until_closed(&mut self) {
        self.reader.half.until_closed().await;
    }
}

impl Receiver<rdma::Incoming> {
    /// The bulk bytes of the frame whose head was read last, to be pulled while further frames come. `None` if some of
    /// them come in the stream.
    pub(crate) fn detach(&mut self) -> Result<Option<rdma::Pulling>, LinkError> {
        let in_stream = |part: &Span| part.slab == Span::IN_STREAM;
        if self.bulk.landed || self.bulk.parts.iter().any(in_stream) {
            return Ok(None);
        }
        let parts = std::mem::take(&mut self.bulk.parts);
        self.reader.half.pulling(parts.into()).map(Some)
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
