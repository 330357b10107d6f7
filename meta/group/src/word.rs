//! A number that threads share without a lock: the processor's, or one of a model that tries all orders in
//! which threads may see it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

pub(crate) trait Word {
    fn new(value: u64) -> Self;
    fn load(&self) -> u64;
    fn store(&self, value: u64);
    fn add(&self, more: u64);
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load(&self) -> u64 {
        self.load(SeqCst)
    }

    fn store(&self, value: u64) {
        self.store(value, SeqCst);
    }

    fn add(&self, more: u64) {
        self.fetch_add(more, SeqCst);
    }
}

/// The model has no order of all accesses, only that of what one thread saw of another: what holds there
/// needs no more than acquire and release.
#[cfg(test)]
impl Word for loom::sync::atomic::AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load(&self) -> u64 {
        self.load(SeqCst)
    }

    fn store(&self, value: u64) {
        self.store(value, SeqCst);
    }

    fn add(&self, more: u64) {
        self.fetch_add(more, SeqCst);
    }
}
