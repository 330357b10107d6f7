//! One piece of a chunk: its block and the checksums of its written sectors.

use ff2_proto::pb;

use super::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, BadFormat, DATA_START, PIECE_SECTORS, SECTOR};
use crate::alloc::Block;

/// A piece as the index knows it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub block: Block,
    /// Bit i: sector i was written. The others are holes.
    pub written: u64,
    /// Of each sector up to the last written one; 0 for holes.
    crcs: Vec<u32>,
}

impl Piece {
    /// A block without content.
    pub fn new(block: Block) -> Self {
        Self { block, written: 0, crcs: Vec::new() }
    }

    pub fn is_written(&self, sector: u32) -> bool {
        debug_assert!(sector < PIECE_SECTORS);
        self.written >> sector & 1 == 1
    }

    /// Checksum of a written sector.
    pub fn crc(&self, sector: u32) -> Option<u32> {
        self.is_written(sector).then(|| self.crcs[sector as usize])
    }

    /// Sectors that the block has room for.
    pub fn sectors(&self) -> u32 {
        (self.block.size / SECTOR).min(PIECE_SECTORS)
    }

    pub fn set(&mut self, sector: u32, crc: u32) {
        assert!(sector < self.sectors(), "sector {sector} lies outside of the block");
        if self.crcs.len() <= sector as usize {
            self.crcs.resize(sector as usize + 1, 0);
        }
        self.crcs[sector as usize] = crc;
        self.written |= 1 << sector;
    }

    /// Makes holes of the sectors in `mask`.
    pub fn clear(&mut self, mask: u64) {
        self.written &= !mask;
        self.crcs.truncate((u64::BITS - self.written.leading_zeros()) as usize);
        for (sector, crc) in self.crcs.iter_mut().enumerate() {
            if self.written >> sector & 1 == 0 {
                *crc = 0;
            }
        }
    }

    pub fn to_record(&self) -> pb::PieceRecord {
        let covered = mask_below(self.crcs.len() as u32);
        pb::PieceRecord {
            block: self.block.position,
            block_size: self.block.size,
            length: self.crcs.len() as u32 * SECTOR,
            crc32c: self.crcs.clone(),
            holes: covered & !self.written,
        }
    }

    pub fn from_record(record: &pb::PieceRecord) -> Result<Self, BadFormat> {
        let bad = |why: &str| BadFormat(format!("piece record at {}: {why}", record.block));
        let block = Block { position: record.block, size: record.block_size };
        if !block.size.is_power_of_two() || !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block.size)
        {
            return Err(bad("block size is no power of two in bounds"));
        }
        if block.position < DATA_START || !block.position.is_multiple_of(BLOCK_SIZE_MIN.into()) {
            return Err(bad("block lies off the grid"));
        }
        let room = (block.size / SECTOR).min(PIECE_SECTORS);
        if record.crc32c.len() > room as usize {
            return Err(bad("more checksums than sectors"));
        }
        if record.length as usize != record.crc32c.len() * SECTOR as usize {
            return Err(bad("length and checksums disagree"));
        }
        let covered = mask_below(record.crc32c.len() as u32);
        if record.holes & !covered != 0 {
            return Err(bad("holes beyond the length"));
        }
        let written = covered & !record.holes;
        Ok(Self { block, written, crcs: record.crc32c.clone() })
    }
}

/// The lowest `count` bits.
fn mask_below(count: u32) -> u64 {
    debug_assert!(count <= u64::BITS);
    1u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1)
}
