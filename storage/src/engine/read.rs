//! Reading a version: from its blocks, with patches over them and zeros in the holes.

use std::{fmt::Write as _, sync::LazyLock};

use ff2_fabric::buf::Buf;
use ff2_proto::{ChainVersion, ChunkVersion, Status, status::Code};
use ff2_storage_core::{
    alloc::Block,
    format::{PIECE_SECTORS, PIECE_SIZE, SECTOR, crc32c, join_sectors},
};

use super::{
    Check, LocalChunk, Readout, Which,
    chunk::{Chunk, PieceView, no_pending},
    core::{Core, Use, count},
    limits::READ_GAP_SECTORS,
};
use crate::disk::ReadPart;

const SECTOR_BYTES: usize = SECTOR as usize;

/// A version's content for one read, found under the locks.
struct Found<'a> {
    readout: Readout,
    pieces: Vec<PieceView>,
    /// While the blocks are read.
    _use: Use<'a>,
}

/// One sector of the read: where it goes and where it comes from.
struct Wanted<'a> {
    view: &'a PieceView,
    sector: u8,
    /// In the buffer.
    at: usize,
}

impl Core {
    pub(super) async fn read(
        &self,
        of: LocalChunk,
        which: Which,
        (offset, len): (u32, u32),
        check: Check,
        mut buf: Buf,
    ) -> Result<(Buf, Readout), Status> {
        if buf.capacity() < len as usize {
            let detail = format!("a buffer of {} bytes for {len}", buf.capacity());
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        let mut found = self.find(of, which, offset, len)?;
        count(&self.counters.reads);
        let valid = found.readout.valid as usize;
        let first = offset as usize % SECTOR_BYTES;
        let span = (first + valid).next_multiple_of(SECTOR_BYTES);
        let whole_sectors = first == 0 && len.is_multiple_of(SECTOR);
        // Nobody can check a part of a sector but who has the whole.
        let check = if whole_sectors { check } else { Check::Here };
        if whole_sectors {
            found.readout.crc32c = Some(found.crc32c(offset, len));
        }
        if valid == 0 {
            buf.set_len(len as usize);
        } else if first == 0 && span <= buf.capacity() {
            buf.set_len(span.max(len as usize));
            buf = self.fill(of, &found, offset, check, buf).await?;
            buf.set_len(len as usize);
        } else {
            let aligned = offset - first as u32;
            let mut staging = self.staging.get(span).await;
            staging = self.fill(of, &found, aligned, Check::Here, staging).await?;
            buf.set_len(len as usize);
            buf[..valid].copy_from_slice(&staging[first..first + valid]);
        }
        buf[valid..].fill(0);
        Ok((buf, found.readout))
    }

    /// Looks the version up; what it consists of stays on the disk until the use ends.
    fn find(
        &self,
        of: LocalChunk,
        which: Which,
        offset: u32,
        len: u32,
    ) -> Result<Found<'_>, Status> {
        let mut shard = self.shards.lock(of);
        let Some(chunk) = shard.find(of, &self.index)? else {
            self.check_target(of.target)?;
            return Err(no_chunk(of));
        };
        let (version, chain_version, length) = header(of, chunk, which)?;
        let valid = length.saturating_sub(offset).min(len);
        let mut pieces = Vec::new();
        if valid > 0 {
            for number in offset / PIECE_SIZE..=(offset + valid - 1) / PIECE_SIZE {
                pieces.push(chunk.view(of, number as u16, which, &self.index)?);
            }
        }
        let readout = Readout { version, chain_version, chunk_length: length, valid, crc32c: None };
        let mut ledger = self.ledger.lock();
        shard.trim(&ledger);
        Ok(Found { readout, pieces, _use: Use::begin(self, &mut ledger) })
    }

    /// Fills whole sectors from `aligned` on, as many as the buffer and the version have.
    async fn fill(
        &self,
        of: LocalChunk,
        found: &Found<'_>,
        aligned: u32,
        check: Check,
        mut buf: Buf,
    ) -> Result<Buf, Status> {
        // The version has no bytes at and above this.
        let end = found.readout.chunk_length as usize - aligned as usize;
        let span = end.next_multiple_of(SECTOR_BYTES).min(buf.len() / SECTOR_BYTES * SECTOR_BYTES);
        let wanted = wanted(&found.pieces, aligned, span);
        buf = self.disk.read(buf, parts(&wanted)).await?;
        for Wanted { view, sector, at } in wanted {
            let bytes = &mut buf[at..at + SECTOR_BYTES];
            if let Some(patch) = view.patches.get(&sector) {
                bytes.copy_from_slice(&patch.bytes);
                continue;
            }
            let piece = view.piece.as_ref();
            match piece.and_then(|piece| piece.crc(sector.into())) {
                None => bytes.fill(0),
                Some(_) if check == Check::ByReader => {}
                Some(crc) if crc32c(bytes) == crc => {}
                Some(_) => {
                    let block = piece.map(|piece| piece.block);
                    return Err(corrupt(self, of, view.index, sector, block));
                }
            }
        }
        Ok(buf)
    }
}

