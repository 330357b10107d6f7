//! Memory that operations read into and write from.

use std::sync::Arc;

use crate::mapping::Mapping;

/// A region: zeroed memory of this process that a ring's operations name by range. Clones are the same
/// memory, which stays mapped while one of them lives, whatever becomes of the ring.
#[derive(Clone, Debug)]
pub struct Region {
    mapping: Arc<Mapping>,
    number: u32,
}

impl Region {
    pub(crate) fn new(mapping: Mapping, number: u32) -> Self {
        Self { mapping: Arc::new(mapping), number }
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Its number in submissions.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Copies bytes out. Panics if they do not lie inside.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.mapping.read(offset, bytes);
    }

    /// Copies bytes in. Panics if they do not lie inside.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.mapping.write(offset, bytes);
    }

    /// The first byte, page aligned: for who looks at the bytes where they are. While an operation on them
    /// is under way they change under its hands.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }
}
