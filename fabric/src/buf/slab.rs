//! A run of memory from the kernel that a pool cuts its blocks from.
//!
//! Blocks of one slab share an address range that never moves while any of them is in use, so a disk
//! or a network card can be told of the whole slab once instead of each transfer's pages each time. So
//! can another process of the same host: a slab is memory with a descriptor.

use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
};

use crate::limits::PAGE_BYTES;

/// Where huge pages begin; transfers to and from them take the fewest segments.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// See the module. Gives out addresses only: who owns which part is the pool's to know.
pub struct Slab {
    id: u64,
    memory: NonNull<u8>,
    len: usize,
    descriptor: OwnedFd,
}

// SAFETY: a slab is an address range; the memory behind it is accessed through blocks alone.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// Zeroed memory, in huge pages where the kernel gives such to shared memory (`advise` in
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled`). `len` is a power of two
    /// pages. They are taken when they are first touched: under strict overcommit
    /// (`vm.overcommit_memory=2`) a host that is out of memory ends the process then.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        assert!(len.is_power_of_two() && len >= PAGE_BYTES, "{len} bytes of a slab");
        let descriptor =
            memfd_create(c"ff2-slab", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, len as u64)?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = map_shared(len, descriptor.as_fd())?;
        Ok(Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), memory, len, descriptor })
    }

    /// The memory, for another process to map.
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Different for all slabs of the process, also those that are gone.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

// SAFETY: mapped in `map` until the slab is dropped. What a peer may reach of it stays with its call until the
// reply came, or the peer's way here is closed.
unsafe impl ff2_verbs::Memory for Slab {
    fn range(&self) -> (NonNull<u8>, usize) {
        (self.memory, self.len)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, and no block of it is left: each holds the slab.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab({}, {} bytes)", self.id, self.len)
    }
}

/// Maps all of a shared memory of `len` bytes. Each process that does must ask for huge pages: they are
/// given to whoever touches a place first, and mapped only where addresses are aligned to them.
pub(crate) fn map_shared(len: usize, memory: BorrowedFd<'_>) -> io::Result<NonNull<u8>> {
    let align = HUGE_PAGE_BYTES.min(len.next_power_of_two()).max(PAGE_BYTES);
    let mapped = map_aligned(len, align, memory)?;
    // SAFETY: advice on a range that was just mapped; its content stays. Refused is as good.
    let _ = unsafe { madvise(mapped.as_ptr().cast(), len, Advice::LinuxHugepage) };
    Ok(mapped)
}

/// Reserves more than enough, gives back what lies before and behind the aligned range, and maps the
/// memory there.
fn map_aligned(len: usize, align: usize, memory: BorrowedFd<'_>) -> io::Result<NonNull<u8>> {
    let len = len.next_multiple_of(PAGE_BYTES);
    let reserved = len + align - PAGE_BYTES;
    let (none, private) = (ProtFlags::empty(), MapFlags::PRIVATE);
    // SAFETY: a new range where the kernel likes.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), reserved, none, private) }?;
    let start = start.cast::<u8>();
    let before = start.align_offset(align);
    let behind = reserved - before - len;
    let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
    // SAFETY: all three ranges are parts of what was just reserved, and nobody has seen them.
    let mapped = unsafe {
        if before > 0 {
            munmap(start.cast(), before)?;
        }
        if behind > 0 {
            munmap(start.add(before + len).cast(), behind)?;
        }
        mmap(start.add(before).cast(), len, access, kind, memory, 0)?
    };
    Ok(NonNull::new(mapped.cast()).expect("the kernel maps nothing at 0"))
}

/// What is free of one slab: blocks of powers of two pages, halved on demand and joined again with
/// their other half when they come back (the buddy system). Low places go first, so that the high
/// ones stay whole.
pub(super) struct FreeBlocks {
    /// By class (`PAGE_BYTES << class` bytes): the offsets, in pages.
    classes: Vec<BTreeSet<u32>>,
}

impl FreeBlocks {
    /// Of a slab of which nothing is in use.
    pub(super) fn whole(len: usize) -> Self {
        let mut classes = vec![BTreeSet::new(); class_of(len) + 1];
        classes[class_of(len)].insert(0);
        Self { classes }
    }

    /// The offset in bytes of a block, or `None` if no room in one piece is left.
    pub(super) fn take(&mut self, capacity: usize) -> Option<usize> {
        let class = class_of(capacity);
        let from = (class..self.classes.len()).find(|class| !self.classes[*class].is_empty())?;
        let page = self.classes[from].pop_first()?;
        for half in (class..from).rev() {
            self.classes[half].insert(page + (1 << half));
        }
        Some(page as usize * PAGE_BYTES)
    }

    pub(super) fn put(&mut self, offset: usize, capacity: usize) {
        let mut class = class_of(capacity);
        let mut page = (offset / PAGE_BYTES) as u32;
        while class + 1 < self.classes.len() && self.classes[class].remove(&(page ^ (1 << class))) {
            page &= !(1 << class);
            class += 1;
        }
        let new = self.classes[class].insert(page);
        assert!(new, "a block comes back once");
    }
}

/// Of a power of two pages.
fn class_of(capacity: usize) -> usize {
    (capacity / PAGE_BYTES).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_aligned_zeroed_and_told_apart() {
        for len in [PAGE_BYTES, 64 << 10, HUGE_PAGE_BYTES, 4 * HUGE_PAGE_BYTES] {
            let (slab, other) = (Slab::map(len).unwrap(), Slab::map(len).unwrap());
            assert!(slab.as_ptr().addr().is_multiple_of(len.min(HUGE_PAGE_BYTES)), "{slab:?}");
            assert_ne!(slab.id(), other.id());
            // SAFETY: mapped, and nobody else has it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(slab.as_ptr(), len) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes[len - 1] = 1;
        }
    }

    #[test]
    fn blocks_are_halved_and_joined_again() {
        let mut free = FreeBlocks::whole(16 * PAGE_BYTES);
        assert_eq!(free.take(PAGE_BYTES), Some(0));
        assert_eq!(free.take(4 * PAGE_BYTES), Some(4 * PAGE_BYTES));
        assert_eq!(free.take(PAGE_BYTES), Some(PAGE_BYTES), "low places go first");
        assert_eq!(free.take(8 * PAGE_BYTES), Some(8 * PAGE_BYTES));
        assert_eq!(free.take(4 * PAGE_BYTES), None, "2 pages are left");
        assert_eq!(free.take(2 * PAGE_BYTES), Some(2 * PAGE_BYTES));
        assert_eq!(free.take(PAGE_BYTES), None);
        for (page, pages) in [(1, 1), (8, 8), (2, 2), (0, 1), (4, 4)] {
            free.put(page * PAGE_BYTES, pages * PAGE_BYTES);
        }
        assert_eq!(free.take(16 * PAGE_BYTES), Some(0), "all is one block again");
        assert_eq!(free.take(32 * PAGE_BYTES), None);
    }

    #[test]
    #[should_panic(expected = "comes back once")]
    fn a_block_that_comes_back_twice_is_found_out() {
        let mut free = FreeBlocks::whole(4 * PAGE_BYTES);
        let at = free.take(PAGE_BYTES).unwrap();
        let _held = free.take(PAGE_BYTES);
        free.put(at, PAGE_BYTES);
        free.put(at, PAGE_BYTES);
    }
}
