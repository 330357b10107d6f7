//! Memory that another process shares with us.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rustix::{
    fs::{SealFlags, fcntl_get_seals, fstat, fstatfs},
    mm::munmap,
};

use crate::{buf::map_shared, frame::FrameError, limits::SLAB_BYTES, onesided::annex::Span};

/// The slabs that the other side of a connection has shared so far, in their order.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    slabs: Mutex<Vec<Arc<Mapping>>>,
    /// How many it may share: none before it proved who it is.
    granted: AtomicU32,
}

impl Theirs {
    pub(super) fn grant(&self, slabs: u32) {
        self.granted.store(slabs, Relaxed);
    }

    pub(super) fn add(&self, memory: OwnedFd) -> io::Result<()> {
        let granted = self.granted.load(Relaxed);
        let mut slabs = self.slabs.lock();
        if slabs.len() >= granted as usize {
            return Err(refused(&format!("the peer shares more than the {granted} slabs granted")));
        }
        slabs.push(Arc::new(Mapping::new(&memory)?));
        Ok(())
    }

    /// Copies bytes of theirs.
    pub(super) fn pull(&self, from: Span, into: &mut [u8]) -> Result<(), FrameError> {
        self.slab(from, into.len())?.pull(from.offset as usize, into);
        Ok(())
    }

    /// Puts bytes into memory of theirs.
    pub(super) fn push(&self, bytes: &[u8], to: Span) -> Result<(), FrameError> {
        self.slab(to, bytes.len())?.push(bytes, to.offset as usize);
        Ok(())
    }

    /// The slab, if it has `len` bytes at the span's offset.
    fn slab(&self, span: Span, len: usize) -> Result<Arc<Mapping>, FrameError> {
        let slabs = self.slabs.lock();
        let slab = slabs.get(span.slab as usize).ok_or(FrameError::BulkMisplaced)?;
        let end = span.offset as usize + len;
        if len > span.len as usize || end > slab.len {
            return Err(FrameError::BulkMisplaced);
        }
        Ok(slab.clone())
    }
}

struct Mapping {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range; the other process may write to it at any time, whoever asks.
unsafe impl Send for Mapping {}
// SAFETY: as above; bytes are copied in and out, no reference to them is ever made.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps it if it cannot shrink under us: touching what is gone would kill this process. So would
    /// touching a hole for which there are no huge pages left.
    fn new(memory: &OwnedFd) -> io::Result<Self> {
        if fstatfs(memory.as_fd())?.f_type != TMPFS_MAGIC {
            return Err(refused("what the peer shares is no ordinary memory"));
        }
        if !fcntl_get_seals(memory.as_fd())?.contains(SealFlags::SHRINK) {
            return Err(refused("the memory that the peer shares could shrink"));
        }
        let len = usize::try_from(fstat(memory.as_fd())?.st_size).unwrap_or(usize::MAX);
        if len == 0 || len > SLAB_BYTES {
            return Err(refused("the memory that the peer shares has no slab's size"));
        }
        Ok(Self { memory: map_shared(len, memory.as_fd())?, len })
    }

    fn pull(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.len);
        // SAFETY: inside the mapping, which cannot shrink; `into` is memory of this process, so they do
        // not overlap. The other process may write meanwhile: what was copied then is any bytes, which
        // is what the checksum of every payload is there to find.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.memory.as_ptr().add(offset),
                into.as_mut_ptr(),
                into.len(),
            );
        }
    }

    fn push(&self, bytes: &[u8], offset: usize) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: as in `pull`, the other way; the other process waits with this place for us.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.memory.as_ptr().add(offset),
                bytes.len(),
            );
        }
    }
}

/// The file system of memfds; huge pages have another one. `linux/magic.h`.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing refers to it any more.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests;
