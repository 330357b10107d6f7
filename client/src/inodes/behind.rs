//! Writes that were accepted and are on their way to their chains, or still being gathered.
//!
//! Gathering makes few large updates of many small writes: each update costs every replica its syncs,
//! however few bytes it has. A piece lies in one chunk and has no gaps; a write that does not continue it
//! sends it off. A stream's pieces grow up to the chunk's end; a write out of the blue is a piece alone.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use ff2_fabric::Buf;
use ff2_proto::{Status, pb};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// The first piece of a stream; later ones double what the stream has so far.
const FIRST_PIECE: usize = 256 << 10;
/// A piece holds memory from its first byte on.
const PIECE_MAX: usize = 4 << 20;
/// Pieces of one inode that are being filled; the oldest is sent off for a new one.
const FILLING_MAX: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Behind {
    state: Mutex<State>,
    /// A piece ended.
    pub(crate) ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    filling: BTreeMap<u32, Piece>,
    /// To be sent, in this order.
    queue: VecDeque<Piece>,
    /// On their way, by number.
    flying: BTreeMap<u64, u32>,
    /// Somebody takes from the queue.
    is_served: bool,
    next: u64,
    stream: Stream,
    /// One past the furthest byte that was accepted since nothing was on its way.
    end: u64,
    failures: u64,
    failure: Option<Status>,
}

/// How far the last writes followed each other.
#[derive(Debug, Default)]
struct Stream {
    end: u64,
    bytes: usize,
}

/// Gathered bytes of one chunk.
#[derive(Debug)]
pub(crate) struct Piece {
    /// In the order of their making.
    pub(crate) number: u64,
    pub(crate) chunk: u32,
    /// First byte in the chunk.
    pub(crate) start: u32,
    pub(crate) buf: Buf,
    /// What the piece was made for.
    capacity: usize,
    began: Instant,
    /// Who wrote it.
    pub(crate) cred: pb::Credentials,
    pub(crate) room: OwnedSemaphorePermit,
}

/// A write within one chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) chunk: u32,
    pub(crate) start: u32,
    pub(crate) chunk_size: u32,
    /// In the file.
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

impl Behind {
    /// Takes a write in. False: there is no room, which `room` (of so many bytes) says.
    pub(crate) fn accept(
        &self,
        part: Part<'_>,
        cred: &pb::Credentials,
        room: impl FnOnce(usize) -> Option<(Buf, OwnedSemaphorePermit)>,
    ) -> bool {
        let mut state = self.state.lock();
        let end = part.offset + part.bytes.len() as u64;
        if !state.extend(part) {
            state.send_off(part.chunk);
            let capacity = state.capacity(part);
            let Some((mut buf, room)) = room(capacity) else { return false };
            buf.set_len(part.bytes.len());
            buf.copy_from_slice(part.bytes);
            let (began, cred) = (Instant::now(), cred.clone());
            let Part { chunk, start, .. } = part;
            state.next += 1;
            let number = state.next;
            state.begin(Piece { number, chunk, start, buf, capacity, began, cred, room });
        }
        let follows = state.stream.end == part.offset;
        state.stream.bytes = if follows { state.stream.bytes } else { 0 } + part.bytes.len();
        state.stream.end = end;
        state.end = state.end.max(end);
        true
    }

    /// One past the furthest byte that is on its way; 0: there is none.
    pub(crate) fn end(&self) -> u64 {
        self.state.lock().end
    }

    /// Sends off what was gathered of chunks that `which` chooses; returns the number of the last piece
    /// that there is.
    pub(crate) fn send_off(&self, which: impl Fn(u32) -> bool) -> u64 {
        let mut state = self.state.lock();
        let chosen: Vec<u32> =
            state.filling.keys().copied().filter(|chunk| which(*chunk)).collect();
        chosen.into_iter().for_each(|chunk| state.send_off(chunk));
        state.next
    }

