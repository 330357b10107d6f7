//! What lies on a disk and in its index: sizes, keys, records. Pure encoding and decoding.
//!
//! A disk is a data file (or raw device) and an index. The data begins with a superblock and is then
//! cut into blocks by [`crate::alloc`]. A chunk is a row of pieces of [`PIECE_SIZE`]; a piece lies
//! in one block, and each [`SECTOR`] of it has a checksum in the piece's record. A piece that was
//! never written is absent, a sector that was never written is a hole; both read as zeros.
//!
//! **Invariant:** within a written sector, bytes at or beyond the chunk's length are zero.
//! Extending a chunk therefore changes only its length.

mod crc;
mod key;
mod piece;
mod superblock;

pub use crc::{crc32c, join, join_sectors};
pub use key::{Key, chunk_bounds, decode, target_bounds};
pub use piece::Piece;
pub use superblock::{FORMAT_VERSION, Superblock};

use ff2_proto::limits::{CHECKSUM_BLOCK, CHUNK_SIZE_MAX};

/// Unit of checksums, of direct I/O and of in-place changes.
pub const SECTOR: u32 = CHECKSUM_BLOCK;
/// Bytes of a chunk that share a block and an index record.
pub const PIECE_SIZE: u32 = 256 << 10;
/// Sectors of a piece: one bit each in a `u64`.
pub const PIECE_SECTORS: u32 = PIECE_SIZE / SECTOR;
/// Smallest and largest allocation.
pub const BLOCK_SIZE_MIN: u32 = 64 << 10;
pub const BLOCK_SIZE_MAX: u32 = 64 << 20;
/// Bytes at the start of the data that hold the superblock and no block.
pub const DATA_START: u64 = BLOCK_SIZE_MIN as u64;
/// Pieces of the largest chunk.
pub const PIECES_MAX: u32 = CHUNK_SIZE_MAX / PIECE_SIZE;

const _: () = assert!(PIECE_SECTORS == 64, "a piece's sectors are bits of a u64");
const _: () = assert!(PIECE_SIZE >= BLOCK_SIZE_MIN && PIECE_SIZE <= BLOCK_SIZE_MAX);
const _: () = assert!(PIECES_MAX <= u16::MAX as u32);

/// Bytes from the disk or the index that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFormat(pub String);

/// The smallest block that holds `bytes`.
pub fn block_size_for(bytes: u32) -> u32 {
    debug_assert!(bytes <= BLOCK_SIZE_MAX);
    bytes.max(BLOCK_SIZE_MIN).next_power_of_two()
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
