//! Memory that devices may reach: pages, the protection domain of a device, and the registration of one with the other.

use std::{fmt, io, ptr::NonNull, sync::Arc};

use rdma_sys::{ibv_access_flags, ibv_mr, ibv_pd};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::{Device, Error};

/// Huge pages take one entry of a device's translation table for 512 small ones.
const HUGE_PAGE_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4 << 10;

/// Who may reach a pool's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// This process's own transfers alone. A server that pulls and pushes needs no more.
    Local,
    /// Also a peer that knows a buffer's [`crate::Remote`]: who lets others pull and push.
    Peers,
}

/// What belongs together on one device: only connections of a domain reach its memory.
pub struct Domain {
    pd: NonNull<ibv_pd>,
    device: Arc<Device>,
}

// SAFETY: libibverbs may be called by all threads, on the same objects too.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, Error> {
        // SAFETY: an open device, which the domain keeps open.
        let pd = NonNull::new(unsafe { (device.library.alloc_pd)(device.context()) });
        let pd = pd.ok_or_else(|| Error::last("ibv_alloc_pd", device.name()))?;
        Ok(Arc::new(Self { pd, device: device.clone() }))
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(crate) fn pd(&self) -> *mut ibv_pd {
        self.pd.as_ptr()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: allocated by us; regions and connections hold the domain, so none is left.
        unsafe { (self.device.library.dealloc_pd)(self.pd()) };
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.device.name())
    }
}

/// Zeroed pages, whose address never changes.
pub(crate) struct Pages {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range; the memory behind it is accessed through buffers alone.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// At least `bytes`: reserved huge pages where there are, else ordinary ones that the kernel is asked to make
    /// huge; near `node` if that has room. A child process does not get them: what a device writes must go to the
    /// pages that it knows.
    pub(crate) fn map(bytes: usize, node: Option<u32>) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Memory { bytes, source };
        let too_long = || failed(io::ErrorKind::InvalidInput.into());
        // All of a registration is pinned, so what is small is not rounded up to a huge page.
        let unit = if bytes < HUGE_PAGE_BYTES / 2 { PAGE_BYTES } else { HUGE_PAGE_BYTES };
        let len = bytes.max(1).checked_next_multiple_of(unit).ok_or_else(too_long)?;
        let reserved = if unit == HUGE_PAGE_BYTES {
            map(len, MapFlags::HUGETLB | MapFlags::HUGE_2MB).ok()
        } else {
            None
        };
        let memory = reserved.map_or_else(|| map(len, MapFlags::empty()), Ok);
        let pages = Self { memory: memory.map_err(failed)?, len };
        if let Some(node) = node {
            pages.prefer(node);
        }
        pages.advise(Advice::LinuxDontFork).map_err(failed)?;
        // A kernel without huge pages refuses, which costs time and nothing else.
        let _ = pages.advise(Advice::LinuxHugepage);
        Ok(pages)
    }

    pub(crate) fn address(&self) -> NonNull<u8> {
        self.memory
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: our mapping; neither advice changes what is in it.
        Ok(unsafe { madvise(self.memory.as_ptr().cast(), self.len, advice) }?)
    }

    /// A wish: a kernel without NUMA refuses, and a full node lends from another.
    fn prefer(&self, node: u32) {
        const MPOL_PREFERRED: libc::c_int = 1;
        let Some(mask) = 1u64.checked_shl(node) else { return };
        // SAFETY: our mapping, of which no page was touched yet; the mask has as many bits as are named, and the
        // kernel reads one less than it is told.
        unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.memory.as_ptr(),
                self.len,
                MPOL_PREFERRED,
                &raw const mask,
                65usize,
                0u32,
            );
        }
    }
}

fn map(len: usize, flags: MapFlags) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE | flags) }?;
    Ok(NonNull::new(memory.cast()).expect("nothing is mapped at zero"))
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`; no registration and no buffer is left of it.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

/// Pages that a domain's connections may reach.
pub(crate) struct Region {
    mr: NonNull<ibv_mr>,
    domain: Arc<Domain>,
}

// SAFETY: libibverbs may be called by all threads, on the same objects too.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// # Safety
    /// All `len` bytes are mapped and writable, and outlive the region.
    pub(crate) unsafe fn register(
        domain: &Arc<Domain>,
        begin: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Self, Error> {
        let mut flags = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE;
        if access == Access::Peers {
            flags = flags
                | ibv_access_flags::IBV_ACCESS_REMOTE_READ
                | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE;
        }
        let device = &domain.device;
        let (memory, flags) = (begin.as_ptr().cast(), flags.0 as i32);
        // SAFETY: a whole mapping, which the caller keeps.
        let mr = unsafe { (device.library.reg_mr)(domain.pd(), memory, len, flags) };
        let mr = NonNull::new(mr);
        let mr = mr.ok_or_else(|| Error::last("ibv_reg_mr", device.name()))?;
        Ok(Self { mr, domain: domain.clone() })
    }

    pub(crate) fn is_of(&self, domain: &Arc<Domain>) -> bool {
        Arc::ptr_eq(&self.domain, domain)
    }

    /// What this host's own transfers name it by.
    pub(crate) fn local_key(&self) -> u32 {
        // SAFETY: registered, and never written to.
        unsafe { self.mr.as_ref().lkey }
    }

    /// What peers name it by.
    pub(crate) fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.mr.as_ref().rkey }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: registered by us; transfers hold buffers, which hold the pool that this is a part of.
        unsafe { (self.domain.device.library.dereg_mr)(self.mr.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn pages_are_zeroed_and_whole() {
        let pages = Pages::map(HUGE_PAGE_BYTES + 1, Some(0)).unwrap();
        assert_eq!(pages.len, 2 * HUGE_PAGE_BYTES);
        assert_eq!(Pages::map(5000, None).unwrap().len, 2 * PAGE_BYTES);
        // SAFETY: the mapping's last byte, nobody else's.
        unsafe {
            let last = pages.memory.as_ptr().add(pages.len - 1);
            assert_eq!(*last, 0);
            *last = 1;
        }
    }

    #[test]
    fn a_size_that_cannot_be_is_an_error() {
        for bytes in [usize::MAX, usize::MAX / 2] {
            assert!(matches!(Pages::map(bytes, None), Err(Error::Memory { .. })));
        }
    }
}
