//! Memory for what the kernel writes through `/dev/fuse`: a page-aligned buffer that lives as long as
//! the write.
//!
//! Reading requests must not wait for memory: while writes to a server that is down hold all that they
//! may, reads, names and other files go on. So writes have a share of the pool, plain memory beyond it,
//! and only at that one's bound does the mount push back.

use std::sync::Arc;

use ff2_fabric::{Buf, BufPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{limits::COPIED_BYTES_MAX, request::Payload};

/// Granularity of the bounds.
const UNIT: usize = 4 << 10;

/// A part of a bound.
pub(crate) type Share = OwnedSemaphorePermit;

/// What writes in progress may hold.
#[derive(Clone, Debug)]
pub struct WriteMemory {
    pool: Arc<BufPool>,
    pooled: Arc<Semaphore>,
    plain: Arc<Semaphore>,
}

/// A buffer for the next request, with its share of the bound.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) buf: Buf,
    share: Share,
}

impl WriteMemory {
    /// Up to `pooled_bytes` of the pool, and up to `plain_bytes` beside it.
    pub fn new(pool: Arc<BufPool>, pooled_bytes: usize, plain_bytes: usize) -> Self {
        let bound = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Self { pool, pooled: bound(pooled_bytes), plain: bound(plain_bytes) }
    }

    /// Waits only when all is taken, pool and plain memory.
    pub(crate) async fn place(&self, len: usize) -> Place {
        if let Some(place) = self.try_place(len) {
            return place;
        }
        tracing::warn!("writes wait for their servers and hold all memory that they may");
        let share = self.plain.clone().acquire_many_owned(units(len)).await;
        Place { buf: Buf::unpooled(len), share: share.expect("the semaphore is never closed") }
    }

    fn try_place(&self, len: usize) -> Option<Place> {
        let pooled = || {
            let share = self.pooled.clone().try_acquire_many_owned(units(len)).ok()?;
            Some(Place { buf: self.pool.try_get(len)?, share })
        };
        let plain = || {
            let share = self.plain.clone().try_acquire_many_owned(units(len)).ok()?;
            Some(Place { buf: Buf::unpooled(len), share })
        };
        pooled().or_else(plain)
    }

    /// The first `len` bytes of a place as a payload. What is few is copied, and the place stays for the
    /// next request.
    pub(crate) fn take(&self, place: &mut Option<Place>, len: usize) -> Payload {
        let here = place.as_mut().expect("a request was read into it");
        if len <= COPIED_BYTES_MAX
            && let Some(mut small) = self.try_place(len)
        {
            small.buf.copy_from_slice(&here.buf[..len]);
            return small.into_payload();
        }
        let mut whole = place.take().expect("as above");
        whole.buf.truncate(len);
        whole.buf.shrink();
        let held = units(whole.buf.capacity()) as usize;
        drop(whole.share.split(whole.share.num_permits().saturating_sub(held)));
        whole.into_payload()
    }
}

impl Place {
    fn into_payload(self) -> Payload {
        Payload { bytes: self.buf.freeze(), _share: Some(self.share) }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 256 << 10;

    fn written(memory: &WriteMemory, len: usize, byte: u8) -> Payload {
        let mut place = memory.try_place(SIZE);
        place.as_mut().unwrap().buf[..len].fill(byte);
        memory.take(&mut place, len)
    }

    #[tokio::test]
    async fn writes_that_are_stuck_leave_memory_to_others() {
        let pool = BufPool::new(1 << 20);
        let memory = WriteMemory::new(pool.clone(), 512 << 10, 1 << 20);
        let stuck: Vec<_> = (0..6).map(|byte| written(&memory, SIZE, byte)).collect();
        assert!(pool.try_get(256 << 10).is_some(), "half of the pool is free");
        for (byte, payload) in (0..).zip(&stuck) {
            assert!(payload.bytes.len() == SIZE && payload.bytes.iter().all(|b| *b == byte));
        }
        // All is taken; whoever comes now waits for the first to end.
        assert!(memory.try_place(SIZE).is_none());
        let late = tokio::spawn({
            let memory = memory.clone();
            async move { memory.place(SIZE).await.buf.len() }
        });
        tokio::task::yield_now().await;
        assert!(!late.is_finished());
        drop(stuck);
        assert_eq!(late.await.unwrap(), SIZE);
    }

    #[test]
    fn a_write_holds_what_it_has_and_no_more() {
        let pool = BufPool::new(1 << 20);
        let memory = WriteMemory::new(pool.clone(), 1 << 20, 0);
        let held = || (1 << 20) - pool.free_bytes() as usize;
        let mut place = memory.try_place(SIZE);
        place.as_mut().unwrap().buf[..4096].fill(7);
        let small = memory.take(&mut place, 4096);
        assert!(place.is_some() && small.bytes.iter().all(|byte| *byte == 7));
        assert_eq!(held(), SIZE + 4096);
        place.as_mut().unwrap().buf[..100_000].fill(8);
        let at = place.as_ref().unwrap().buf.as_ptr();
        let large = memory.take(&mut place, 100_000);
        assert!(place.is_none() && large.bytes.len() == 100_000);
        assert_eq!(large.bytes.as_ptr(), at, "no copy");
        assert_eq!(held(), (128 << 10) + 4096);
        assert_eq!(memory.pooled.available_permits(), 256 - 32 - 1);
        drop((small, large));
        assert_eq!((held(), memory.pooled.available_permits()), (0, 256));
    }
}
