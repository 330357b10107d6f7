//! Who sends what to whom, in which order, and what is added where: lists of steps, without any I/O.
//!
//! A rank's part of an operation is a few sequences that run beside each other, each in order. Receiving waits for
//! the piece; sending does not wait for the receiver. Equal arguments give equal steps, so every sum is made in the
//! same order in every run.

mod ring;
#[cfg(test)]
mod tests;
mod tree;

use std::ops::Range;

pub use ring::{all_gather, reduce_scatter};
pub use tree::{all_reduce, broadcast};

/// What to do with numbers that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Add,
    Replace,
}

/// One piece that goes or comes. `part` is a range of the operation's numbers, on both sides the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Send { to: usize, tag: u32, part: Range<usize> },
    Receive { from: usize, tag: u32, part: Range<usize>, how: How },
}

/// Steps in order.
pub type Sequence = Vec<Step>;

/// Of `ranks` ranks the one that is meant, and how many numbers travel as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    pub ranks: usize,
    pub piece: usize,
}

impl Place {
    fn is_valid(self) -> bool {
        self.rank < self.ranks && self.piece > 0
    }
}

/// The range in pieces of at most `piece` numbers.
fn pieces(range: Range<usize>, piece: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let end = range.end;
    range.step_by(piece).map(move |start| start..end.min(start + piece))
}

/// With whom a rank exchanges, in turns: in each turn it sends to one and receives from another, and no rank is
/// sent to by two. Its own turn, without anybody else, is left out.
pub fn turns(rank: usize, ranks: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..ranks).map(move |turn| ((rank + turn) % ranks, (rank + ranks - turn) % ranks))
}
