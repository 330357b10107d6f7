//! Seeded randomness, one stream for each concern, so that one more draw in one of them does not shift
//! the others.

use std::ops::Range;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 17).
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// The stream of `concern` under `seed`.
    pub(crate) fn new(seed: u64, concern: &str) -> Self {
        Self { state: seed ^ xxhash_rust::xxh3::xxh3_64(concern.as_bytes()) }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in the range, which must not be empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "an empty range has no member");
        let span = range.end - range.start;
        range.start + ((u128::from(self.next()) * u128::from(span)) >> 64) as u64
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// A member of the slice, or `None` of an empty one.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() {
            return None;
        }
        from.get(self.within(0..from.len() as u64) as usize)
    }
}
