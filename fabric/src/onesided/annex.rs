//! What a frame says about memory, behind its message.
//!
//! ```text
//!  0  flags   u8    1: the bulk bytes are where the request wanted them; 2: the first span is a landing
//!  1  (zero)  u8
//!  2  spans   u16
//!  4  spans   12 bytes each: slab u32, offset u32, bytes u32
//! ```
//! Integers are little endian. What follows the last span is padding.

use crate::{frame::FrameError, limits::ANNEX_BYTES_MAX};

/// A run of bytes in memory that the sender of the frame shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// By the order in which the sender's slabs came; or [`Span::IN_STREAM`].
    pub(crate) slab: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// What the frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annex {
    pub(crate) landed: bool,
    pub(crate) landing: Option<Span>,
    /// Of the bulk bytes, in their order.
    pub(crate) parts: Vec<Span>,
}

const LANDED: u8 = 1;
const LANDING: u8 = 2;
const HEADER: usize = 4;
const SPAN: usize = 12;

impl Span {
    /// These bytes lie in no slab and follow in the stream.
    pub(crate) const IN_STREAM: u32 = u32::MAX;
}

impl Annex {
    /// The most spans that one frame can name.
    pub(crate) const SPANS_MAX: usize = (ANNEX_BYTES_MAX - HEADER) / SPAN;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let landed = if self.landed { LANDED } else { 0 };
        let landing = if self.landing.is_some() { LANDING } else { 0 };
        let spans = self.parts.len() + usize::from(self.landing.is_some());
        let mut bytes = Vec::with_capacity(HEADER + spans * SPAN);
        bytes.extend_from_slice(&[landed | landing, 0]);
        bytes.extend_from_slice(&u16::try_from(spans).expect("bounded").to_le_bytes());
        for Span { slab, offset, len } in self.landing.iter().chain(&self.parts) {
            for word in [slab, offset, len] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (header, spans) = bytes.split_at_checked(HEADER).ok_or(FrameError::BulkMisplaced)?;
        let count = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let spans = spans.get(..count * SPAN).ok_or(FrameError::BulkMisplaced)?;
        let mut parts: Vec<_> = spans.chunks_exact(SPAN).map(span).collect();
        let landing = match header[0] & LANDING {
            0 => None,
            _ if parts.is_empty() => return Err(FrameError::BulkMisplaced),
            _ => Some(parts.remove(0)),
        };
        Ok(Self { landed: header[0] & LANDED != 0, landing, parts })
    }
}

fn span(bytes: &[u8]) -> Span {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    Span { slab: word(0), offset: word(4), len: word(8) }
}

const _: () = assert!(Annex::SPANS_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Span> {
        any::<(u32, u32, u32)>().prop_map(|(slab, offset, len)| Span { slab, offset, len })
    }

    proptest! {
        #[test]
        fn what_was_said_is_read(
            landed: bool,
            landing in proptest::option::of(spans()),
            parts in proptest::collection::vec(spans(), 0..20),
            padding in 0..300usize,
        ) {
            let annex = Annex { landed, landing, parts };
            let mut bytes = annex.encode();
            bytes.resize(bytes.len() + padding, 0);
            prop_assert_eq!(Annex::decode(&bytes), Ok(annex));
        }

        #[test]
        fn garbage_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Annex::decode(&bytes);
        }
    }

    fn annexes() -> Vec<Vec<u8>> {
        let at = |slab| Span { slab, offset: 4096, len: 77 };
        let parts = vec![at(0), at(3), at(Span::IN_STREAM)];
        let said = Annex { landed: false, landing: Some(at(1)), parts: parts.clone() };
        let plain = Annex { landed: true, landing: None, parts };
        vec![said.encode(), plain.encode(), Annex::default().encode()]
    }

    #[test]
    fn damaged_annexes() {
        ff2_fuzz::target!(annexes(), |bytes| {
            if let Ok(annex) = ff2_fuzz::bounded(bytes, || Annex::decode(bytes)) {
                assert!(annex.parts.len() <= bytes.len() / SPAN, "no span that is not there");
                assert_eq!(Annex::decode(&annex.encode()), Ok(annex));
            }
        });
    }

    #[test]
    fn spans_that_are_not_there_are_refused() {
        assert_eq!(Annex::decode(&[0, 0, 1, 0]), Err(FrameError::BulkMisplaced));
        assert_eq!(Annex::decode(&[LANDING, 0, 0, 0]), Err(FrameError::BulkMisplaced));
        assert_eq!(Annex::decode(&[0, 0]), Err(FrameError::BulkMisplaced));
    }
}
