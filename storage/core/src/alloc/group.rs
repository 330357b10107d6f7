//! A run of equally sized blocks and the bitmap of those in use.

use super::GROUP_BLOCKS_MAX;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) block_size: u32,
    blocks: u32,
    used: u32,
    bits: [u64; (GROUP_BLOCKS_MAX / 64) as usize],
}

impl Group {
    pub(super) fn new(block_size: u32, blocks: u32) -> Self {
        assert!((1..=GROUP_BLOCKS_MAX).contains(&blocks), "a group of {blocks} blocks");
        Self { block_size, blocks, used: 0, bits: [0; _] }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn is_full(&self) -> bool {
        self.used == self.blocks
    }

    fn is_set(&self, index: u32) -> bool {
        self.bits[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// False if it was set, or lies outside.
    pub(super) fn set(&mut self, index: u32) -> bool {
        if index >= self.blocks || self.is_set(index) {
            return false;
        }
        self.bits[(index / 64) as usize] |= 1 << (index % 64);
        self.used += 1;
        true
    }

    /// False if it was clear.
    pub(super) fn clear(&mut self, index: u32) -> bool {
        if index >= self.blocks || !self.is_set(index) {
            return false;
        }
        self.bits[(index / 64) as usize] &= !(1 << (index % 64));
        self.used -= 1;
        true
    }

    /// Free blocks from `index` on, at most `wanted`.
    pub(super) fn run_at(&self, index: u32, wanted: u32) -> u32 {
        (index..self.blocks).take(wanted as usize).take_while(|at| !self.is_set(*at)).count() as u32
    }

    /// Where `wanted` adjacent blocks are free. Never for more than a group holds: then the caller
    /// takes what a new group gives.
    pub(super) fn find_run(&self, wanted: u32) -> Option<u32> {
        let (index, run) = self.longest_run(wanted);
        (run == wanted).then_some(index)
    }

    /// The first of the longest runs of free blocks, cut at `wanted`: its start and length.
    pub(super) fn longest_run(&self, wanted: u32) -> (u32, u32) {
        let mut best = (0, 0);
        let mut index = 0;
        while index < self.blocks && best.1 < wanted {
            let run = self.run_at(index, wanted);
            if run > best.1 {
                best = (index, run);
            }
            index += run + 1;
        }
        best
    }
}
