//! Where the bulk bytes of requests land: two kinds of memory, each shared by users and daemons.
//!
//! Small payloads have memory of their own, so that the connection for small messages, on which the
//! outcomes and questions between servers travel, never stands behind bulk bytes. Of either kind
//! users together may fill half, so that updates on their way down a chain always find some and
//! users' updates cannot lock two servers against each other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    buf::{Buf, BufPool},
    limits::{PAGE_BYTES, SMALL_BULK_BYTES, SMALL_MEMORY_BYTES},
    rpc::Peer,
};

#[derive(Debug)]
pub(super) struct Memory {
    small: Part,
    bulk: Part,
}

#[derive(Debug)]
struct Part {
    pool: Arc<BufPool>,
    user_pages: Arc<Semaphore>,
    user_pages_max: u32,
}

/// A buffer, and the share of the users that it counts against until this is dropped.
pub(super) type Taken = (Buf, Option<OwnedSemaphorePermit>);

impl Memory {
    pub(super) fn new(bulk: Arc<BufPool>) -> Self {
        Self { small: Part::new(BufPool::new(SMALL_MEMORY_BYTES)), bulk: Part::new(bulk) }
    }

    pub(super) fn try_take(&self, peer: &Peer, len: usize) -> Option<Taken> {
        let part = self.part(len);
        let share = match peer {
            Peer::Daemon => None,
            Peer::User(_) => {
                let pages = part.user_pages_of(len);
                Some(part.user_pages.clone().try_acquire_many_owned(pages).ok()?)
            }
        };
        Some((part.pool.try_get(len)?, share))
    }

    pub(super) async fn take(&self, peer: &Peer, len: usize) -> Taken {
        let part = self.part(len);
        let share = match peer {
            Peer::Daemon => None,
            Peer::User(_) => {
                let pages = part.user_pages_of(len);
                let share = part.user_pages.clone().acquire_many_owned(pages).await;
                Some(share.expect("the semaphore is never closed"))
            }
        };
        (part.pool.get(len).await, share)
    }

    fn part(&self, len: usize) -> &Part {
        if len <= SMALL_BULK_BYTES { &self.small } else { &self.bulk }
    }
}

impl Part {
    fn new(pool: Arc<BufPool>) -> Self {
        let user_pages_max = pages(pool.limit_bytes() / 2).max(1);
        let user_pages = Arc::new(Semaphore::new(user_pages_max as usize));
        Self { pool, user_pages, user_pages_max }
    }

    /// What a payload counts for among the users' pages.
    fn user_pages_of(&self, len: usize) -> u32 {
        pages(len.next_power_of_two() as u64).clamp(1, self.user_pages_max)
    }
}

fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_payloads_never_stand_behind_bulk() {
        let memory = Memory::new(BufPool::new(1 << 20));
        let (daemon, user) = (Peer::Daemon, Peer::User(Arc::default()));
        let _all = memory.take(&daemon, 1 << 20).await;
        assert!(memory.try_take(&daemon, SMALL_BULK_BYTES + 1).is_none());
        let (buf, _) = memory.try_take(&user, SMALL_BULK_BYTES).expect("there is small memory");
        assert_eq!(buf.len(), SMALL_BULK_BYTES);
    }

    #[tokio::test]
    async fn users_leave_half_to_the_daemons() {
        let memory = Memory::new(BufPool::new(1 << 20));
        let user = Peer::User(Arc::default());
        let _half = memory.take(&user, 512 << 10).await;
        assert!(memory.try_take(&user, 128 << 10).is_none());
        assert!(memory.try_take(&Peer::Daemon, 512 << 10).is_some());
    }
}
