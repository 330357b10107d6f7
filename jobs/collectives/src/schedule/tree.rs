//! Double binary trees (Sanders, Speck, Träff 2009): who passes on much in one tree passes on nothing in the other, so
//! every rank sends and receives about twice the numbers, whatever their count, in a logarithm of steps.

use super::{How, Place, Sequence, Step, pieces};

/// A rank's neighbours in one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// None: the root.
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
}

/// The parent in the in-order tree over 0..ranks, whose root 0 has one child: a number's place follows from its lowest
/// set bit, odd numbers are leaves.
fn parent(number: usize, ranks: usize) -> Option<usize> {
    let low = number & number.wrapping_neg();
    if low == 0 {
        return None;
    }
    let up = (number ^ low) | (low << 1);
    // A subtree that is cut off at the end hangs at the one before.
    Some(if up < ranks { up } else { number ^ low })
}

/// Of tree 0 or 1. The second is the first with other numbers: mirrored if the ranks are even, else moved by one, so
/// that odd and even numbers change places.
pub(super) fn neighbours(rank: usize, ranks: usize, tree: usize) -> Neighbours {
    let mirrored = ranks.is_multiple_of(2);
    let number = |rank: usize| match (tree, mirrored) {
        (0, _) => rank,
        (_, true) => ranks - 1 - rank,
        (_, false) => (rank + ranks - 1) % ranks,
    };
    let here = number(rank);
    let of = |number: Option<usize>| {
        number.map(|number| match (tree, mirrored) {
            (0, _) => number,
            (_, true) => ranks - 1 - number,
            (_, false) => (number + 1) % ranks,
        })
    };
    let children = (0..ranks).filter(|&other| parent(number(other), ranks) == Some(here)).collect();
    Neighbours { parent: of(parent(here, ranks)), children }
}

/// Tags of the way up and the way down of a tree.
fn up(tree: usize) -> u32 {
    2 * u32::from(tree > 0)
}

fn down(tree: usize) -> u32 {
    up(tree) + 1
}

/// Sums `len` numbers of all ranks; afterwards each has the same bits. Even pieces take the first tree, odd ones the
/// second. A rank adds what its children sent to its own, in order of ranks, and sends it up; the root's sum goes down.
pub fn all_reduce(place: Place, len: usize) -> Vec<Sequence> {
    assert!(place.is_valid(), "{place:?}");
    let mut sequences = Vec::new();
    for tree in 0..2 {
        let Neighbours { parent, children } = neighbours(place.rank, place.ranks, tree);
        let (mut rising, mut falling) = (Sequence::new(), Sequence::new());
        for part in pieces(0..len, place.piece).skip(tree).step_by(2) {
            rising.extend(children.iter().map(|&from| Step::Receive {
                from,
                tag: up(tree),
                part: part.clone(),
                how: How::Add,
            }));
            let falls = match parent {
                Some(to) => {
                    rising.push(Step::Send { to, tag: up(tree), part: part.clone() });
                    falling.push(Step::Receive {
                        from: to,
                        tag: down(tree),
                        part: part.clone(),
                        how: How::Replace,
                    });
                    &mut falling
                }
                // At the root a piece turns as soon as it is whole.
                None => &mut rising,
            };
            falls.extend(children.iter().map(|&to| Step::Send {
                to,
                tag: down(tree),
                part: part.clone(),
            }));
        }
        sequences.extend([rising, falling]);
    }
    sequences.retain(|sequence| !sequence.is_empty());
    sequences
}

/// Copies `len` numbers of the rank `root` to all, down one tree that begins there.
pub fn broadcast(place: Place, root: usize, len: usize) -> Vec<Sequence> {
    assert!(place.is_valid() && root < place.ranks, "{place:?}, root {root}");
    let Place { rank, ranks, piece } = place;
    let tree = neighbours((rank + ranks - root) % ranks, ranks, 0);
    let real = |number: &usize| (number + root) % ranks;
    let mut falling = Sequence::new();
    for part in pieces(0..len, piece) {
        if let Some(from) = tree.parent.as_ref().map(real) {
            let (part, how) = (part.clone(), How::Replace);
            falling.push(Step::Receive { from, tag: 0, part, how });
        }
        falling.extend(tree.children.iter().map(real).map(|to| Step::Send {
            to,
            tag: 0,
            part: part.clone(),
        }));
    }
    vec![falling]
}
