//! One block of aligned memory: the only unsafe code of the buffers.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    mem,
    ptr::NonNull,
    slice,
    sync::Arc,
};

use super::{pool::BufPool, slab::Slab};
use crate::limits::{BUF_BYTES_MAX, PAGE_BYTES};

/// Owned, initialised, page-aligned memory, perhaps on loan from a pool.
pub(super) struct Block {
    /// Dangling when `capacity` is 0.
    memory: NonNull<u8>,
    capacity: usize,
    /// What the memory is a part of, and its offset there; `None`: an allocation of its own.
    part_of: Option<(Arc<Slab>, usize)>,
    pool: Option<Arc<BufPool>>,
    /// The pool does not count it any more.
    repaid: bool,
}

// SAFETY: a block owns its memory alone; access goes through `&self` and `&mut self` only.
unsafe impl Send for Block {}
// SAFETY: as above; `&Block` gives out shared slices only.
unsafe impl Sync for Block {}

impl Block {
    pub(super) fn empty() -> Self {
        Self { memory: NonNull::dangling(), capacity: 0, part_of: None, pool: None, repaid: false }
    }

    /// Zeroed memory of the capacity class of `len`, an allocation of its own.
    pub(super) fn allocate(len: usize) -> Self {
        let capacity = capacity_for(len);
        if capacity == 0 {
            return Self::empty();
        }
        // SAFETY: the layout's size is not 0. Zeroed memory is initialised memory.
        let memory = unsafe { alloc_zeroed(layout(capacity)) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout(capacity)) };
        Self { memory, capacity, part_of: None, pool: None, repaid: false }
    }

    /// A part of a slab.
    ///
    /// # Safety
    /// No other block may have any of these bytes until this one is dropped.
    pub(super) unsafe fn cut(slab: Arc<Slab>, offset: usize, capacity: usize) -> Self {
        assert!(offset + capacity <= slab.len(), "{offset} and {capacity} bytes of {slab:?}");
        // SAFETY: inside the slab.
        let memory = unsafe { slab.as_ptr().add(offset) };
        let memory = NonNull::new(memory).expect("a slab is not at 0");
        Self { memory, capacity, part_of: Some((slab, offset)), pool: None, repaid: false }
    }

    pub(super) fn slab(&self) -> Option<&Arc<Slab>> {
        self.part_of.as_ref().map(|(slab, _)| slab)
    }

    /// The slab that it is a part of, and where.
    pub(super) fn place(&self) -> Option<(&Arc<Slab>, usize)> {
        self.part_of.as_ref().map(|(slab, offset)| (slab, *offset))
    }

    /// The pool lends as much to others, though this is not back.
    pub(super) fn repay(&mut self) {
        if let Some(pool) = self.pool.as_ref().filter(|_| !self.repaid) {
            self.repaid = true;
            pool.repay(self.capacity);
        }
    }

    pub(super) fn is_repaid(&self) -> bool {
        self.repaid
    }

    /// The pool that gets the block back.
    pub(super) fn lend(mut self, pool: Arc<BufPool>) -> Self {
        assert!(self.pool.is_none(), "a block is lent by one pool");
        self.pool = Some(pool);
        self
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Lends no more than `len` bytes need, where the rest can be lent to others.
    pub(super) fn shrink(&mut self, len: usize) {
        let kept = capacity_for(len).max(PAGE_BYTES);
        if let (Some(pool), Some((slab, offset))) = (&self.pool, self.place())
            && kept < self.capacity
            && !self.repaid
        {
            pool.take_back_end((slab.id(), offset), self.capacity, kept);
            self.capacity = kept;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `memory` points to `capacity` initialised bytes that only this block has (or is
        // dangling, aligned, with capacity 0).
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.capacity) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` excludes every other access.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr(), self.capacity) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let block = mem::replace(self, Self::empty());
            pool.take_back(block);
        } else if self.part_of.is_none() && self.capacity > 0 {
            // SAFETY: allocated in `allocate` with the same layout, and dropped once.
            unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) };
        }
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, PAGE_BYTES).expect("capacities are below isize::MAX")
}

/// The capacity of a buffer of `len` bytes: a power of two pages; above the largest class, whole pages.
pub(super) fn capacity_for(len: usize) -> usize {
    match len {
        0 => 0,
        len if len <= BUF_BYTES_MAX => len.next_power_of_two().max(PAGE_BYTES),
        len => len.next_multiple_of(PAGE_BYTES),
    }
}
