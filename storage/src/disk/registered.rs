//! Which memory a ring knows: slabs registered as fixed buffers.
//!
//! For an ordinary transfer the kernel looks up and pins each page, and lets go of it afterwards; a
//! registered slab is pinned once. A slab is registered when its first transfer comes. Where that is
//! refused (a limit on locked memory, an old kernel), transfers of its blocks are ordinary ones.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
};

use ff2_fabric::buf::Slab;
use io_uring::Submitter;

use crate::engine::limits::REGISTERED_SLABS;

/// The table of one ring, used by its thread alone.
pub(super) struct Registered {
    /// By id of the slab: its place in the ring's table; `None` if it was refused.
    slabs: HashMap<u64, (Weak<Slab>, Option<u16>)>,
    free: Vec<u16>,
    told: bool,
}

impl Registered {
    /// An empty table in the ring, or none where the kernel has none.
    pub(super) fn new(submitter: &Submitter<'_>) -> Self {
        let mut table = Self { slabs: HashMap::new(), free: Vec::new(), told: false };
        match submitter.register_buffers_sparse(REGISTERED_SLABS.into()) {
            Ok(()) => table.free = (0..REGISTERED_SLABS).rev().collect(),
            Err(error) => table.tell(&error),
        }
        table
    }

    /// The place of a slab in the ring's table, registered now if need be.
    pub(super) fn place(&mut self, submitter: &Submitter<'_>, slab: &Arc<Slab>) -> Option<u16> {
        if let Some((_, place)) = self.slabs.get(&slab.id()) {
            return *place;
        }
        self.forget_unmapped();
        let place = self.free.pop();
        let place = place.filter(|place| match register(submitter, *place, slab) {
            Ok(()) => true,
            Err(error) => {
                self.free.push(*place);
                self.tell(&error);
                false
            }
        });
        self.slabs.insert(slab.id(), (Arc::downgrade(slab), place));
        place
    }

    /// Places of slabs whose pool is gone. What comes to their place lets go of the old pages.
    fn forget_unmapped(&mut self) {
        let free = &mut self.free;
        self.slabs.retain(|_, (slab, place)| {
            let kept = slab.strong_count() > 0;
            if !kept {
                free.extend(*place);
            }
            kept
        });
    }

    /// Once: it is slower, and nothing else.
    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                %error,
                "buffers cannot be registered with the disk's ring, transfers cost more CPU; raise \
                 the limit on locked memory (LimitMEMLOCK=, ulimit -l)"
            );
        }
    }
}

fn register(submitter: &Submitter<'_>, place: u16, slab: &Slab) -> io::Result<()> {
    let range = libc::iovec { iov_base: slab.as_ptr().cast(), iov_len: slab.len() };
    // SAFETY: the slab is mapped. Should it be unmapped while its place lasts, then its pages live on
    // until the kernel lets go of them, and nobody names the place: its id does not come again.
    unsafe { submitter.register_buffers_update(place.into(), &[range], None) }
}

#[cfg(test)]
mod tests {
    use ff2_fabric::buf::BufPool;
    use io_uring::IoUring;

    use super::*;

    #[tokio::test]
    async fn slabs_keep_their_place_until_their_pool_is_gone() {
        let ring = IoUring::new(4).unwrap();
        let mut table = Registered::new(&ring.submitter());
        let pool = BufPool::new(1 << 20);
        let buf = pool.get(4096).await;
        let slab = buf.slab().unwrap().clone();
        assert_eq!(table.place(&ring.submitter(), &slab), Some(0));
        assert_eq!(table.place(&ring.submitter(), &slab), Some(0));
        let other = BufPool::new(1 << 20).get(4096).await;
        assert_eq!(table.place(&ring.submitter(), other.slab().unwrap()), Some(1));
        drop((buf, slab, pool));
        let third = BufPool::new(1 << 20).get(4096).await;
        assert_eq!(table.place(&ring.submitter(), third.slab().unwrap()), Some(0));
        assert_eq!(table.slabs.len(), 2);
    }

    #[tokio::test]
    async fn a_full_table_refuses() {
        let ring = IoUring::new(4).unwrap();
        let mut table = Registered::new(&ring.submitter());
        table.free.clear();
        let buf = BufPool::new(1 << 20).get(4096).await;
        assert_eq!(table.place(&ring.submitter(), buf.slab().unwrap()), None);
    }

    #[tokio::test]
    async fn a_ring_without_a_table_refuses() {
        let ring = IoUring::new(4).unwrap();
        let mut table = Registered::new(&ring.submitter());
        ring.submitter().unregister_buffers().unwrap();
        let buf = BufPool::new(1 << 20).get(4096).await;
        assert_eq!(table.place(&ring.submitter(), buf.slab().unwrap()), None);
        assert!(table.told);
        assert_eq!(table.free.len(), usize::from(REGISTERED_SLABS), "its place is free");
    }
}
