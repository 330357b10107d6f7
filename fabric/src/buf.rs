//! Memory for bulk bytes: page-aligned blocks from a pool with a bound in bytes.
//!
//! Owns every block that payloads live in, from the socket to the disk and back, so that none is
//! copied and direct I/O can use all of them. A [`Buf`] has one owner and may be written; frozen, it
//! becomes a [`SharedBuf`] that many may read. A block goes back to its pool when its last user
//! drops it. Blocks are parts of a few large [`Slab`]s, which disks and cards know by registration,
//! once for all transfers. Who finds the pool empty waits: that is how memory pushes back on the network.

mod block;
mod pool;
mod shared;
mod slab;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use block::Block;
pub use pool::BufPool;
pub use shared::SharedBuf;
pub use slab::Slab;
pub(crate) use slab::map_shared;

/// Bytes with one owner. The capacity is a power of two pages, the address is page aligned.
pub struct Buf {
    block: Block,
    len: usize,
}

impl Buf {
    /// No bytes, no memory.
    pub fn empty() -> Self {
        Self { block: Block::empty(), len: 0 }
    }

    /// Zeroed memory outside every pool: for tools and tests.
    pub fn unpooled(len: usize) -> Self {
        Self { block: Block::allocate(len), len }
    }

    fn new(block: Block, len: usize) -> Self {
        assert!(len <= block.capacity());
        Self { block, len }
    }

    pub fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// The slab that the bytes are a part of; `None` for memory of its own.
    pub fn slab(&self) -> Option<&Arc<Slab>> {
        self.block.slab()
    }

    /// The slab, and the offset there of the first byte.
    pub(crate) fn place(&self) -> Option<(&Arc<Slab>, usize)> {
        self.block.place()
    }

    /// Lets its pool lend as many bytes to others at once: for a buffer that will be held for nobody
    /// knows how long.
    pub(crate) fn repay(&mut self) {
        self.block.repay();
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Gives memory back to the pool that its bytes do not need: at least half of what it has, or none.
    pub fn shrink(&mut self) {
        self.block.shrink(self.len);
    }

    /// Sets the length, up to the capacity. Bytes that come to light are old ones, not zeros.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "{len} bytes do not fit into {}", self.capacity());
        self.len = len;
    }

    /// From now on many may read it, and nobody may write it.
    pub fn freeze(self) -> SharedBuf {
        let len = self.len;
        SharedBuf::from_block(Arc::new(self.block), len)
    }
}

// SAFETY: the block's memory stays where it is, and is this value's alone.
unsafe impl ff2_verbs::Lendable for Buf {
    const EXCLUSIVE: bool = true;

    fn bytes(&self) -> NonNull<[u8]> {
        NonNull::from(&**self)
    }
}

impl Default for Buf {
    fn default() -> Self {
        Self::empty()
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.block.bytes()[..self.len]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block.bytes_mut()[..self.len]
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len, self.capacity())
    }
}
