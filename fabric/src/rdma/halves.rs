//! The two halves of a connection by RDMA, as [`crate::onesided`] uses them.
//!
//! The TCP connection that it was made over stays open beneath, silent: where one side ends it, the other
//! learns that the pair has no peer any more, also when it only receives.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Instant,
};

use ff2_verbs::{Buffer, Direction, Place, Remote, Shared, WorkId};

use super::{End, shared_pair::SharedPair, staging::Piece};
use crate::{
    buf::{Buf, SharedBuf, Slab},
    clock,
    frame::{FrameError, HEADER_BYTES, Header, Kind, seal},
    limits::{LENT_BYTES_MIN, RDMA_LOOK, RDMA_MESSAGE_BYTES, STAGING_PIECE_BYTES, STAGING_WINDOW},
    onesided::{self, annex::Span},
    pulse::Pulse,
    stream::ReadHalf,
    tcp,
    transport::LinkError,
};

#[derive(Debug)]
pub(crate) struct Outgoing {
    pair: Arc<SharedPair>,
    /// Of the longest message.
    message_bytes: usize,
    /// What the peer reaches of ours.
    shown: Vec<Arc<Shared>>,
    pulse: Arc<Pulse>,
    /// When it was last looked whether the device is there.
    looked: Instant,
    /// The peer notices when it is dropped.
    beneath: Option<tcp::Sender>,
}

#[derive(Debug)]
pub(crate) struct Incoming {
    pair: Arc<SharedPair>,
    pulse: Arc<Pulse>,
    beneath: Option<tcp::Receiver>,
}

/// Of an end that is connected.
pub(super) fn halves(
    end: End,
    longest: u32,
    pulse: &Arc<Pulse>,
) -> io::Result<(Outgoing, Incoming)> {
    let pair = SharedPair::new(end)?;
    let outgoing = Outgoing {
        pair: pair.clone(),
        message_bytes: RDMA_MESSAGE_BYTES.min(longest as usize),
        shown: Vec::new(),
        pulse: pulse.clone(),
        looked: clock::now(),
        beneath: None,
    };
    Ok((outgoing, Incoming { pair, pulse: pulse.clone(), beneath: None }))
}

impl Outgoing {
    pub(super) fn keep(&mut self, beneath: tcp::Sender) {
        self.beneath = Some(beneath);
    }

    /// From where it leaves.
    pub(crate) fn place(&self) -> &Place {
        &self.pair.place
    }

    /// Fails if the device was taken away. Each side sends something every few seconds, so this finds it out.
    fn look(&mut self) -> Result<(), LinkError> {
        let now = clock::now();
        if now.saturating_duration_since(self.looked) < RDMA_LOOK {
            return Ok(());
        }
        self.looked = now;
        self.pair.is_there()
    }

    async fn send(&mut self, mut message: Buffer, len: usize) -> Result<(), LinkError> {
        message.truncate(len);
        self.pair.send(message).await?;
        self.pulse.sent(len);
        Ok(())
    }
}

impl onesided::Outgoing for Outgoing {
    async fn write_all(
        &mut self,
        slices: &mut [IoSlice<'_>],
        _pulse: &Pulse,
    ) -> Result<(), LinkError> {
        self.look()?;
        let (mut message, mut len) = (None, 0);
        for slice in slices {
            let mut left = &slice[..];
            while !left.is_empty() {
                let mut buffer = match message.take() {
                    Some(buffer) => buffer,
                    None => self.pair.blank_message().await?,
                };
                let count = left.len().min(self.message_bytes - len);
                buffer[len..len + count].copy_from_slice(&left[..count]);
                (left, len) = (&left[count..], len + count);
                if len == self.message_bytes {
                    self.send(buffer, len).await?;
                    len = 0;
                } else {
                    message = Some(buffer);
                }
            }
        }
        if let Some(message) = message {
            self.send(message, len).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), LinkError> {
        self.pair.acknowledged().await
    }

    async fn share(&mut self, slab: &Arc<Slab>, pulse: &Pulse) -> Result<(), LinkError> {
        let shared = self.pair.show(slab)?;
        let mut head = vec![0; HEADER_BYTES];
        seal(&mut head, Header::new(Kind::Slab, 0, 0), &shared.remote().encode(), 0);
        self.shown.push(shared);
        self.write_all(&mut [IoSlice::new(&head)], pulse).await
    }

    /// A message that is sent afterwards arrives afterwards.
    async fn push(&mut self, parts: &[SharedBuf], place: Span) -> Result<(), LinkError> {
        let place = self.pair.theirs(place)?;
        if parts.iter().all(|part| part.len() >= LENT_BYTES_MIN && part.slab().is_some()) {
            self.push_lent(parts, place).await
        } else {
            self.push_copied(parts, place).await
        }
    }
}

impl Outgoing {
    /// Out of the memory that they lie in, which the device has until it is done.
    async fn push_lent(&mut self, parts: &[SharedBuf], place: Remote) -> Result<(), LinkError> {
        let mut at = 0;
        for part in parts {
            let lent = part.slab().map(|slab| self.pair.lend(slab, part.clone()));
            let remote = piece(place, at, part.len())?;
            match lent {
                Some(Ok(local)) => {
                    self.pair.pushes_below(STAGING_WINDOW).await?;
                    self.pair.start_with(Direction::Push, local, None, remote).await?;
                    self.pulse.sent(part.len());
                }
                _ => self.push_copied(std::slice::from_ref(part), remote).await?,
            }
            at += part.len();
        }
        Ok(())
    }

    async fn push_copied(&mut self, parts: &[SharedBuf], place: Remote) -> Result<(), LinkError> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut parts = parts.iter().map(|part| &part[..]);
        let (mut part, mut at): (&[u8], usize) = (&[], 0);
        while at < total {
            self.pair.pushes_below(STAGING_WINDOW).await?;
            let len = (total - at).min(STAGING_PIECE_BYTES);
            let mut room = self.pair.staging()?.take(len).await;
            let mut filled = 0;
            while filled < len {
                if part.is_empty() {
                    part = parts.next().expect("as many bytes as were counted");
                }
                let count = part.len().min(len - filled);
                room.buffer[filled..filled + count].copy_from_slice(&part[..count]);
                (part, filled) = (&part[count..], filled + count);
            }
            let remote = piece(place, at, len)?;
            self.pair.start(Direction::Push, room, remote).await?;
            self.pulse.sent(len);
            at += len;
        }
        Ok(())
    }
}

impl ReadHalf for Incoming {
    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Self { pair, beneath, .. } = self;
        let ended = async {
            match beneath {
                Some(tcp) => tcp.ended().await,
                None => std::future::pending().await,
            }
        };
        let read = tokio::select! {
            // What came before the end is read before it.
            biased;
            read = pair.until(|state| state.read(into)) => read,
            () = ended => pair.rest(into).unwrap_or(Ok(0)),
        };
        read.map_err(|why| match why {
            LinkError::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })
    }
}

