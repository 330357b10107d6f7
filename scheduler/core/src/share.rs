//! Fair share: who used more than a group's share of late goes behind. Usage decays with a half-life, in integers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// 2^(-1/2), 2^(-1/4), ... 2^(-1/65536), times 2^32.
const ROOTS: [u64; 16] = [
    3_037_000_500,
    3_611_622_603,
    3_938_502_376,
    4_112_874_773,
    4_202_935_003,
    4_248_701_965,
    4_271_771_996,
    4_283_353_945,
    4_289_156_690,
    4_292_061_010,
    4_293_513_907,
    4_294_240_540,
    4_294_603_903,
    4_294_785_595,
    4_294_876_445,
    4_294_921_870,
];

/// `value` after `age` of a half-life `half`, in the same unit: exact to some 2^-28, and the same on every machine.
pub(crate) fn decay(value: u128, age: u64, half: u64) -> u128 {
    assert!(half > 0, "a half-life is some time");
    let whole = age / half;
    if whole >= 100 {
        return 0;
    }
    // The rest of the age, as a fraction of 2^16 half-lives.
    let fraction = (u128::from(age % half) << 16) / u128::from(half);
    let start = value >> whole;
    (0..16).zip(ROOTS).filter(|(bit, _)| fraction >> (15 - bit) & 1 == 1).fold(
        start,
        // Usage of ten thousand GPUs for a hundred years is less than 2^61 GPU-ms: no overflow.
        |value, (_, root)| (value * u128::from(root)) >> 32,
    )
}

/// What a group used and what it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub weight: u32,
    /// GPUs times ms, as of `at_ms`.
    pub usage: u64,
    pub at_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    of: BTreeMap<String, Share>,
}

impl Shares {
    pub(crate) fn restore(of: BTreeMap<String, Share>) -> Self {
        Self { of }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Share)> {
        self.of.iter()
    }

    pub(crate) fn set(&mut self, group: &str, weight: u32, now: u64) {
        self.entry(group, now).weight = weight;
    }

    fn entry(&mut self, group: &str, now: u64) -> &mut Share {
        if !self.of.contains_key(group) {
            self.of.insert(group.to_owned(), Share { weight: 1, usage: 0, at_ms: now });
        }
        self.of.get_mut(group).expect("it was just put there")
    }

    /// GPUs times ms that a group used.
    pub(crate) fn charge(&mut self, group: &str, gpu_ms: u64, now: u64, half: u64) {
        let share = self.entry(group, now);
        let decayed = decay(u128::from(share.usage), now.saturating_sub(share.at_ms), half);
        share.usage = u64::try_from(decayed).unwrap_or(u64::MAX).saturating_add(gpu_ms);
        share.at_ms = now;
    }

    /// How many times a group's usage doubles its share: 0 up to twice of it. Shares go by weight among those that
    /// used anything.
    pub(crate) fn excess(&self, now: u64, half: u64) -> BTreeMap<String, u32> {
        let usage =
            |share: &Share| decay(u128::from(share.usage), now.saturating_sub(share.at_ms), half);
        let active: Vec<(&String, u128, u128)> = self
            .of
            .iter()
            .map(|(group, share)| (group, usage(share), u128::from(share.weight.max(1))))
            .filter(|(_, usage, _)| *usage > 0)
            .collect();
        let total: u128 = active.iter().map(|(_, usage, _)| usage).sum();
        let weights: u128 = active.iter().map(|(_, _, weight)| weight).sum();
        let doublings = |used: u128, weight: u128| {
            let ratio = (used * weights) / (total * weight).max(1);
            ratio.max(1).ilog2()
        };
        active
            .into_iter()
            .map(|(group, used, weight)| (group.clone(), doublings(used, weight)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_left_after_a_half_life() {
        let of = |age| decay(1 << 40, age, 1_000);
        assert_eq!((of(0), of(1_000), of(3_000)), (1 << 40, 1 << 39, 1 << 37));
        let quarter = of(250) as f64 / (1u64 << 40) as f64;
        assert!((quarter - 0.5f64.powf(0.25)).abs() < 1e-4, "{quarter}");
        assert_eq!(of(1_000_000), 0);
        assert!((0..3_000).is_sorted_by_key(|age| std::cmp::Reverse(of(age))));
    }

    #[test]
    fn who_used_twice_the_share_is_a_band_lower() {
        let mut shares = Shares::default();
        for (group, used) in [("a", 600), ("b", 100), ("c", 200), ("d", 100)] {
            shares.charge(group, used, 0, 1_000);
        }
        let excess = shares.excess(0, 1_000);
        assert_eq!((excess["a"], excess["b"], excess["c"]), (1, 0, 0));
        // With four times the weight of others it is due what it used.
        shares.set("a", 4, 0);
        assert_eq!(shares.excess(0, 1_000)["a"], 0);
        // What was long ago counts no more; who is alone is due everything.
        shares.charge("b", 700, 20_000, 1_000);
        assert_eq!(shares.excess(20_000, 1_000), BTreeMap::from([("b".to_owned(), 0)]));
        shares.charge("c", 50, 20_000, 1_000);
        shares.charge("d", 50, 20_000, 1_000);
        let excess = shares.excess(20_000, 1_000);
        assert_eq!((excess["b"], excess["c"]), (1, 0));
    }
}
