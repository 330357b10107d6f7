//! Writes into a small file that lies in the namespace, until the namespace is told of them.

use std::collections::BTreeMap;

/// Pieces that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InlineWrites {
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Writes so far.
    number: u64,
}

impl InlineWrites {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a write in; it covers what was written before.
    pub fn write(&mut self, offset: u32, bytes: &[u8]) {
        self.number += 1;
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u32;
        let end_of = |(start, piece): (&u32, &Vec<u8>)| start + piece.len() as u32;
        let before = self.pieces.range(..offset).next_back();
        let start = match before {
            Some(piece) if end_of(piece) >= offset => *piece.0,
            Some(_) | None => offset,
        };
        // All that the write overlaps or touches becomes one piece.
        let touched: Vec<u32> = self.pieces.range(start..=end).map(|(start, _)| *start).collect();
        let mut whole = Vec::new();
        for at in touched {
            let piece = self.pieces.remove(&at).expect("it was just listed");
            whole.resize((at - start) as usize, 0);
            whole.extend_from_slice(&piece);
        }
        let (from, to) = ((offset - start) as usize, (end - start) as usize);
        whole.resize(whole.len().max(to), 0);
        whole[from..to].copy_from_slice(bytes);
        self.pieces.insert(start, whole);
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// First byte and bytes of each piece, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.pieces.iter().map(|(start, bytes)| (*start, bytes.as_slice()))
    }

    /// Puts the pieces over `bytes`, which grow as needed.
    pub fn over(&self, bytes: &mut Vec<u8>) {
        for (start, piece) in self.pieces() {
            let (start, end) = (start as usize, start as usize + piece.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(piece);
        }
    }

    /// Of the last write: an answer to what was sent up to it covers all that is here.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The namespace knows them, or nobody needs them any more.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_touches_becomes_one_piece() {
        let mut writes = InlineWrites::new();
        for (offset, bytes) in [(10, "cc"), (4, "aa"), (6, "bbbb"), (20, "d"), (11, "ee")] {
            writes.write(offset, bytes.as_bytes());
        }
        let pieces: Vec<_> = writes.pieces().collect();
        assert_eq!(pieces, [(4, b"aabbbbcee".as_slice()), (20, b"d")]);
        assert_eq!(writes.number(), 5);
        writes.clear();
        assert!(writes.is_empty());
        assert_eq!(writes.number(), 5, "what was sent is still not mixed up with what comes");
    }

    proptest! {
        #[test]
        fn they_are_what_a_plain_file_would_hold(
            writes in proptest::collection::vec((0_u32..200, 0_usize..60, 1_u8..), 0..40),
        ) {
            let (mut pending, mut plain) = (InlineWrites::new(), Vec::new());
            let mut written = vec![false; 300];
            for (offset, length, byte) in writes {
                let end = offset as usize + length;
                pending.write(offset, &vec![byte; length]);
                if length > 0 {
                    plain.resize(plain.len().max(end), 0);
                    plain[offset as usize..end].fill(byte);
                    written[offset as usize..end].fill(true);
                }
                let mut seen = Vec::new();
                pending.over(&mut seen);
                prop_assert_eq!(&seen, &plain);
                let covered: usize = pending.pieces().map(|(_, bytes)| bytes.len()).sum();
                prop_assert_eq!(covered, written.iter().filter(|written| **written).count());
                let ends: Vec<_> = pending.pieces().map(|(at, b)| (at, at + b.len() as u32)).collect();
                prop_assert!(ends.windows(2).all(|two| two[0].1 < two[1].0), "they do not touch");
            }
        }
    }
}
