//! Pieces that came before their operation asked for them, and operations that ask before their pieces came.
//!
//! Bounded by the senders' windows: a sender's call is answered only when its piece was taken from here.

use std::collections::BTreeMap;

use ff2_fabric::Buf;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Which piece: numbers are agreed on by both sides because both do the same operations in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) from: usize,
    pub(crate) stream: u32,
    pub(crate) operation: u64,
    pub(crate) tag: u32,
    pub(crate) piece: u32,
}

/// What came, and what its sender says of the operation.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) kind: u32,
    pub(crate) total_bytes: u64,
    pub(crate) bytes: Buf,
    /// Dropped when the piece was used, whereupon the sender's call is answered.
    pub(crate) _held: oneshot::Sender<()>,
}

#[derive(Debug)]
enum Slot {
    Here(Piece),
    Awaited(oneshot::Sender<Piece>),
}

#[derive(Debug, Default)]
struct Contents {
    slots: BTreeMap<Key, Slot>,
    /// The operations that go on here, by stream and number.
    kinds: BTreeMap<(u32, u64), u32>,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// None once it is closed.
    contents: Mutex<Option<Contents>>,
}

/// Why a piece was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    Closed,
    Twice,
    /// The operation of this number is one of this kind here.
    OtherKind(u32),
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self { contents: Mutex::new(Some(Contents::default())) }
    }

    /// An operation begins. Gives a rank that sent pieces of another kind under its number, and that kind.
    pub(crate) fn begin(&self, stream: u32, operation: u64, kind: u32) -> Option<(usize, u32)> {
        let mut contents = self.contents.lock();
        let contents = contents.as_mut()?;
        contents.kinds.insert((stream, operation), kind);
        contents.slots.iter().find_map(|(key, slot)| match slot {
            Slot::Here(piece) if (key.stream, key.operation) == (stream, operation) => {
                (piece.kind != kind).then_some((key.from, piece.kind))
            }
            Slot::Here(_) | Slot::Awaited(_) => None,
        })
    }

    pub(crate) fn end(&self, stream: u32, operation: u64) {
        if let Some(contents) = self.contents.lock().as_mut() {
            contents.kinds.remove(&(stream, operation));
        }
    }

    pub(crate) fn put(&self, key: Key, piece: Piece) -> Result<(), Unwanted> {
        let mut contents = self.contents.lock();
        let Contents { slots, kinds } = contents.as_mut().ok_or(Unwanted::Closed)?;
        if let Some(&kind) = kinds.get(&(key.stream, key.operation))
            && kind != piece.kind
        {
            return Err(Unwanted::OtherKind(kind));
        }
        match slots.remove(&key) {
            None => {
                slots.insert(key, Slot::Here(piece));
            }
            Some(Slot::Awaited(asker)) => {
                // An asker that is gone failed, and with it the communicator.
                let _gone = asker.send(piece);
            }
            Some(here @ Slot::Here(_)) => {
                slots.insert(key, here);
                return Err(Unwanted::Twice);
            }
        }
        Ok(())
    }

    /// The piece, once it is there; an error if that cannot be any more.
    pub(crate) fn take(&self, key: Key) -> oneshot::Receiver<Piece> {
        let (asker, answer) = oneshot::channel();
        if let Some(Contents { slots, .. }) = self.contents.lock().as_mut() {
            match slots.remove(&key) {
                Some(Slot::Here(piece)) => {
                    let _kept_here = asker.send(piece);
                }
                Some(Slot::Awaited(_)) | None => {
                    slots.insert(key, Slot::Awaited(asker));
                }
            }
        }
        answer
    }

    /// Ends all that wait, on either side.
    pub(crate) fn close(&self) {
        *self.contents.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const KEY: Key = Key { from: 1, stream: 0, operation: 2, tag: 3, piece: 4 };

    fn piece() -> (Piece, oneshot::Receiver<()>) {
        let (held, released) = oneshot::channel();
        let bytes = Buf::unpooled(8);
        (Piece { kind: 0, total_bytes: 8, bytes, _held: held }, released)
    }

    #[test]
    fn a_piece_is_released_when_it_was_used_and_not_before() {
        let mailbox = Mailbox::new();
        let (sent, mut released) = piece();
        mailbox.put(KEY, sent).unwrap();
        assert!(released.is_empty() && !released.is_terminated());
        let taken = mailbox.take(KEY).blocking_recv().unwrap();
        assert_eq!(released.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(taken);
        assert_eq!(released.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn who_asks_first_gets_it_too_and_none_comes_twice() {
        let mailbox = Mailbox::new();
        let mut answer = mailbox.take(KEY);
        mailbox.put(KEY, piece().0).unwrap();
        assert_eq!(answer.try_recv().unwrap().bytes.len(), 8);
        mailbox.put(KEY, piece().0).unwrap();
        assert_eq!(mailbox.put(KEY, piece().0), Err(Unwanted::Twice));
    }

    #[test]
    fn the_end_is_told_to_both_sides() {
        let mailbox = Mailbox::new();
        let other = Key { piece: 5, ..KEY };
        let (sent, released) = piece();
        mailbox.put(other, sent).unwrap();
        let answer = mailbox.take(KEY);
        mailbox.close();
        answer.blocking_recv().unwrap_err();
        released.blocking_recv().unwrap_err();
        assert_eq!(mailbox.put(KEY, piece().0), Err(Unwanted::Closed));
        mailbox.take(KEY).blocking_recv().unwrap_err();
    }

    #[test]
    fn another_kind_is_noticed_whoever_is_first() {
        let mailbox = Mailbox::new();
        mailbox.put(KEY, piece().0).unwrap();
        assert_eq!(mailbox.begin(0, 2, 9), Some((1, 0)));
        let late = Key { piece: 5, ..KEY };
        assert_eq!(mailbox.put(late, piece().0), Err(Unwanted::OtherKind(9)));
        mailbox.end(0, 2);
        mailbox.put(late, piece().0).unwrap();
        assert_eq!(mailbox.begin(0, 3, 9), None);
    }
}
