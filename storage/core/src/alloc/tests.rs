use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::format::DATA_START;

const KIB: u32 = 1 << 10;
const MIB: u64 = 1 << 20;

fn allocator(capacity: u64) -> Allocator {
    Allocator::new(capacity, Allocator::group_bytes_for(capacity))
}

#[test]
fn blocks_taken_together_or_near_lie_next_to_each_other() {
    let mut disk = allocator(1 << 30);
    let run = disk.take(256 * KIB, 4, None).expect("an empty disk has room");
    for pair in run.windows(2) {
        assert_eq!(pair[0].end(), pair[1].position);
    }
    let next = disk.take(256 * KIB, 2, Some(run[3].end())).expect("room");
    assert_eq!(next[0].position, run[3].end());
    assert!(run[0].position >= DATA_START);
}

#[test]
fn all_space_can_be_taken_and_comes_back_in_any_size() {
    let mut disk = allocator(64 * MIB);
    let mut blocks = Vec::new();
    while let Some(block) = disk.take(64 * KIB, 1, None) {
        blocks.extend(block);
    }
    assert_eq!(disk.free(), 0);
    assert_eq!(blocks.len() as u64 * 64 * 1024, 64 * MIB - DATA_START);
    for block in blocks {
        if let Some(region) = disk.give(block) {
            disk.give_back(region);
        }
    }
    assert_eq!(disk.used(), 0);
    // The largest aligned half is one region again.
    let big = disk.take(1 << 25, 1, None).expect("an empty group of another size is no obstacle");
    assert_eq!(big[0].size, 1 << 25);
}

#[test]
fn a_larger_block_serves_when_no_group_can_start() {
    let mut disk = Allocator::new(2 * MIB, MIB);
    let small = 64 * KIB;
    let first = disk.take(256 * KIB, 5, None).expect("seven fit");
    assert!(first.iter().all(|block| block.size == 256 * KIB));
    let block = disk.take(small, 1, None).expect("two large ones are free")[0];
    assert_eq!(block.size, 256 * KIB);
    assert_eq!(disk.take(512 * KIB, 1, None), None, "no larger one is");
}

#[test]
fn nothing_is_taken_when_not_everything_fits() {
    let mut disk = allocator(8 * MIB);
    let free = disk.free();
    assert_eq!(disk.take(256 * KIB, 33, None), None);
    assert_eq!(disk.free(), free);
    assert!(disk.take(64 * KIB, 100, None).is_some());
}

#[test]
fn wrong_blocks_in_an_index_are_refused() {
    let mut disk = allocator(64 * MIB);
    let block = Block { position: 4 * MIB, size: 64 * KIB };
    disk.mark(block).expect("it is free");
    let refused = |disk: &mut Allocator, position, size| {
        assert!(disk.mark(Block { position, size }).is_err(), "{position} {size}");
    };
    refused(&mut disk, 4 * MIB, 64 * KIB);
    refused(&mut disk, 4 * MIB, 128 * KIB);
    refused(&mut disk, 0, 64 * KIB);
    refused(&mut disk, MIB + 1, 64 * KIB);
    refused(&mut disk, 64 * MIB, 64 * KIB);
    assert_eq!(disk.used(), 64 * 1024);
}

#[derive(Clone, Debug)]
enum Op {
    Take { class: u32, count: u32, near: bool },
    Give(usize),
    Rebuild,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0u32..4, 1u32..20, any::<bool>())
            .prop_map(|(class, count, near)| Op::Take { class, count, near }),
        5 => any::<usize>().prop_map(Op::Give),
        1 => Just(Op::Rebuild),
    ];
    proptest::collection::vec(op, 1..120)
}

proptest! {
    /// Against a plain map of what is taken: no overlap, nothing lost, and the allocator rebuilt
    /// from the blocks is as good as the one that gave them.
    #[test]
    fn behaves_as_a_map_of_blocks(capacity in 2u64..600, ops in ops()) {
        let capacity = capacity * 64 * 1024;
        let mut disk = allocator(capacity);
        let mut model: BTreeMap<u64, Block> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Take { class, count, near } => {
                    let size = (64 * KIB) << class;
                    let near = model.last_key_value().filter(|_| near).map(|(_, b)| b.end());
                    for block in disk.take(size, count, near).unwrap_or_default() {
                        prop_assert!(block.size >= size && block.end() <= capacity);
                        prop_assert!(block.position >= DATA_START);
                        let before = model.range(..block.end()).next_back();
                        prop_assert!(before.is_none_or(|(_, other)| other.end() <= block.position));
                        model.insert(block.position, block);
                    }
                }
                Op::Give(pick) if !model.is_empty() => {
                    let key = *model.keys().nth(pick % model.len()).expect("not empty");
                    let block = model.remove(&key).expect("it is there");
                    if let Some(region) = disk.give(block) {
                        let (from, to) = (region.position, region.position + region.length);
                        prop_assert_eq!(model.range(from..to).next(), None);
                        disk.give_back(region);
                    }
                }
                Op::Give(_) => {}
                Op::Rebuild => {
                    disk = allocator(capacity);
                    for block in model.values() {
                        prop_assert_eq!(disk.mark(*block), Ok(()));
                    }
                }
            }
            let used: u64 = model.values().map(|block| u64::from(block.size)).sum();
            prop_assert_eq!(disk.used(), used);
            disk.check();
        }
    }
}

#[test]
fn a_block_beyond_all_numbers_is_refused() {
    let mut allocator = Allocator::new(1 << 30, 1 << 24);
    for size in [BLOCK_SIZE_MIN, BLOCK_SIZE_MAX] {
        let position = u64::MAX - u64::from(size) + 1;
        assert!(allocator.mark(Block { position, size }).is_err());
    }
}
