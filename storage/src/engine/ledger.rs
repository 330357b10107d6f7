//! What all chunks of a disk share: the allocator, the order of index batches, and when what they
//! freed may be used again.
//!
//! Every index batch has a number. A batch is **settled** when it is durable and no read (or write
//! to a place) is in progress that began before it. Blocks that a batch freed go back to the
//! allocator, sectors that it made holes of may be written in place, and patches that it committed
//! may be written to their place, only once it is settled: then nothing, in memory or after a crash,
//! refers to the old content any more.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use ff2_storage_core::alloc::{Allocator, Block, Region};

use super::{LocalChunk, limits};

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
    /// Freed groups, usable again, by when they were freed: the file system is to be told of those that stay so. What
    /// is written where it has blocks already costs it nothing but the bytes.
    freed: VecDeque<(Instant, Region)>,
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
            freed: VecDeque::new(),
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
        let mut near = near;
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
            self.give(block);
        }
    }

    fn give(&mut self, block: Block) {
        if let Some(region) = self.allocator.give(block) {
            self.allocator.give_back(region);
            self.freed.push_back((Instant::now(), region));
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
            self.give(block);
        }
    }

    pub(super) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// A region that was freed by this time and is still free, to tell the file system of; nothing uses it before
    /// [`Ledger::punched`].
    pub(super) fn region_to_punch(&mut self, by: Instant) -> Option<Region> {
        while let Some((since, region)) = self.freed.pop_front() {
            if since > by {
                self.freed.push_front((since, region));
                return None;
            }
            if self.allocator.withhold(region) {
                return Some(region);
            }
            // Some of it is in use again.
            if region.length > limits::PUNCH_BYTES_MIN {
                for half in region.halves().into_iter().flatten() {
                    self.freed.push_front((since, half));
                }
            }
        }
        None
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
    fn the_reserve_is_kept_and_freed_space_serves_again_at_once() {
        let mut ledger = ledger();
        assert!(ledger.allocate(&[1 << 16; 15], None, 1).is_none());
        let all = ledger.allocate(&[1 << 16; 15], None, 0).unwrap();
        ledger.release(all);
        let (used, free) = (ledger.used(), ledger.capacity());
        assert_eq!((used, free), (0, 15 << 16));
        assert!(!ledger.freed.is_empty());
        assert!(ledger.allocate(&[1 << 16; 15], None, 0).is_some());
    }

    #[test]
    fn the_file_system_hears_of_what_stays_free() {
        let mut ledger = Ledger::new(Allocator::new(256 << 20, 16 << 20));
        let blocks = ledger.allocate(&[1 << 20; 64], None, 0).unwrap();
        let groups = |blocks: &[Block]| {
            blocks.iter().map(|block| block.position >> 24).collect::<BTreeSet<u64>>()
        };
        let of_blocks = groups(&blocks);
        ledger.release(blocks);
        let freed = Instant::now();
        assert_eq!(ledger.region_to_punch(freed - std::time::Duration::from_secs(1)), None);
        // Two groups are in use again.
        let again = ledger.allocate(&[1 << 20; 24], None, 0).unwrap();
        assert!(groups(&again).is_subset(&of_blocks), "written places are taken before others");
        let mut told = Vec::new();
        while let Some(region) = ledger.region_to_punch(Instant::now()) {
            let taken = |block: &Block| {
                block.position < region.position + region.length && block.end() > region.position
            };
            assert!(!again.iter().any(taken), "{region:?} is in use");
            told.push(region);
        }
        assert!(!told.is_empty());
        let all_that_is_left = [1 << 20; 255 - 24];
        assert!(ledger.allocate(&all_that_is_left, None, 0).is_none(), "nobody writes there now");
        for region in told {
            ledger.punched(region);
        }
        assert!(ledger.allocate(&all_that_is_left, None, 0).is_some());
    }
}