impl onesided::Incoming for Incoming {
    fn open(&mut self, slabs: u32) {
        self.pair.grant(slabs);
    }

    fn learn(&mut self, annex: &[u8]) -> Result<(), LinkError> {
        let slab = annex.try_into().map_err(|_| FrameError::BulkMisplaced)?;
        Ok(self.pair.learn(Remote::decode(slab))?)
    }

    async fn pull(&mut self, from: Span, into: &mut [u8]) -> Result<(), LinkError> {
        self.pulling(vec![from])?.copied(into).await
    }

    /// The peer reaches nothing once our end is destroyed.
    async fn until_closed(&mut self) {
        self.pair.destroy();
    }
}

impl Incoming {
    pub(super) fn keep(&mut self, beneath: tcp::Receiver) {
        self.beneath = Some(beneath);
    }

    /// Bytes that the peer has at these places, to be pulled beside what else is done on the connection.
    pub(crate) fn pulling(&self, parts: Vec<Span>) -> Result<Pulling, LinkError> {
        let places = parts.into_iter().map(|part| self.pair.theirs(part));
        let places = places.collect::<Result<_, _>>()?;
        Ok(Pulling { pair: self.pair.clone(), pulse: self.pulse.clone(), places })
    }
}

/// A payload that the peer has.
#[derive(Debug)]
pub(crate) struct Pulling {
    pair: Arc<SharedPair>,
    pulse: Arc<Pulse>,
    places: Vec<Remote>,
}

impl Pulling {
    /// Takes all of it: straight into the buffer, where that can be lent to the device and the bytes lie together.
    pub(crate) async fn finish(self, mut into: Buf) -> Result<Buf, LinkError> {
        let (&[place], Some(slab)) = (&self.places[..], into.slab().cloned()) else {
            self.copied(&mut into).await?;
            return Ok(into);
        };
        let len = into.len();
        match self.pair.lend(&slab, into) {
            Ok(local) => {
                let id = self.pair.start_with(Direction::Pull, local, None, place).await?;
                let (local, _) = self.pair.pulled(id).await?;
                self.pulse.heard(len);
                Ok(local.into_owner().expect("as it was lent"))
            }
            Err(mut into) => {
                self.copied(&mut into).await?;
                Ok(into)
            }
        }
    }

    async fn copied(&self, mut into: &mut [u8]) -> Result<(), LinkError> {
        for place in &self.places {
            let len = into.len().min(place.len as usize);
            let (part, rest) = std::mem::take(&mut into).split_at_mut(len);
            self.part(*place, part).await?;
            into = rest;
        }
        Ok(())
    }

    /// Several pieces are on their way at a time; each is copied while the next ones come.
    async fn part(&self, from: Remote, into: &mut [u8]) -> Result<(), LinkError> {
        let mut coming: VecDeque<(WorkId, usize)> = VecDeque::new();
        let (mut asked, mut at) = (0, 0);
        while at < into.len() {
            while asked < into.len() && coming.len() < STAGING_WINDOW {
                let len = (into.len() - asked).min(STAGING_PIECE_BYTES);
                let Some(room) = self.staged(len, coming.is_empty()).await? else { break };
                let remote = piece(from, asked, len)?;
                let id = self.pair.start(Direction::Pull, room, remote).await?;
                coming.push_back((id, len));
                asked += len;
            }
            let (id, len) = coming.pop_front().expect("one is waited for");
            // With its loan, until it was copied.
            let (came, _loan) = self.pair.pulled(id).await?;
            self.pulse.heard(len);
            into[at..at + len].copy_from_slice(&came);
            at += len;
        }
        Ok(())
    }

    /// Room to pull into; `None`: there is none now, and more is not worth waiting for.
    async fn staged(&self, len: usize, wait: bool) -> Result<Option<Piece>, LinkError> {
        let staging = self.pair.staging()?;
        Ok(match wait {
            true => Some(staging.take(len).await),
            false => staging.try_take(len),
        })
    }
}

/// Some bytes of a place that has room for them.
fn piece(place: Remote, at: usize, len: usize) -> Result<Remote, FrameError> {
    place.part(at as u32, len as u32).ok_or(FrameError::BulkMisplaced)
}
