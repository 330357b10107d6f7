//! The pool: lends blocks up to a bound, keeps returned ones for the next user.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    Buf,
    block::{Block, capacity_for},
};
use crate::limits::{BUF_BYTES_MAX, PAGE_BYTES};

const CLASSES: usize = (BUF_BYTES_MAX / PAGE_BYTES).ilog2() as usize + 1;

/// A bounded number of bytes to lend. Waiters are served in order, so a large request cannot starve.
pub struct BufPool {
    limit_pages: u32,
    /// Pages that are not on loan.
    pages: Semaphore,
    spare: Mutex<Spare>,
}

/// Returned blocks by class. With the blocks on loan they never exceed the limit.
struct Spare {
    classes: [Vec<Block>; CLASSES],
    pages: u64,
}

impl BufPool {
    /// Lends up to `limit_bytes`. A buffer larger than that is lent when nothing else is on loan.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        let limit_pages = u32::try_from(limit_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX).max(1);
        let spare = Spare { classes: [const { Vec::new() }; CLASSES], pages: 0 };
        let pages = Semaphore::new(limit_pages as usize);
        Arc::new(Self { limit_pages, pages, spare: Mutex::new(spare) })
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
        let capacity = capacity_for(len);
        let block = self.spare.lock().take(capacity);
        let block = block.unwrap_or_else(|| {
            self.make_room(capacity);
            Block::allocate(len)
        });
        Buf::new(block.lend(self.clone()), len)
    }

    /// Frees spare blocks of other sizes, so that they and the loans stay below the limit.
    fn make_room(&self, capacity: usize) {
        let mut freed = Vec::new();
        {
            let mut spare = self.spare.lock();
            // The new block's permits are taken already: what is left is what may lie spare.
            let may_keep = self.pages.available_permits() as u64;
            while spare.pages > may_keep {
                let Some(block) = spare.take_largest() else { break };
                freed.push(block);
            }
        }
        tracing::trace!(capacity, blocks = freed.len(), "freed spare buffers for another size");
    }

    pub(super) fn take_back(&self, block: Block) {
        let price = self.price(block.capacity());
        let too_large = block.capacity() > BUF_BYTES_MAX || price == self.limit_pages;
        if too_large {
            drop(block);
        } else {
            self.spare.lock().put(block);
        }
        // Last, so that who waits finds the spare block.
        self.pages.add_permits(price as usize);
    }
}

impl Spare {
    fn take(&mut self, capacity: usize) -> Option<Block> {
        let block = self.classes.get_mut(class(capacity))?.pop()?;
        self.pages -= (capacity / PAGE_BYTES) as u64;
        Some(block)
    }

    fn take_largest(&mut self) -> Option<Block> {
        let class = self.classes.iter().rposition(|blocks| !blocks.is_empty())?;
        self.take(PAGE_BYTES << class)
    }

    fn put(&mut self, block: Block) {
        self.pages += (block.capacity() / PAGE_BYTES) as u64;
        self.classes[class(block.capacity())].push(block);
    }
}

fn class(capacity: usize) -> usize {
    (capacity / PAGE_BYTES).max(1).next_power_of_two().ilog2() as usize
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, limit) = (self.free_bytes(), self.limit_bytes());
        write!(f, "BufPool({free} of {limit} bytes free)")
    }
}