    /// Whether a piece of these chunks, up to a number, did not end yet. Later ones are nobody's business
    /// who waits for what was written before.
    pub(crate) fn is_pending(&self, which: impl Fn(u32) -> bool, last: u64) -> bool {
        let state = self.state.lock();
        let queued = state.queue.iter().map(|piece| (piece.number, piece.chunk));
        let flying = state.flying.iter().map(|(number, chunk)| (*number, *chunk));
        queued.chain(flying).any(|(number, chunk)| number <= last && which(chunk))
    }

    /// Whether the caller must take from the queue from now on, until [`Behind::take`] says that it ended.
    pub(crate) fn must_serve(&self) -> bool {
        let mut state = self.state.lock();
        let must = !state.queue.is_empty() && !state.is_served;
        state.is_served |= must;
        must
    }

    /// The next piece; `None` ends the caller's service.
    pub(crate) fn take(&self) -> Option<Piece> {
        let mut state = self.state.lock();
        let Some(piece) = state.queue.pop_front() else {
            state.is_served = false;
            return None;
        };
        state.flying.insert(piece.number, piece.chunk);
        Some(piece)
    }

    /// A piece ended; its bytes are lost if it failed.
    pub(crate) fn landed(&self, number: u64, outcome: Result<(), Status>) {
        let mut state = self.state.lock();
        state.flying.remove(&number);
        if let Err(failure) = outcome {
            state.failures += 1;
            state.failure = Some(failure);
        }
        if state.is_idle() {
            state.end = 0;
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// How many pieces failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.state.lock().failures
    }

    /// The last failure, if there was one since `seen` were counted, and the count now.
    pub(crate) fn failed_since(&self, seen: u64) -> Option<(u64, Status)> {
        let state = self.state.lock();
        let failure = state.failure.clone().filter(|_| state.failures > seen)?;
        Some((state.failures, failure))
    }

    /// Something is being gathered for at least this long.
    pub(crate) fn is_overdue(&self, age: Duration) -> bool {
        self.state.lock().filling.values().any(|piece| piece.began.elapsed() >= age)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.filling.is_empty() && self.queue.is_empty() && self.flying.is_empty()
    }

    /// Puts the write into the piece of its chunk, if it continues or repeats that.
    fn extend(&mut self, part: Part<'_>) -> bool {
        let Some(piece) = self.filling.get_mut(&part.chunk) else { return false };
        let Some(from) = part.start.checked_sub(piece.start).map(|from| from as usize) else {
            return false;
        };
        let to = from + part.bytes.len();
        if from > piece.buf.len() || to > piece.capacity {
            return false;
        }
        let len = piece.buf.len().max(to);
        piece.buf.set_len(len);
        piece.buf[from..to].copy_from_slice(part.bytes);
        if len == piece.capacity {
            self.send_off(part.chunk);
        }
        true
    }

    /// Bytes of a new piece that begins with this write.
    fn capacity(&self, part: Part<'_>) -> usize {
        let least = part.bytes.len();
        if part.offset != self.stream.end {
            return least;
        }
        let left = (part.chunk_size - part.start) as usize;
        (2 * self.stream.bytes).clamp(FIRST_PIECE, PIECE_MAX).max(least).min(left)
    }

    fn begin(&mut self, piece: Piece) {
        if piece.buf.len() == piece.capacity {
            return self.queue.push_back(piece);
        }
        if self.filling.len() >= FILLING_MAX {
            let oldest = self.filling.values().min_by_key(|piece| piece.began);
            let oldest = oldest.expect("it is not empty").chunk;
            self.send_off(oldest);
        }
        self.filling.insert(piece.chunk, piece);
    }

    fn send_off(&mut self, chunk: u32) {
        self.queue.extend(self.filling.remove(&chunk));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    const CHUNK: u32 = 1 << 20;

    struct Room(Arc<Semaphore>);

    impl Room {
        fn take(&self, bytes: usize) -> Option<(Buf, OwnedSemaphorePermit)> {
            let permit = self.0.clone().try_acquire_many_owned(bytes as u32).ok()?;
            Some((Buf::unpooled(bytes), permit))
        }
    }

    fn write(behind: &Behind, room: &Room, offset: u64, bytes: &[u8]) -> bool {
        let (chunk, start) = (offset / u64::from(CHUNK), offset % u64::from(CHUNK));
        let part =
            Part { chunk: chunk as u32, start: start as u32, chunk_size: CHUNK, offset, bytes };
        assert!(part.start as usize + bytes.len() <= CHUNK as usize);
        behind.accept(part, &pb::Credentials::default(), |bytes| room.take(bytes))
    }

    /// Chunk, first byte and length of what is to be sent.
    fn taken(behind: &Behind) -> Vec<(u32, u32, usize)> {
        let next = || behind.take().map(|piece| (piece.chunk, piece.start, piece.buf.len()));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_stream_goes_in_pieces_that_grow_and_end_with_the_chunk() {
        let (behind, room) = (Behind::default(), Room(Arc::new(Semaphore::new(8 << 20))));
        for step in 0..40 {
            assert!(write(&behind, &room, step * (64 << 10), &[step as u8; 64 << 10]));
        }
        let k = 1 << 10;
        let sent =
            [(0, 0, 256 * k), (0, 256 << 10, 512 * k), (0, 768 << 10, 256 * k), (1, 0, k * k)];
        assert_eq!(taken(&behind), sent);
        assert_eq!(behind.end(), 40 * (64 << 10));
        assert_eq!(behind.send_off(|_| true), 5);
        assert_eq!(taken(&behind), [(2, 0, 512 * k)]);
    }

    #[test]
    fn what_does_not_follow_is_sent_alone_and_in_order() {
        let (behind, room) = (Behind::default(), Room(Arc::new(Semaphore::new(8 << 20))));
        assert!(write(&behind, &room, 0, b"begin"));
        assert!(write(&behind, &room, 3, b"over"), "it continues what is there");
        assert!(write(&behind, &room, 100, b"far"), "a hole ends the piece");
        assert!(write(&behind, &room, 50, b"back"));
        assert_eq!(taken(&behind), [(0, 0, 7), (0, 100, 3), (0, 50, 4)]);
    }

    #[test]
    fn room_bounds_what_is_gathered_and_failures_are_told_once_each() {
        let (behind, room) = (Behind::default(), Room(Arc::new(Semaphore::new(300 << 10))));
        assert!(write(&behind, &room, 0, &[1; 100]));
        assert!(!write(&behind, &room, 1 << 20, &[2; 60 << 10]), "no room for another");
        assert_eq!(behind.send_off(|_| true), 1);
        assert!(behind.must_serve() && !behind.must_serve());
        let piece = behind.take().unwrap();
        assert_eq!((behind.end(), &piece.buf[..]), (100, &[1; 100][..]));
        let number = piece.number;
        drop(piece);
        behind.landed(number, Err(Status::new(ff2_proto::Code::NoSpace, "full")));
        assert!(write(&behind, &room, 1 << 20, &[2; 60 << 10]));
        let (seen, failure) = behind.failed_since(0).unwrap();
        assert_eq!((seen, failure.code), (1, ff2_proto::Code::NoSpace));
        assert!(behind.failed_since(seen).is_none());
        assert_eq!((behind.is_overdue(Duration::ZERO), behind.failures()), (false, 1));
    }

    #[test]
    fn who_waits_does_not_wait_for_what_comes_later() {
        let (behind, room) = (Behind::default(), Room(Arc::new(Semaphore::new(8 << 20))));
        assert!(write(&behind, &room, 0, b"before"));
        let last = behind.send_off(|_| true);
        assert!(write(&behind, &room, 100, b"after"));
        assert!(write(&behind, &room, 200, b"after that"));
        assert!(behind.is_pending(|_| true, last) && !behind.is_pending(|chunk| chunk == 9, last));
        let number = behind.take().unwrap().number;
        assert!(behind.is_pending(|_| true, last), "it is on its way");
        behind.landed(number, Ok(()));
        assert!(!behind.is_pending(|_| true, last));
        assert_eq!(behind.end(), 210, "others are still to come");
    }
}
