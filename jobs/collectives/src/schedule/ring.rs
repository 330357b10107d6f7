//! Rings: each rank sends to the next and receives from the one before, all links busy at once. Every number travels
//! as often as there are other ranks, each time as a part of 1/ranks: nothing moves fewer bytes.

use std::ops::Range;

use super::{How, Place, Sequence, Step, pieces};

/// Sums `parts.iter().sum()` numbers; afterwards the rank r has the sum in its part, `parts[r]` numbers behind those of
/// the ranks before, and anything in the others'. A part's sum begins at the rank behind its owner.
pub fn reduce_scatter(place: Place, parts: &[usize]) -> Vec<Sequence> {
    around(place, parts, How::Add, 1)
}

/// Copies each rank's part, as in [`reduce_scatter`], to all.
pub fn all_gather(place: Place, parts: &[usize]) -> Vec<Sequence> {
    around(place, parts, How::Replace, 0)
}

/// In turn t the part of the rank `behind + t` before goes to the next rank.
fn around(place: Place, parts: &[usize], how: How, behind: usize) -> Vec<Sequence> {
    let Place { rank, ranks, piece } = place;
    assert!(place.is_valid() && parts.len() == ranks, "{place:?}, {} parts", parts.len());
    let part = |number: usize| {
        let start: usize = parts[..number].iter().sum();
        start..start + parts[number]
    };
    let (to, from) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
    let mut sequence = Sequence::new();
    for turn in 0..ranks - 1 {
        let before = |count: usize| part((rank + 2 * ranks - behind - count) % ranks);
        let cut =
            |range: Range<usize>| pieces(range, piece).map(Some).chain(std::iter::repeat(None));
        let mut sent = cut(before(turn));
        let mut received = cut(before(turn + 1));
        // One by one: what is received here is what the next turn sends, and follows at once.
        loop {
            let (gone, come) = (sent.next().flatten(), received.next().flatten());
            if gone.is_none() && come.is_none() {
                break;
            }
            sequence.extend(gone.map(|part| Step::Send { to, tag: 0, part }));
            sequence.extend(come.map(|part| Step::Receive { from, tag: 0, part, how }));
        }
    }
    vec![sequence]
}
