//! Buffers, cut from memory that is registered once.
//!
//! To register memory takes a system call and pins its pages, so it is done for a pool and not for a transfer; with
//! each device that there is, so that a buffer may leave by any of them.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    Access, Domain, Error,
    memory::{Pages, Region},
};

/// So many buffers of one size.
pub struct Pool {
    // Before the pages: what is registered must be mapped.
    regions: Vec<Region>,
    pages: Pages,
    buffer_bytes: usize,
    access: Access,
    free: Mutex<Vec<u32>>,
}

/// A buffer with any content. It is free again when it is dropped.
pub struct Buffer {
    pool: Arc<Pool>,
    place: u32,
    len: usize,
}

/// A buffer that a peer may read or write.
#[derive(Debug)]
pub struct Exposed {
    buffer: Buffer,
    remote: Remote,
}

/// How a peer names a buffer of ours, or we one of a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    pub address: u64,
    pub key: u32,
    pub len: u32,
}

impl Pool {
    /// `count` buffers of `buffer_bytes` each, registered with all domains; near the first one's device.
    pub fn new(
        domains: &[Arc<Domain>],
        count: u32,
        buffer_bytes: u32,
        access: Access,
    ) -> Result<Arc<Self>, Error> {
        if !(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&buffer_bytes) {
            let (least, most) = (BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
            return Err(Error::Setting {
                what: "bytes of a buffer",
                least,
                most,
                given: buffer_bytes,
            });
        }
        // Each begins at a cache line: a device writes those of its neighbours as a whole.
        let buffer_bytes = (buffer_bytes as usize).next_multiple_of(CACHE_LINE_BYTES);
        let bytes = buffer_bytes.saturating_mul(count as usize);
        let node = domains.first().and_then(|domain| domain.device().numa_node());
        let pages = Pages::map(bytes, node)?;
        // SAFETY: the pool drops its regions before its pages; here an error does, as they are younger.
        let register =
            |domain| unsafe { Region::register(domain, pages.address(), pages.len(), access) };
        let regions = domains.iter().map(register).collect::<Result<_, _>>()?;
        let free = Mutex::new((0..count).rev().collect());
        Ok(Arc::new(Self { regions, pages, buffer_bytes, access, free }))
    }

    /// A buffer, or `None` if all are on loan.
    pub fn take(self: &Arc<Self>) -> Option<Buffer> {
        let place = self.free.lock().pop()?;
        Some(Buffer { pool: self.clone(), place, len: self.buffer_bytes })
    }

    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Buffers that are not on loan.
    pub fn free(&self) -> usize {
        self.free.lock().len()
    }

    fn region(&self, domain: &Arc<Domain>) -> Result<&Region, Error> {
        self.regions.iter().find(|region| region.is_of(domain)).ok_or(Error::ForeignBuffer)
    }
}

/// Below it, what describes a buffer on the wire is no smaller than the buffer.
const BUFFER_BYTES_MIN: u32 = 64;
/// Above any frame's bulk bytes, and within what one transfer may move (2^31).
const BUFFER_BYTES_MAX: u32 = 1 << 30;
const CACHE_LINE_BYTES: usize = 64;

impl Buffer {
    /// Uses so many bytes of it.
    ///
    /// # Panics
    /// If it has fewer than that, as a slice does.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "{len} bytes of a buffer of {}", self.len);
        self.len = len;
    }

    /// Lets peers read and write it, on connections of this domain, until [`Exposed::close`].
    ///
    /// # Errors
    /// [`Error::ForeignBuffer`] if the pool was not made for that.
    pub fn expose(self, domain: &Arc<Domain>) -> Result<Exposed, Error> {
        if self.pool.access != Access::Peers {
            return Err(Error::ForeignBuffer);
        }
        let key = self.pool.region(domain)?.remote_key();
        let len = u32::try_from(self.len).expect("bounded by the pool");
        Ok(Exposed { remote: Remote { address: self.address(), key, len }, buffer: self })
    }

    /// For a work request: address, length and local key.
    pub(crate) fn local(&self, domain: &Arc<Domain>) -> Result<(u64, u32, u32), Error> {
        let key = self.pool.region(domain)?.local_key();
        Ok((self.address(), u32::try_from(self.len).expect("bounded by the pool"), key))
    }

    fn address(&self) -> u64 {
        self.begin().addr() as u64
    }

    fn begin(&self) -> *mut u8 {
        // SAFETY: the pool's pages have room for all its buffers.
        unsafe {
            self.pool.pages.address().as_ptr().add(self.place as usize * self.pool.buffer_bytes)
        }
    }
}

impl Exposed {
    /// For the peer.
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// Call it when the peer said that it is done, or the connection is dropped: the key is the whole pool's and stays
    /// valid, so a peer that breaks its word on a live connection changes bytes that are read meanwhile. Peers are
    /// daemons and clients that proved who they are; checksums find such bytes.
    pub fn close(self) -> Buffer {
        self.buffer
    }
}

impl Remote {
    pub const BYTES: usize = 16;

    /// Some bytes of it; `None` if it has fewer.
    pub fn part(&self, offset: u32, len: u32) -> Option<Self> {
        let end = offset.checked_add(len)?;
        let address = self.address.checked_add(offset.into())?;
        (end <= self.len).then_some(Self { address, len, ..*self })
    }

    /// Little endian, in the order of the fields.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.key.to_le_bytes());
        bytes[12..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Any bytes are some buffer: the device of whose it is refuses what is none.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let word =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let address = u64::from(word(0)) | u64::from(word(4)) << 32;
        Self { address, key: word(8), len: word(12) }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised memory of the pool; a place is on loan to one buffer at a time, and a buffer that a
        // device may write is owned by its transfer, where nobody can reach it.
        unsafe { std::slice::from_raw_parts(self.begin(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.begin(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.free.lock().push(self.place);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}: {} bytes)", self.place, self.len)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} bytes free)", self.free(), self.buffer_bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn buffers_are_lent_once_and_do_not_overlap() {
        let pool = Pool::new(&[], 3, 100, Access::Local).unwrap();
        assert_eq!(pool.buffer_bytes(), 128);
        let mut lent: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((lent.len(), pool.free()), (3, 0));
        for (byte, buffer) in lent.iter_mut().enumerate() {
            buffer.fill(byte as u8);
        }
        for (byte, buffer) in lent.iter().enumerate() {
            assert!(buffer.iter().all(|is| usize::from(*is) == byte));
        }
        lent.pop();
        assert_eq!(pool.take().unwrap().len(), 128);
    }

    #[test]
    fn sizes_that_no_transfer_has_are_refused() {
        for bytes in [0, 63, (1 << 30) + 1] {
            let refused = Pool::new(&[], 1, bytes, Access::Local);
            assert!(matches!(refused, Err(Error::Setting { .. })), "{bytes}");
        }
    }

    #[test]
    fn parts_lie_inside() {
        let remote = Remote { address: 1 << 40, key: 7, len: 100 };
        assert_eq!(remote.part(60, 40), Some(Remote { address: (1 << 40) + 60, key: 7, len: 40 }));
        assert_eq!(remote.part(61, 40), None);
        assert_eq!(remote.part(u32::MAX, 2), None);
        assert_eq!(Remote::decode(&remote.encode()), remote);
    }
}
