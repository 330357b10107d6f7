//! The bytes of an update, with the checksums that were made of them when they came.
//!
//! One pass over the bytes finds the checksum of each sector; from these follows the one that the sender
//! announced, the one that the successor is told, and what the index keeps.

use std::{fmt, ops::Deref, sync::Arc};

use ff2_fabric::buf::SharedBuf;
use ff2_storage_core::format::{SECTOR, crc32c, join, join_sectors};

const SECTOR_BYTES: usize = SECTOR as usize;

/// See the module. Clones share all of it.
#[derive(Clone, Default)]
pub struct Payload {
    bytes: SharedBuf,
    sums: Option<Arc<Sums>>,
}

struct Sums {
    whole: u32,
    /// Of each whole sector, if the bytes begin with one.
    sectors: Vec<u32>,
}

impl Payload {
    /// Bytes that belong at this offset of a chunk.
    pub fn at(offset: u32, bytes: SharedBuf) -> Self {
        let sectors: Vec<u32> = if offset.is_multiple_of(SECTOR) {
            bytes.chunks_exact(SECTOR_BYTES).map(crc32c).collect()
        } else {
            Vec::new()
        };
        let tail = &bytes[sectors.len() * SECTOR_BYTES..];
        let joined = join_sectors(sectors.iter().copied());
        let whole = if tail.is_empty() { joined } else { join(joined, crc32c(tail), tail.len()) };
        Self { bytes, sums: Some(Arc::new(Sums { whole, sectors })) }
    }

    /// Of all bytes.
    pub fn crc32c(&self) -> u32 {
        self.sums.as_ref().map_or_else(|| crc32c(&self.bytes), |sums| sums.whole)
    }

    /// Of the sector's bytes from `at` on.
    pub fn sector_crc(&self, at: usize) -> u32 {
        let known = self.sums.as_ref().filter(|_| at.is_multiple_of(SECTOR_BYTES));
        let known = known.and_then(|sums| sums.sectors.get(at / SECTOR_BYTES)).copied();
        known.unwrap_or_else(|| crc32c(&self.bytes[at..at + SECTOR_BYTES]))
    }

    pub fn bytes(&self) -> &SharedBuf {
        &self.bytes
    }
}

/// Its checksums are made when they are asked for.
impl From<SharedBuf> for Payload {
    fn from(bytes: SharedBuf) -> Self {
        Self { bytes, sums: None }
    }
}

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.bytes, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums_are_those_of_the_bytes() {
        for len in [0, 1, 4095, 4096, 4097, 3 * 4096, 3 * 4096 + 17] {
            let bytes: Vec<u8> = (0..len).map(|at: usize| (at * 31 + len) as u8).collect();
            for offset in [0, 4096, 5] {
                let payload = Payload::at(offset, bytes.clone().into());
                assert_eq!(payload.crc32c(), crc32c(&bytes), "{len} at {offset}");
                assert_eq!(payload.crc32c(), Payload::from(payload.bytes().clone()).crc32c());
                for at in (0..len.saturating_sub(4095)).step_by(4096) {
                    assert_eq!(payload.sector_crc(at), crc32c(&bytes[at..at + 4096]));
                }
                if len > 4200 {
                    assert_eq!(payload.sector_crc(100), crc32c(&bytes[100..4196]));
                }
            }
        }
    }
}
