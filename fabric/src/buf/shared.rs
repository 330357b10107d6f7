//! Bytes that many may read.

use std::{
    fmt,
    ops::{Bound, Deref, RangeBounds},
    ptr::NonNull,
    sync::Arc,
};

use bytes::Bytes;

use super::{Buf, block::Block, slab::Slab};

/// A range of a frozen [`Buf`], or of small bytes from elsewhere. Cloning and slicing copy nothing.
#[derive(Clone)]
pub struct SharedBuf {
    memory: Memory,
    start: usize,
    len: usize,
}

#[derive(Clone)]
enum Memory {
    Block(Arc<Block>),
    Bytes(Bytes),
}

impl SharedBuf {
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    pub(super) fn from_block(block: Arc<Block>, len: usize) -> Self {
        Self { memory: Memory::Block(block), start: 0, len }
    }

    /// A part of it. Panics if the range lies outside, as slicing does.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        assert!(start <= end && end <= self.len, "{start}..{end} of {} bytes", self.len);
        Self { memory: self.memory.clone(), start: self.start + start, len: end - start }
    }

    /// The slab that the bytes are a part of; `None` for memory of its own.
    pub fn slab(&self) -> Option<&Arc<Slab>> {
        match &self.memory {
            Memory::Block(block) => block.slab(),
            Memory::Bytes(_) => None,
        }
    }

    /// The slab, and the offset there of the first byte.
    pub(crate) fn place(&self) -> Option<(&Arc<Slab>, usize)> {
        match &self.memory {
            Memory::Block(block) => {
                let (slab, offset) = block.place()?;
                Some((slab, offset + self.start))
            }
            Memory::Bytes(_) => None,
        }
    }

    /// The buffer, if nobody else has a part of it and this one begins at its start.
    pub fn try_into_unique(self) -> Result<Buf, Self> {
        let Self { memory, start, len } = self;
        match memory {
            Memory::Block(block) if start == 0 => match Arc::try_unwrap(block) {
                Ok(block) => Ok(Buf::new(block, len)),
                Err(block) => Err(Self { memory: Memory::Block(block), start, len }),
            },
            memory => Err(Self { memory, start, len }),
        }
    }
}

// SAFETY: the block or the bytes stay where they are as long as somebody has a part of them, and nobody writes them.
unsafe impl ff2_verbs::Lendable for SharedBuf {
    const EXCLUSIVE: bool = false;

    fn bytes(&self) -> NonNull<[u8]> {
        NonNull::from(&**self)
    }
}

impl Default for SharedBuf {
    fn default() -> Self {
        Self::empty()
    }
}

impl Deref for SharedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let memory = match &self.memory {
            Memory::Block(block) => block.bytes(),
            Memory::Bytes(bytes) => bytes,
        };
        &memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for SharedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buf> for SharedBuf {
    fn from(buf: Buf) -> Self {
        buf.freeze()
    }
}

impl From<Bytes> for SharedBuf {
    fn from(bytes: Bytes) -> Self {
        let len = bytes.len();
        Self { memory: Memory::Bytes(bytes), start: 0, len }
    }
}

impl From<Vec<u8>> for SharedBuf {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl fmt::Debug for SharedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuf({} bytes)", self.len)
    }
}
