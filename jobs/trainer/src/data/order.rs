//! In which order sequences are seen: another shuffle in each epoch, known from its seed alone. Any place of it can be
//! asked, so a run that goes on needs one number, and memory does not grow with the text.

/// A shuffle of `0..count`, again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    count: u64,
    seed: u64,
}

/// Four rounds of a Feistel network make a permutation that looks random (Luby and Rackoff 1988).
const ROUNDS: u64 = 4;

impl Order {
    /// `count` is at least 1.
    pub(crate) fn new(count: u64, seed: u64) -> Self {
        assert!(count > 0, "something to shuffle");
        Self { count, seed }
    }

    /// What comes at this position; each `count` positions are an epoch, and have each number once.
    pub(crate) fn at(&self, position: u64) -> u64 {
        let (epoch, mut place) = (position / self.count, position % self.count);
        let half_bits = (u64::BITS - (self.count - 1).leading_zeros()).div_ceil(2).max(1);
        let mask = (1 << half_bits) - 1;
        // The network permutes a power of four; what falls outside goes through again until it is inside.
        loop {
            let (mut left, mut right) = (place >> half_bits, place & mask);
            for round in 0..ROUNDS {
                let key = mix(self.seed ^ mix(epoch.wrapping_mul(ROUNDS).wrapping_add(round)));
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            place = left << half_bits | right;
            if place < self.count {
                return place;
            }
        }
    }
}

/// The finalizer of SplitMix64 (Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_each_number_once_and_the_next_another_order() {
        for count in (1..70).chain([1000, 4096, 4097]) {
            let order = Order::new(count, 7);
            let epoch = |e: u64| (e * count..(e + 1) * count).map(|p| order.at(p)).collect();
            let (first, second): (Vec<u64>, Vec<u64>) = (epoch(0), epoch(1));
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            assert!(count < 10 || first != second, "{count}");
        }
    }

    #[test]
    fn neighbours_are_torn_apart_and_the_seed_decides() {
        let (a, b) = (Order::new(10_000, 1), Order::new(10_000, 2));
        let near = (0..9_999).filter(|&p| a.at(p).abs_diff(a.at(p + 1)) < 100).count();
        // 2 % of pairs of a random order.
        assert!((100..300).contains(&near), "{near}");
        let same = (0..10_000).filter(|&p| a.at(p) == b.at(p)).count();
        assert!(same < 10, "{same}");
    }
}
