//! Copies of what the kernel writes: from a thread's read buffer to memory that lives as long as its
//! write.
//!
//! The threads that read requests must not wait for memory: while writes to a chain that is down hold
//! all that they may, reads, names and other files go on. So writes have a share of the pool, plain
//! memory beyond it, and only at that one's bound does the mount push back.

use std::sync::Arc;

use ff2_client::{BufPool, SharedBuf};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Granularity of the bounds.
const UNIT: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Copies {
    pool: Arc<BufPool>,
    pooled: Arc<Semaphore>,
    plain: Arc<Semaphore>,
}

/// Bytes to be written, and their part of the bound.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) bytes: SharedBuf,
    _permit: OwnedSemaphorePermit,
}

impl Copies {
    /// Up to `pooled_bytes` of the pool, and up to `plain_bytes` beside it.
    pub(crate) fn new(pool: Arc<BufPool>, pooled_bytes: usize, plain_bytes: usize) -> Self {
        let bound = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Self { pool, pooled: bound(pooled_bytes), plain: bound(plain_bytes) }
    }

    pub(crate) fn copy(&self, runtime: &Handle, bytes: &[u8]) -> Copied {
        self.copy_pooled(bytes).or_else(|| self.copy_plain(bytes)).unwrap_or_else(|| {
            tracing::warn!("writes wait for their servers and hold all memory that they may");
            let room = self.plain.clone().acquire_many_owned(units(bytes));
            let permit = runtime.block_on(room).expect("the semaphore is never closed");
            Copied { bytes: SharedBuf::from(bytes.to_vec()), _permit: permit }
        })
    }

    fn copy_pooled(&self, bytes: &[u8]) -> Option<Copied> {
        let permit = self.pooled.clone().try_acquire_many_owned(units(bytes)).ok()?;
        let mut buffer = self.pool.try_get(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Some(Copied { bytes: buffer.freeze(), _permit: permit })
    }

    fn copy_plain(&self, bytes: &[u8]) -> Option<Copied> {
        let permit = self.plain.clone().try_acquire_many_owned(units(bytes)).ok()?;
        Some(Copied { bytes: SharedBuf::from(bytes.to_vec()), _permit: permit })
    }
}

fn units(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len().div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_are_stuck_leave_memory_to_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pool = BufPool::new(1 << 20);
        let copies = Copies::new(pool.clone(), 512 << 10, 1 << 20);
        let copy = |byte| copies.copy(runtime.handle(), &[byte; 256 << 10]);
        let stuck: Vec<_> = (0..6).map(copy).collect();
        assert!(pool.try_get(256 << 10).is_some(), "half of the pool is free");
        for (byte, copied) in (0..).zip(&stuck) {
            assert!(copied.bytes.len() == 256 << 10 && copied.bytes.iter().all(|b| *b == byte));
        }
        // All is taken; whoever comes now waits for the first to end.
        let held = copies.plain.available_permits();
        assert_eq!((held, copies.pooled.available_permits()), (0, 0));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| copies.copy(runtime.handle(), b"late").bytes.len());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(stuck);
            assert_eq!(waiting.join().unwrap(), 4);
        });
    }
}