impl Found<'_> {
    /// Of `len` bytes from `offset` on, both of whole sectors: within a sector, what lies beyond the
    /// chunk's length is zeros, and so is what was never written.
    fn crc32c(&self, offset: u32, len: u32) -> u32 {
        static ZEROS: LazyLock<u32> = LazyLock::new(|| crc32c(&[0; SECTOR_BYTES]));
        let first_piece = offset / PIECE_SIZE;
        join_sectors((offset / SECTOR..(offset + len) / SECTOR).map(|sector| {
            let piece = sector * SECTOR / PIECE_SIZE - first_piece;
            let within = sector % PIECE_SECTORS;
            let view = self.pieces.get(piece as usize);
            view.and_then(|view| view.crc(within as u8)).unwrap_or(*ZEROS)
        }))
    }
}

impl PieceView {
    /// Of a sector that was written.
    fn crc(&self, sector: u8) -> Option<u32> {
        match self.patches.get(&sector) {
            Some(patch) => Some(patch.crc),
            None => self.piece.as_ref()?.crc(sector.into()),
        }
    }
}

fn header(
    of: LocalChunk,
    chunk: &Chunk,
    which: Which,
) -> Result<(ChunkVersion, ChainVersion, u32), Status> {
    match which {
        Which::Committed => {
            let known = chunk.committed.as_ref().ok_or_else(|| no_chunk(of))?;
            Ok((known.version, known.chain_version, known.length))
        }
        Which::Pending => {
            let about = &chunk.prepared().ok_or_else(|| no_pending(of))?.about;
            Ok((about.version, about.chain_version, about.length))
        }
    }
}

/// The sectors of `span` bytes from `aligned` on, each with its piece.
fn wanted(pieces: &[PieceView], aligned: u32, span: usize) -> Vec<Wanted<'_>> {
    let first_piece = (aligned / PIECE_SIZE) as usize;
    let sectors = (0..span).step_by(SECTOR_BYTES);
    let place = |at: usize| {
        let byte = aligned as usize + at;
        let view = &pieces[byte / PIECE_SIZE as usize - first_piece];
        Wanted { view, sector: (byte % PIECE_SIZE as usize / SECTOR_BYTES) as u8, at }
    };
    sectors.map(place).collect()
}

/// The reads of all sectors that only the disk has. Small gaps are read as well: one larger
/// request costs less than two, and what lands in the gap is overwritten afterwards.
fn parts(wanted: &[Wanted<'_>]) -> Vec<ReadPart> {
    let mut parts: Vec<ReadPart> = Vec::new();
    for Wanted { view, sector, at } in wanted {
        let Some(piece) = &view.piece else { continue };
        if !piece.is_written((*sector).into()) || view.patches.contains_key(sector) {
            continue;
        }
        let position = piece.block.position + u64::from(*sector) * u64::from(SECTOR);
        if let Some(last) = parts.last_mut() {
            let ahead = position.checked_sub(last.position + last.length as u64);
            let gap = *at - (last.at + last.length);
            if ahead == Some(gap as u64) && gap <= READ_GAP_SECTORS as usize * SECTOR_BYTES {
                last.length += gap + SECTOR_BYTES;
                continue;
            }
        }
        parts.push(ReadPart { position, at: *at, length: SECTOR_BYTES });
    }
    parts
}

/// A checksum that does not match: named so that a person can find the place.
pub(super) fn corrupt(
    core: &Core,
    of: LocalChunk,
    piece: u16,
    sector: u8,
    block: Option<Block>,
) -> Status {
    count(&core.counters.corrupt_sectors);
    let mut detail = format!("{of}: checksum of piece {piece}, sector {sector} does not match");
    if let Some(block) = block {
        let position = block.position + u64::from(sector) * u64::from(SECTOR);
        let _ = write!(detail, ", byte {position} of {}", core.dir.display());
    }
    tracing::error!(%detail, "corrupt data on the disk");
    Status::new(Code::Corrupt, detail)
}

fn no_chunk(of: LocalChunk) -> Status {
    Status::new(Code::NotFound, format!("{of} does not exist"))
}
