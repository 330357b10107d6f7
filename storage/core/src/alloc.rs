//! The block allocator of one disk: which bytes of the data are in use. Pure memory.
//!
//! Blocks are powers of two from 64 KiB to 64 MiB. Blocks of one size come from groups: aligned runs
//! of up to 256 blocks with a bitmap. Groups come from, and go back to, the free regions of the
//! disk (a buddy scheme, [`regions`]). A group's size depends only on its block size and on a
//! number in the superblock, and a group is aligned to its size, so the block alone tells its
//! group: at start the allocator is rebuilt with [`Allocator::mark`] from the pieces in the index
//! and can never disagree with them. Nothing of it is stored.
//!
//! Blocks that are asked for together, or one after another with `near`, are placed next to each
//! other where there is room, so that a sequential read is one request to the disk.

mod group;
mod regions;

use std::collections::{BTreeMap, BTreeSet};

use crate::format::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, BadFormat};
use group::Group;
use regions::Regions;

/// Blocks of a group, at most.
pub const GROUP_BLOCKS_MAX: u32 = 256;
/// Groups that are looked at for a run of free blocks before a new group is started.
const GROUPS_TRIED_MAX: usize = 16;

/// An allocation: `size` bytes at `position` of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    pub position: u64,
    pub size: u32,
}

impl Block {
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.size)
    }
}

/// Bytes of the disk that hold nothing any more, a power of two. They stay unusable until they are given back with
/// [`Allocator::give_back`], so that the file system can be told in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the region is lost until it is given back"]
pub struct Region {
    pub position: u64,
    pub length: u64,
}

impl Region {
    /// Both halves, if it has more than one smallest block.
    pub fn halves(self) -> Option<[Self; 2]> {
        let length = self.length / 2;
        let half = |position| Self { position, length };
        (length >= u64::from(BLOCK_SIZE_MIN))
            .then(|| [half(self.position), half(self.position + length)])
    }
}

/// See the module.
#[derive(Debug)]
pub struct Allocator {
    group_bytes_max: u64,
    capacity: u64,
    used: u64,
    regions: Regions,
    /// By position.
    groups: BTreeMap<u64, Group>,
    /// By class: positions of groups with a free block.
    open: Vec<BTreeSet<u64>>,
}

impl Allocator {
    /// An empty disk of `capacity` bytes; its first block (the superblock's) is never given out.
    pub fn new(capacity: u64, group_bytes_max: u64) -> Self {
        assert!(group_bytes_max.is_power_of_two(), "the grid of groups needs a power of two");
        let capacity = capacity - capacity % u64::from(BLOCK_SIZE_MIN);
        assert!(capacity > u64::from(BLOCK_SIZE_MIN), "a disk holds more than its superblock");
        let classes = class_of(BLOCK_SIZE_MAX) + 1;
        Self {
            group_bytes_max,
            capacity: capacity - u64::from(BLOCK_SIZE_MIN),
            used: 0,
            regions: Regions::new(capacity),
            groups: BTreeMap::new(),
            open: vec![BTreeSet::new(); classes],
        }
    }

    /// The bound of group sizes that suits a disk: small against the disk, so that no size of
    /// block can tie up much of it.
    pub fn group_bytes_for(capacity: u64) -> u64 {
        let share = (capacity / 256).max(u64::from(BLOCK_SIZE_MIN));
        let share = 1u64 << share.ilog2();
        share.min(u64::from(GROUP_BLOCKS_MAX) * u64::from(BLOCK_SIZE_MAX))
    }

    /// Bytes that can hold blocks.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes in allocated blocks.
    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn free(&self) -> u64 {
        self.capacity - self.used
    }

    /// `count` blocks of `size` (or, where the disk has only such left, larger ones), the first at
    /// `near` if that is free. All or nothing.
    pub fn take(&mut self, size: u32, count: u32, near: Option<u64>) -> Option<Vec<Block>> {
        assert!(size.is_power_of_two(), "blocks are powers of two");
        assert!((BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&size), "block size out of bounds");
        let mut blocks: Vec<Block> = Vec::with_capacity(count as usize);
        while (blocks.len() as u32) < count {
            let wanted = count - blocks.len() as u32;
            let near = blocks.last().map(Block::end).or(near);
            match self.take_run(size, wanted, near) {
                Some((first, run)) => blocks.extend((0..run).map(|index| Block {
                    position: first.position + u64::from(index) * u64::from(first.size),
                    size: first.size,
                })),
                None => {
                    for block in blocks {
                        // Groups that become empty here are kept by the caller's next try.
                        if let Some(region) = self.give(block) {
                            self.give_back(region);
                        }
                    }
                    return None;
                }
            }
        }
        self.check();
        Some(blocks)
    }

