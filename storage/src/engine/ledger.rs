//! What all chunks of a disk share: the allocator, the order of index batches, and when what they
//! freed may be used again.
//!
//! Every index batch has a number. A batch is **settled** when it is durable and no read (or write
//! to a place) is in progress that began before it. Blocks that a batch freed go back to the
//! allocator, sectors that it made holes of may be written in place, and patches that it committed
//! may be written to their place, only once it is settled: then nothing, in memory or after a crash,
//! refers to the old content any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ff2_storage_core::alloc::{Allocator, Block, Region};

use super::LocalChunk;

#[derive(Debug)]
pub(super) struct Ledger {
    allocator: Allocator,
    /// Number of the last batch.
    written: u64,
    /// Batches up to this one are durable.
    durable: u64,
    /// Users in progress by the batch they began after.
    users: BTreeMap<u64, u32>,
    /// Freed blocks by the batch that freed them, oldest first.
    retired: VecDeque<(u64, Block)>,
    retired_bytes: u64,
    /// Freed groups that the file system is to be told of.
    regions: Vec<Region>,
    /// Chunks with committed patches.
    pub(super) dirty: BTreeSet<LocalChunk>,
    /// Patches of committed versions: those that may be written back.
    pub(super) patches: usize,
}

impl Ledger {
    pub(super) fn new(allocator: Allocator) -> Self {
        Self {
            allocator,
            written: 0,
            durable: 0,
            users: BTreeMap::new(),
            retired: VecDeque::new(),
            retired_bytes: 0,
            regions: Vec::new(),
            dirty: BTreeSet::new(),
            patches: 0,
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The index took a batch; its number.
    pub(super) fn next_batch(&mut self) -> u64 {
        self.written += 1;
        self.written
    }

    pub(super) fn set_durable(&mut self, batch: u64) {
        assert!(batch <= self.written, "batch {batch} was never written");
        self.durable = self.durable.max(batch);
        self.reclaim();
    }

    /// Somebody uses what is there now; to be ended with the number given.
    pub(super) fn begin_use(&mut self) -> u64 {
        *self.users.entry(self.written).or_default() += 1;
        self.written
    }

    pub(super) fn end_use(&mut self, began: u64) {
        let count = self.users.get_mut(&began).expect("a use ends once");
        *count -= 1;
        if *count == 0 {
            self.users.remove(&began);
            self.reclaim();
        }
    }

    pub(super) fn is_settled(&self, batch: u64) -> bool {
        let oldest = self.users.first_key_value().map_or(u64::MAX, |(began, _)| *began);
        batch <= self.durable.min(oldest)
    }

    /// Blocks for an update. `reserve` bytes must stay free.
    pub(super) fn allocate(
        &mut self,
        sizes: &[u32],
        near: Option<u64>,
        reserve: u64,
    ) -> Option<Vec<Block>> {
        let bytes: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
        self.reclaim();
        if self.allocator.free() < bytes + reserve {
            return None;
        }
        let taken = self.try_allocate(sizes, near);
        if taken.is_some() || self.regions.is_empty() {
            return taken;
        }
        for region in std::mem::take(&mut self.regions) {
            self.allocator.give_back(region);
        }
        self.try_allocate(sizes, near)
    }

    fn try_allocate(&mut self, sizes: &[u32], mut near: Option<u64>) -> Option<Vec<Block>> {
        let mut blocks: Vec<Block> = Vec::with_capacity(sizes.len());
        // Equal sizes in a row are asked for together, so that they can lie together.
        for run in sizes.chunk_by(|one, next| one == next) {
            match self.allocator.take(run[0], run.len() as u32, near) {
                Some(taken) => blocks.extend(taken),
                None => {
                    self.release(blocks);
                    return None;
                }
            }
            near = blocks.last().map(Block::end);
        }
        Some(blocks)
    }

    /// Gives back blocks that nothing ever referred to.
    pub(super) fn release(&mut self, blocks: impl IntoIterator<Item = Block>) {
        for block in blocks {
            self.regions.extend(self.allocator.give(block));
        }
    }

    /// Blocks that the batch just written freed.
    pub(super) fn retire(&mut self, blocks: impl IntoIterator<Item = Block>) {
        for block in blocks {
            self.retired_bytes += u64::from(block.size);
            self.retired.push_back((self.written, block));
        }
    }

    pub(super) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    fn reclaim(&mut self) {
        while let Some((batch, block)) = self.retired.front().copied()
            && self.is_settled(batch)
        {
            self.retired.pop_front();
            self.retired_bytes -= u64::from(block.size);
            self.regions.extend(self.allocator.give(block));
        }
    }

    /// A freed region to tell the file system of; [`Ledger::punched`] makes it usable again.
    pub(super) fn region_to_punch(&mut self) -> Option<Region> {
        self.regions.pop()
    }

    pub(super) fn punched(&mut self, region: Region) {
        self.allocator.give_back(region);
    }

    pub(super) fn capacity(&self) -> u64 {
        self.allocator.capacity()
    }

    pub(super) fn used(&self) -> u64 {
        self.allocator.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Allocator::new(1 << 20, 1 << 16))
    }

    #[test]
    fn a_freed_block_waits_for_the_sync_and_for_earlier_reads() {
        let mut ledger = ledger();
        let blocks = ledger.allocate(&[1 << 16], None, 0).unwrap();
        let early = ledger.begin_use();
        let batch = ledger.next_batch();
        ledger.retire(blocks);
        let late = ledger.begin_use();
        assert_eq!(ledger.used(), 1 << 16);
        ledger.set_durable(batch);
        assert!(!ledger.is_settled(batch) && ledger.has_retired(), "a read began before it");
        ledger.end_use(early);
        assert!(ledger.is_settled(batch) && !ledger.has_retired(), "the late read is no obstacle");
        assert_eq!(ledger.used(), 0);
        ledger.end_use(late);
    }

    #[test]
    fn the_reserve_is_kept_and_regions_in_waiting_are_found() {
        let mut ledger = ledger();
        assert!(ledger.allocate(&[1 << 16; 15], None, 1).is_none());
        let all = ledger.allocate(&[1 << 16; 15], None, 0).unwrap();
        ledger.release(all);
        let (used, free) = (ledger.used(), ledger.capacity());
        assert_eq!((used, free), (0, 15 << 16));
        assert!(!ledger.regions.is_empty());
        assert!(ledger.allocate(&[1 << 16; 15], None, 0).is_some());
    }
}
