//! Bytes that look random and are known, so that each place has its own and a wrong one is seen.

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): all bits of the result depend on all of the
/// number.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// So many bytes of the stream with this seed.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|place| mix(seed.wrapping_add(place)));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_nothing_in_common() {
        let differing = (0..1_000u64).map(|n| (mix(n) ^ mix(n + 1)).count_ones()).sum::<u32>();
        assert!((30_000..34_000).contains(&differing), "{differing} of 64,000 bits");
        assert_eq!(bytes(7, 13).len(), 13);
        assert_ne!(bytes(7, 16), bytes(8, 16));
    }
}
