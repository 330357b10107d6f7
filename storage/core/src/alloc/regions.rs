//! Free regions of a disk: a buddy scheme over units of the smallest block.

use std::collections::BTreeSet;

use crate::format::BLOCK_SIZE_MIN;

const UNIT: u64 = BLOCK_SIZE_MIN as u64;

#[derive(Debug)]
pub(super) struct Regions {
    /// By order: first units of free regions of `2^order` units, each aligned to its size.
    free: Vec<BTreeSet<u64>>,
}

impl Regions {
    pub(super) fn new(capacity: u64) -> Self {
        let units = capacity / UNIT;
        let orders = units.checked_ilog2().map_or(1, |order| order + 1);
        let mut regions = Self { free: vec![BTreeSet::new(); orders as usize] };
        let mut at = 0;
        while at < units {
            let aligned = if at == 0 { orders - 1 } else { at.trailing_zeros() };
            let order = aligned.min((units - at).ilog2());
            regions.free[order as usize].insert(at);
            at += 1 << order;
        }
        regions
    }

    /// The lowest region of the best fitting size. `length` is a power of two of units.
    pub(super) fn take(&mut self, length: u64) -> Option<u64> {
        let order = order_of(length);
        let from = (order..self.free.len()).find(|order| !self.free[*order].is_empty())?;
        let unit = self.free[from].pop_first().expect("it was found not empty");
        self.split(unit, from, unit, order);
        Some(unit * UNIT)
    }

    /// That very region, if all of it is free.
    pub(super) fn take_at(&mut self, position: u64, length: u64) -> bool {
        let (unit, order) = (position / UNIT, order_of(length));
        for from in order..self.free.len() {
            let start = unit >> from << from;
            if self.free[from].remove(&start) {
                self.split(start, from, unit, order);
                return true;
            }
        }
        false
    }

    pub(super) fn give(&mut self, position: u64, length: u64) {
        let (mut unit, mut order) = (position / UNIT, order_of(length));
        while order + 1 < self.free.len() && self.free[order].remove(&(unit ^ (1 << order))) {
            unit &= !(1 << order);
            order += 1;
        }
        assert!(self.free[order].insert(unit), "a region was given back twice");
    }

    /// Returns the parts of the region `start`, `from` that are not `unit`, `order`.
    fn split(&mut self, mut start: u64, from: usize, unit: u64, order: usize) {
        for half in (order..from).rev() {
            let upper = start + (1 << half);
            if unit >= upper {
                self.free[half].insert(start);
                start = upper;
            } else {
                self.free[half].insert(upper);
            }
        }
        debug_assert_eq!(start, unit);
    }
}

fn order_of(length: u64) -> usize {
    debug_assert!(length.is_power_of_two() && length >= UNIT);
    (length / UNIT).trailing_zeros() as usize
}