    /// Frees a block. When a whole group is free and another of its kind is too, its region is
    /// returned for the caller to tell the file system and give back.
    pub fn give(&mut self, block: Block) -> Option<Region> {
        let class = class_of(block.size);
        let bytes = self.group_bytes(block.size);
        let position = block.position - block.position % bytes;
        let group = self.groups.get_mut(&position).expect("an allocated block lies in a group");
        assert_eq!(group.block_size, block.size, "block {block:?} is of another size");
        let index = ((block.position - position) / u64::from(block.size)) as u32;
        assert!(group.clear(index), "block {block:?} was freed twice");
        self.used -= u64::from(block.size);
        let empty = group.used() == 0;
        self.open[class].insert(position);
        if !empty || !self.has_other_empty(class, position) {
            return None;
        }
        self.remove_group(position);
        Some(Region { position, length: bytes })
    }

    /// Makes a region usable again.
    pub fn give_back(&mut self, region: Region) {
        self.regions.give(region.position, region.length);
    }

    /// Makes a region unusable until it is given back, if nothing of it is in use. Groups without a block in use that
    /// are kept for more of their kind count as in use.
    pub fn withhold(&mut self, region: Region) -> bool {
        self.regions.take_at(region.position, region.length)
    }

    /// Accounts for a block found in the index, at start.
    pub fn mark(&mut self, block: Block) -> Result<(), BadFormat> {
        let bad = |why: &str| BadFormat(format!("block {block:?}: {why}"));
        let limit = self.capacity + u64::from(BLOCK_SIZE_MIN);
        if !block.size.is_power_of_two() || !block.position.is_multiple_of(block.size.into()) {
            return Err(bad("off the grid"));
        }
        // A position from a damaged index may be so far out that its end is no number.
        let fits = limit.checked_sub(block.size.into()).is_some_and(|last| block.position <= last);
        if !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block.size) || !fits {
            return Err(bad("out of bounds"));
        }
        let bytes = self.group_bytes(block.size);
        let position = block.position - block.position % bytes;
        if !self.groups.contains_key(&position) {
            if !self.regions.take_at(position, bytes) {
                return Err(bad("overlaps with blocks of another size"));
            }
            self.add_group(position, block.size);
        }
        let group = self.groups.get_mut(&position).expect("it was just made sure of");
        if group.block_size != block.size {
            return Err(bad("lies in a group of another size"));
        }
        let index = ((block.position - position) / u64::from(block.size)) as u32;
        if !group.set(index) {
            return Err(bad("belongs to two pieces"));
        }
        if group.is_full() {
            self.open[class_of(block.size)].remove(&position);
        }
        self.used += u64::from(block.size);
        Ok(())
    }

    /// A run of at most `wanted` adjacent blocks: its first block and its length.
    fn take_run(&mut self, size: u32, wanted: u32, near: Option<u64>) -> Option<(Block, u32)> {
        if let Some(near) = near
            && let Some(run) = self.take_near(size, wanted, near)
        {
            return Some(run);
        }
        let class = class_of(size);
        let fitting = self.open[class]
            .iter()
            .take(GROUPS_TRIED_MAX)
            .copied()
            .find_map(|at| self.groups[&at].find_run(wanted).map(|index| (at, index)));
        if let Some((at, index)) = fitting {
            return Some(self.occupy(at, index, wanted));
        }
        if self.start_group(size) {
            return self.take_run_anywhere(size, wanted);
        }
        if let Some(run) = self.take_run_anywhere(size, wanted) {
            return Some(run);
        }
        // Empty groups that were kept for other sizes are the last resort but one,
        if self.drop_empty_groups() && self.start_group(size) {
            return self.take_run_anywhere(size, wanted);
        }
        // blocks larger than need be the last.
        if size < BLOCK_SIZE_MAX { self.take_run(size * 2, wanted, None) } else { None }
    }

    fn take_near(&mut self, size: u32, wanted: u32, near: u64) -> Option<(Block, u32)> {
        let bytes = self.group_bytes(size);
        let position = near - near % bytes;
        let group = self.groups.get(&position)?;
        if group.block_size != size || !near.is_multiple_of(size.into()) {
            return None;
        }
        let index = ((near - position) / u64::from(size)) as u32;
        let run = group.run_at(index, wanted);
        (run > 0).then(|| self.occupy(position, index, run))
    }

    /// The longest run, up to `wanted`, of the first and the last (newest, highest) open group.
    fn take_run_anywhere(&mut self, size: u32, wanted: u32) -> Option<(Block, u32)> {
        let open = &self.open[class_of(size)];
        let candidates = open.first().into_iter().chain(open.last());
        let (position, (index, run)) = candidates
            .map(|position| (*position, self.groups[position].longest_run(wanted)))
            .max_by_key(|(_, (_, run))| *run)?;
        debug_assert!(run > 0, "an open group has a free block");
        Some(self.occupy(position, index, run))
    }

    fn occupy(&mut self, position: u64, index: u32, run: u32) -> (Block, u32) {
        let group = self.groups.get_mut(&position).expect("the caller found it");
        for index in index..index + run {
            assert!(group.set(index), "the caller found it free");
        }
        let (size, full) = (group.block_size, group.is_full());
        if full {
            self.open[class_of(size)].remove(&position);
        }
        self.used += u64::from(run) * u64::from(size);
        (Block { position: position + u64::from(index) * u64::from(size), size }, run)
    }

    fn start_group(&mut self, size: u32) -> bool {
        while let Some(position) = self.regions.take(self.group_bytes(size)) {
            self.add_group(position, size);
            if self.open[class_of(size)].contains(&position) {
                return true;
            }
        }
        false
    }

    fn add_group(&mut self, position: u64, size: u32) {
        let blocks = (self.group_bytes(size) / u64::from(size)) as u32;
        let mut group = Group::new(size, blocks);
        if position == 0 {
            let superblock = group.set(0);
            assert!(superblock, "a new group is free");
        }
        if !group.is_full() {
            self.open[class_of(size)].insert(position);
        }
        self.groups.insert(position, group);
    }

    fn remove_group(&mut self, position: u64) {
        let group = self.groups.remove(&position).expect("the caller found it");
        assert_eq!(group.used(), 0, "only an empty group goes");
        self.open[class_of(group.block_size)].remove(&position);
    }

    fn has_other_empty(&self, class: usize, position: u64) -> bool {
        let mut open = self.open[class].iter().take(GROUPS_TRIED_MAX);
        open.any(|at| *at != position && self.groups[at].used() == 0)
    }

    /// Returns kept empty groups to the free regions; true if there were any.
    fn drop_empty_groups(&mut self) -> bool {
        let empty = |(position, group): (&u64, &Group)| (group.used() == 0).then_some(*position);
        let empties: Vec<u64> = self.groups.iter().filter_map(empty).collect();
        for position in &empties {
            let length = self.group_bytes(self.groups[position].block_size);
            self.remove_group(*position);
            self.regions.give(*position, length);
        }
        !empties.is_empty()
    }

    fn group_bytes(&self, size: u32) -> u64 {
        let size = u64::from(size);
        (size * u64::from(GROUP_BLOCKS_MAX)).min(self.group_bytes_max).max(size)
    }

    /// Panics if the parts disagree. Cheap sums always, each group in tests.
    fn check(&self) {
        assert!(self.used <= self.capacity);
        if cfg!(test) {
            let mut used = 0;
            for (position, group) in &self.groups {
                used += u64::from(group.used()) * u64::from(group.block_size);
                let open = self.open[class_of(group.block_size)].contains(position);
                assert_eq!(open, !group.is_full(), "group at {position}");
            }
            let first = self.groups.get(&0).map_or(0, |group| u64::from(group.block_size));
            assert_eq!(used - first, self.used);
        }
    }
}

fn class_of(size: u32) -> usize {
    (size / BLOCK_SIZE_MIN).trailing_zeros() as usize
}

#[cfg(test)]
mod tests;
