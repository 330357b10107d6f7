//! Numbers of inodes: each is given once, and none can be guessed.
//!
//! Operations name inodes by number, and a number is checked against the inode's own permissions, not
//! against those of the folders above it, which may hide it. So numbers are no sequence: the volume
//! counts, and the count is shuffled under the volume's key by a Feistel network (Luby and Rackoff,
//! 1988: four rounds of a pseudo-random function make a pseudo-random permutation).

use std::hash::Hasher;

use ff2_proto::ROOT_INODE;
use siphasher::sip::SipHasher24;

use super::tx::Tx;

/// Bits of a number's half: numbers stay positive in programs that take them for signed.
const HALF_BITS: u32 = 31;
const HALF_MASK: u64 = (1 << HALF_BITS) - 1;
const ROUNDS: [u64; 4] = [0, 1, 2, 3];

/// The next number of the volume.
pub(super) fn next(tx: &mut Tx<'_>) -> u64 {
    loop {
        let count = tx.volume.next_inode;
        tx.volume.next_inode += 1;
        if let Some(number) = number_of(tx.volume.number_key, count) {
            return number;
        }
    }
}

/// The number of a count; `None`: it has a meaning of its own.
pub(super) fn number_of(key: u64, count: u64) -> Option<u64> {
    Some(shuffled(key, count)).filter(|number| *number > ROOT_INODE.0)
}

/// Of a count that the volume has reached or not.
fn shuffled(key: u64, count: u64) -> u64 {
    if key == 0 {
        return count;
    }
    let (mut left, mut right) = (count >> HALF_BITS & HALF_MASK, count & HALF_MASK);
    for round in ROUNDS {
        (left, right) = (right, left ^ noise(key, round, right));
    }
    left << HALF_BITS | right
}

/// Which count a number was made from.
pub(super) fn count_of(key: u64, number: u64) -> u64 {
    if key == 0 {
        return number;
    }
    let (mut left, mut right) = (number >> HALF_BITS, number & HALF_MASK);
    for round in ROUNDS.into_iter().rev() {
        (left, right) = (right ^ noise(key, round, left), left);
    }
    left << HALF_BITS | right
}

/// Numbers of inodes that a snapshot shows have this bit, and no others.
const PAST: u64 = 1 << 62;
/// Bits of a count within such a number; what is above them says which snapshot. Counts after a restore begin
/// at 2^24 times the second, which is below until 2038.
const COUNT_BITS: u32 = 55;
/// Names the root, which was made from no count.
const ROOT_COUNT: u64 = 1;
pub(super) const SLOTS: u32 = 127;

/// Whether a number is of what a snapshot shows, or of the folder of snapshots.
pub(super) fn is_past(number: u64) -> bool {
    number & PAST != 0
}

/// The number that an inode has in the snapshot of a slot; with slot 0, the folder of snapshots.
pub(super) fn past_of(key: u64, slot: u32, inode: u64) -> Option<u64> {
    let count = if inode == ROOT_INODE.0 { ROOT_COUNT } else { count_of(key, inode) };
    let fits = count < 1 << COUNT_BITS && slot <= SLOTS;
    fits.then(|| PAST | shuffled(key, u64::from(slot) << COUNT_BITS | count))
}

/// The slot and the inode of such a number.
pub(super) fn of_past(key: u64, number: u64) -> Option<(u32, u64)> {
    let count = count_of(key, number & !PAST);
    let (slot, count) = ((count >> COUNT_BITS) as u32, count & ((1 << COUNT_BITS) - 1));
    let inode = if count == ROOT_COUNT { Some(ROOT_INODE.0) } else { number_of(key, count) };
    Some((slot, inode?))
}

fn noise(key: u64, round: u64, half: u64) -> u64 {
    let mut hash = SipHasher24::new_with_keys(key, round);
    hash.write(&half.to_le_bytes());
    hash.finish() & HALF_MASK
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_count_has_a_number_of_its_own_and_leads_back() {
        let counts = (0..5_000).chain((1 << 61)..(1 << 61) + 5_000).chain([(1 << 62) - 1]);
        for key in [0, 1, u64::MAX] {
            let mut numbers = BTreeSet::new();
            for count in counts.clone() {
                let number = shuffled(key, count);
                assert!(number < 1 << 62 && numbers.insert(number), "{count} under {key}");
                assert_eq!(count_of(key, number), count);
            }
        }
    }

    #[test]
    fn what_a_snapshot_shows_has_numbers_of_its_own() {
        for key in [0, 7, u64::MAX] {
            let inodes = (2..500).chain((1 << 54)..(1 << 54) + 500);
            let inodes = inodes.filter_map(|count| number_of(key, count));
            let mut numbers = BTreeSet::new();
            for inode in inodes.chain([ROOT_INODE.0]) {
                for slot in [1, 2, SLOTS] {
                    let number = past_of(key, slot, inode).unwrap();
                    assert!(is_past(number) && !is_past(inode) && number <= i64::MAX as u64);
                    assert!(numbers.insert(number));
                    assert_eq!(of_past(key, number), Some((slot, inode)));
                }
            }
            assert_eq!(past_of(key, SLOTS + 1, ROOT_INODE.0), None);
        }
    }

    #[test]
    fn neighbours_and_keys_are_far_apart() {
        let distance = |a: u64, b: u64| (a ^ b).count_ones();
        let pairs = (2..1_000).map(|count| (shuffled(7, count), shuffled(7, count + 1)));
        let mean = pairs.map(|(a, b)| distance(a, b)).sum::<u32>() / 998;
        assert!((28..=34).contains(&mean), "{mean} of 62 bits differ");
        assert_ne!(shuffled(7, 2), shuffled(8, 2));
    }
}
