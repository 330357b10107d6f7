//! From a byte of a file to the chain that holds it.
//!
//! Chunk `i` of a file lies on the chain at place `i % stripe` of the table's chains, shuffled by
//! the layout's seed. Clients and servers compute this alike, so the shuffle is defined here to the
//! bit (Fisher-Yates from the end over SplitMix64, below) and never changes for a given table version.

use crate::{ChainId, ChunkId, InodeId, limits, pb};

/// The next value of a SplitMix64 generator (Steele, Lea and Flood, OOPSLA 2014, figure 17).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The chains that a file with this seed uses, in order of its chunks.
///
/// Returns `min(stripe, chains.len())` chains, none twice; empty only if `chains` is.
pub fn stripe_chains(chains: &[ChainId], stripe: u32, seed: u64) -> Vec<ChainId> {
    let count = chains.len().min(stripe.max(1) as usize);
    let mut order = chains.to_vec();
    let mut state = seed;
    // Only the first `count` places are needed: a partial Fisher-Yates from the front.
    for place in 0..count {
        let left = (order.len() - place) as u64;
        // Multiply-shift maps the 64 random bits to [0, left) without division.
        let step = ((u128::from(split_mix(&mut state)) * u128::from(left)) >> 64) as usize;
        order.swap(place, place + step);
    }
    order.truncate(count);
    order
}

/// One contiguous part of a file range that lies in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    pub chunk: ChunkId,
    /// Place of the chunk's chain in [`stripe_chains`].
    pub stripe_place: usize,
    /// First byte in the chunk.
    pub offset: u32,
    pub length: u32,
    /// First byte in the caller's buffer.
    pub buffer_offset: u64,
}

/// Splits `[offset, offset + length)` of a file at chunk borders. `chains` is the length of
/// [`stripe_chains`] and must not be 0.
pub fn split(
    inode: InodeId,
    layout: &pb::Layout,
    chains: usize,
    offset: u64,
    length: u64,
) -> Vec<ChunkSpan> {
    assert!(chains > 0, "a file needs a chain");
    assert!(layout.chunk_size.is_power_of_two(), "chunk sizes are powers of two");
    let chunk_size = u64::from(layout.chunk_size);
    let end = offset.saturating_add(length).min(limits::FILE_SIZE_MAX);
    let mut spans = Vec::with_capacity((length / chunk_size) as usize + 2);
    let mut at = offset;
    while at < end {
        let index = at / chunk_size;
        let within = at % chunk_size;
        let take = (chunk_size - within).min(end - at);
        spans.push(ChunkSpan {
            chunk: ChunkId::new(inode, index as u32),
            stripe_place: (index % chains as u64) as usize,
            offset: within as u32,
            length: take as u32,
            buffer_offset: at - offset,
        });
        at += take;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::RangeInclusive<u32>) -> Vec<ChainId> {
        range.map(ChainId).collect()
    }

    #[test]
    fn shuffle_is_fixed_for_ever() {
        // Golden values: files written today must be found by every later release.
        assert_eq!(split_mix(&mut 0), 0xe220_a839_7b1d_cdaf);
        let chains: Vec<u32> = stripe_chains(&ids(1..=8), 4, 42).iter().map(|c| c.0).collect();
        let again: Vec<u32> = stripe_chains(&ids(1..=8), 8, 42).iter().map(|c| c.0).collect();
        assert_eq!(chains, again[..4], "a longer stripe begins with the shorter one");
        let mut sorted = again.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=8).collect::<Vec<_>>());
    }

    #[test]
    fn stripe_is_bounded_by_the_table() {
        assert_eq!(stripe_chains(&ids(1..=3), 8, 7).len(), 3);
        assert_eq!(stripe_chains(&ids(1..=3), 0, 7).len(), 1);
        assert!(stripe_chains(&[], 8, 7).is_empty());
    }

    #[test]
    fn spans_cover_the_range_once() {
        let layout = pb::Layout { chunk_size: 64 << 10, stripe: 3, ..Default::default() };
        let spans = split(InodeId(9), &layout, 3, 65_000, 200_000);
        assert_eq!(spans.iter().map(|s| u64::from(s.length)).sum::<u64>(), 200_000);
        assert_eq!(spans[0].offset, 65_000);
        assert_eq!(spans[0].length, 536);
        assert_eq!(spans[1].chunk.index, 1);
        assert_eq!(spans[1].stripe_place, 1);
        assert_eq!(spans[3].stripe_place, 0);
        for pair in spans.windows(2) {
            assert_eq!(pair[0].buffer_offset + u64::from(pair[0].length), pair[1].buffer_offset);
        }
        assert!(split(InodeId(9), &layout, 3, 5, 0).is_empty());
    }
}
