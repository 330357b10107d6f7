//! The pool: lends blocks up to a bound, cut from slabs that it keeps.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    Buf,
    block::{Block, capacity_for},
    slab::{FreeBlocks, Slab},
};
use crate::limits::{PAGE_BYTES, SLAB_BYTES};

/// A bounded number of bytes to lend. Waiters are served in order, so a large request cannot starve.
///
/// The memory comes from slabs, mapped as the need grows and kept: at most the bound, rounded up to
/// a slab. A block that finds no room in one piece, or is larger than a slab, is an allocation of its
/// own and freed when it comes back, so that the process may hold up to twice the bound when small
/// loans are scattered over all slabs.
pub struct BufPool {
    limit_pages: u32,
    /// Pages that are not on loan.
    pages: Semaphore,
    slab_bytes: usize,
    slabs: Mutex<Vec<(Arc<Slab>, FreeBlocks)>>,
}

impl BufPool {
    /// Lends up to `limit_bytes`. A buffer larger than that is lent when nothing else is on loan.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        let limit_pages = u32::try_from(limit_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX).max(1);
        let pages = Semaphore::new(limit_pages as usize);
        let slab_bytes =
            (limit_pages as usize).saturating_mul(PAGE_BYTES).min(SLAB_BYTES).next_power_of_two();
        Arc::new(Self { limit_pages, pages, slab_bytes, slabs: Mutex::default() })
    }

    /// A buffer of `len` bytes with any content; waits until the bound allows it. Cancel-safe.
    pub async fn get(self: &Arc<Self>, len: usize) -> Buf {
        if len == 0 {
            return Buf::empty();
        }
        let permit = self.pages.acquire_many(self.price(capacity_for(len))).await;
        permit.expect("the semaphore is never closed").forget();
        self.lend(len)
    }

    /// Several buffers at once: who waits for them holds none of them. Together they must fit into
    /// the pool. Cancel-safe.
    pub async fn get_all(self: &Arc<Self>, lens: &[usize]) -> Vec<Buf> {
        let pages: u32 = lens.iter().map(|len| self.price(capacity_for(*len))).sum();
        assert!(pages <= self.limit_pages, "{pages} pages of a pool of {}", self.limit_pages);
        let permit = self.pages.acquire_many(pages).await;
        permit.expect("the semaphore is never closed").forget();
        lens.iter().map(|len| if *len == 0 { Buf::empty() } else { self.lend(*len) }).collect()
    }

    /// As [`BufPool::get`], or `None` where that would wait.
    pub fn try_get(self: &Arc<Self>, len: usize) -> Option<Buf> {
        if len == 0 {
            return Some(Buf::empty());
        }
        self.pages.try_acquire_many(self.price(capacity_for(len))).ok()?.forget();
        Some(self.lend(len))
    }

    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.limit_pages) * PAGE_BYTES as u64
    }

    /// Bytes that are not on loan now.
    pub fn free_bytes(&self) -> u64 {
        self.pages.available_permits() as u64 * PAGE_BYTES as u64
    }

    /// Pages that a block of this capacity counts for: one above the limit takes all there is.
    fn price(&self, capacity: usize) -> u32 {
        u32::try_from(capacity / PAGE_BYTES).unwrap_or(u32::MAX).min(self.limit_pages)
    }

    /// The caller holds the permits for it.
    fn lend(self: &Arc<Self>, len: usize) -> Buf {
        let block = self.cut(capacity_for(len)).unwrap_or_else(|| Block::allocate(len));
        Buf::new(block.lend(self.clone()), len)
    }

    /// A part of the first slab that has room, or of a new one.
    fn cut(&self, capacity: usize) -> Option<Block> {
        if capacity > self.slab_bytes {
            return None;
        }
        let mut slabs = self.slabs.lock();
        let found = slabs
            .iter_mut()
            .find_map(|(slab, free)| Some((slab.clone(), free.take(capacity)?)))
            .or_else(|| {
                let limit_bytes = self.limit_bytes().next_multiple_of(self.slab_bytes as u64);
                if (slabs.len() as u64 + 1) * self.slab_bytes as u64 > limit_bytes {
                    return None;
                }
                // Short of address space, an allocation of its own fails with a better message.
                let slab = Arc::new(Slab::map(self.slab_bytes).ok()?);
                let mut free = FreeBlocks::whole(self.slab_bytes);
                let offset = free.take(capacity)?;
                slabs.push((slab.clone(), free));
                Some((slab, offset))
            });
        // SAFETY: `FreeBlocks` gives a range to nobody else before it comes back, and it comes back
        // when the block is dropped.
        found.map(|(slab, offset)| unsafe { Block::cut(slab, offset, capacity) })
    }

    pub(super) fn take_back(&self, block: Block) {
        let (capacity, repaid) = (block.capacity(), block.is_repaid());
        let place = block.place().map(|(slab, offset)| (slab.id(), offset));
        drop(block);
        if let Some((slab, offset)) = place {
            let mut slabs = self.slabs.lock();
            let (_, free) = slabs.iter_mut().find(|(kept, _)| kept.id() == slab).expect("kept");
            free.put(offset, capacity);
        }
        // Last, so that who waits finds the room.
        if !repaid {
            self.repay(capacity);
        }
    }

    /// Others may have as much.
    pub(super) fn repay(&self, capacity: usize) {
        self.pages.add_permits(self.price(capacity) as usize);
    }

    /// What lies behind the first `kept` bytes of a block, whose owner touches them no more. Both sizes
    /// are powers of two pages.
    pub(super) fn take_back_end(&self, (slab, offset): (u64, usize), capacity: usize, kept: usize) {
        let mut slabs = self.slabs.lock();
        let (_, free) = slabs.iter_mut().find(|(known, _)| known.id() == slab).expect("kept");
        let mut half = capacity;
        while half > kept {
            half /= 2;
            free.put(offset + half, half);
        }
        drop(slabs);
        self.pages.add_permits((self.price(capacity) - self.price(kept)) as usize);
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, limit) = (self.free_bytes(), self.limit_bytes());
        write!(f, "BufPool({free} of {limit} bytes free)")
    }
}
