use std::time::Duration;

use super::*;
use crate::limits::PAGE_BYTES;

#[tokio::test]
async fn buffers_are_aligned_and_recycled() {
    let pool = BufPool::new(1 << 20);
    let mut buf = pool.get(5000).await;
    assert_eq!((buf.len(), buf.capacity()), (5000, 8192));
    assert_eq!(buf.as_ptr() as usize % PAGE_BYTES, 0);
    buf.fill(7);
    let address = buf.as_ptr();
    drop(buf);
    let again = pool.get(8192).await;
    assert_eq!(again.as_ptr(), address, "the block is used again");
    assert_eq!(pool.free_bytes(), (1 << 20) - 8192);
    drop(again);
    assert_eq!(pool.free_bytes(), 1 << 20);
}

#[tokio::test]
async fn a_full_pool_makes_callers_wait() {
    let pool = BufPool::new(64 << 10);
    let held = pool.get(40 << 10).await;
    assert!(pool.try_get(4096).is_none(), "40 KiB count as 64");
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get(1).await.len() }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap(), 1);
}

#[tokio::test]
async fn room_of_small_blocks_serves_large_ones() {
    let pool = BufPool::new(64 << 10);
    let small: Vec<_> = (0..16).map(|_| pool.try_get(4096).unwrap()).collect();
    let slab = small[0].slab().unwrap().id();
    drop(small);
    let large = pool.try_get(32 << 10).unwrap();
    assert_eq!(large.slab().unwrap().id(), slab, "the halves were joined again");
    drop(large);
    assert!(pool.try_get(64 << 10).is_some());
    assert!(pool.try_get(1 << 20).is_some(), "a giant is lent when it is alone");
    assert_eq!(pool.free_bytes(), 64 << 10);
}

#[test]
fn what_is_not_needed_goes_back() {
    let pool = BufPool::new(64 << 10);
    let mut buf = pool.try_get(64 << 10).unwrap();
    buf.fill(7);
    buf.truncate(5000);
    buf.shrink();
    assert_eq!((buf.len(), buf.capacity()), (5000, 8192));
    assert_eq!(pool.free_bytes(), (64 - 8) << 10);
    let rest: Vec<_> = [32, 16, 8].map(|kib| pool.try_get(kib << 10).unwrap()).into();
    assert_eq!(rest[0].slab().unwrap().id(), buf.slab().unwrap().id(), "of the same memory");
    buf.shrink();
    assert!(buf.iter().all(|byte| *byte == 7) && pool.free_bytes() == 0);
    drop((buf, rest));
    assert!(pool.try_get(64 << 10).is_some(), "all is one block again");
    let mut alone = Buf::unpooled(64 << 10);
    alone.truncate(1);
    alone.shrink();
    assert_eq!(alone.capacity(), 64 << 10, "nobody could use the rest");
}

#[tokio::test]
async fn shared_parts_keep_the_block_and_give_it_back() {
    let pool = BufPool::new(8192);
    let mut buf = pool.get(6000).await;
    buf[..3].copy_from_slice(b"abc");
    let shared = buf.freeze();
    let part = shared.slice(1..3);
    assert_eq!(&*part, b"bc");
    assert_eq!(&*part.slice(1..), b"c");
    let shared = shared.try_into_unique().unwrap_err();
    drop(part);
    let mut buf = shared.try_into_unique().unwrap();
    assert_eq!(buf.len(), 6000);
    buf.truncate(2);
    assert_eq!(&*buf, b"ab");
    drop(buf.freeze().slice(..1));
    assert_eq!(pool.free_bytes(), 8192);
    assert_eq!(&*SharedBuf::from(vec![1, 2, 3]).slice(..=1), [1, 2]);
    assert!(SharedBuf::from(vec![1]).try_into_unique().is_err());
    assert!(pool.get(0).await.is_empty());
}

#[tokio::test]
async fn buffers_that_are_wanted_together_are_waited_for_together() {
    let pool = BufPool::new(64 << 10);
    let held = pool.get_all(&[0, 1, 8192, 20_000]).await;
    assert_eq!(held.iter().map(|buf| buf.len()).collect::<Vec<_>>(), [0, 1, 8192, 20_000]);
    assert_eq!(pool.free_bytes(), (64 << 10) - (4 << 10) - (8 << 10) - (32 << 10));
    let late = pool.get_all(&[16 << 10, 16 << 10]);
    let waited = tokio::time::timeout(Duration::from_millis(5), late).await;
    assert!(waited.is_err());
    assert_eq!(pool.free_bytes(), 20 << 10, "who waits holds nothing");
    drop(held);
    assert_eq!(pool.free_bytes(), 64 << 10);
}

#[tokio::test]
async fn slabs_are_mapped_on_demand_and_kept() {
    let slab_bytes = crate::limits::SLAB_BYTES;
    let pool = BufPool::new(2 * slab_bytes as u64);
    let id = |buf: &Buf| buf.slab().map(|slab| slab.id());
    let small = pool.get(4096).await;
    let large = pool.get(slab_bytes / 2).await;
    assert!(id(&small).is_some() && id(&small) == id(&large));
    let next = pool.get(slab_bytes).await;
    assert!(id(&next).is_some() && id(&next) != id(&large));
    let scattered = pool.get(slab_bytes / 4).await;
    assert_eq!(id(&scattered), id(&small));
    let (kept, part) = (id(&next), next.freeze().slice(1..2));
    assert_eq!(part.slab().map(|slab| slab.id()), kept);
    drop((small, large, part, scattered));
    let giant = pool.get(slab_bytes + 1).await;
    assert_eq!(id(&giant), None, "larger than a slab: an allocation of its own");
    drop(giant);
    assert_eq!(id(&pool.get(slab_bytes).await).max(kept), kept, "no third slab");
    assert_eq!(Buf::unpooled(4096).slab().map(|slab| slab.id()), None);
}

#[tokio::test]
async fn scattered_loans_deny_nobody_what_the_bound_allows() {
    let pool = BufPool::new(64 << 10);
    let mut held: Vec<_> = (0..16).map(|_| pool.try_get(4096).unwrap()).collect();
    let mut odd = 0;
    held.retain(|_| {
        odd += 1;
        odd % 2 == 0
    });
    let large = pool.try_get(32 << 10).expect("8 pages are free, none next to another");
    assert!(large.slab().is_none());
    assert!(pool.try_get(4096).is_none(), "the bound holds");
    drop((held, large));
    assert!(pool.try_get(64 << 10).unwrap().slab().is_some());
}
