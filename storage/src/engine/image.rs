//! The new sectors of an update: from the payload, from the old content, or from both.
//!
//! Sectors that the payload covers wholly, and whose memory is aligned, are written straight from
//! it. All others are put together in one staging buffer, taken once for the whole update (so that
//! no update waits for memory while it holds some). Runs that lie together in memory and on the
//! disk become one write.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use ff2_fabric::buf::{Buf, SharedBuf};
use ff2_proto::Status;
use ff2_storage_core::{
    alloc::Block,
    format::{PIECE_SIZE, Piece, SECTOR, crc32c},
    plan::{Plan, Step},
};

use super::{
    LocalChunk,
    chunk::{Patch, Patches, PieceChange, PieceView},
    core::Core,
    read::corrupt,
};
use crate::{
    disk::{ReadPart, WritePart},
    payload::Payload,
};

const SECTOR_BYTES: usize = SECTOR as usize;

/// What an image is made from.
pub(super) struct Source<'a> {
    pub(super) of: LocalChunk,
    pub(super) plan: &'a Plan,
    pub(super) blocks: &'a BTreeMap<u16, Block>,
    pub(super) old: &'a BTreeMap<u16, PieceView>,
    pub(super) payload: &'a Payload,
    /// Of the payload in the chunk.
    pub(super) offset: u32,
    /// That the update makes.
    pub(super) version: u64,
}

/// What is to be written, and what the index is to know of it.
pub(super) struct Image {
    pub(super) writes: Vec<WritePart>,
    pub(super) pieces: BTreeMap<u16, PieceChange>,
    pub(super) patches: Patches,
}

/// One sector of the image.
struct Cell {
    piece: u16,
    sector: u8,
    /// Where it goes; `None` for a patch.
    position: Option<u64>,
    /// Old content stays, at least in part.
    needs_old: bool,
    /// Old content stays as it is.
    is_kept: bool,
    memory: Memory,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// Offset in the payload.
    Payload(usize),
    /// Offset in the staging buffer.
    Staged(usize),
}

impl Image {
    pub(super) async fn build(core: &Core, source: &Source<'_>) -> Result<Self, Status> {
        let (cells, staged) = source.cells();
        let mut staging = core.staging.get(staged).await;
        staging.fill(0);
        staging = source.read_old(core, &cells, staging).await?;
        source.put_payload(&cells, &mut staging);
        let staging = staging.freeze();
        let payload = source.payload;
        let bytes = |cell: &Cell| match cell.memory {
            Memory::Payload(at) => &payload[at..at + SECTOR_BYTES],
            Memory::Staged(at) => &staging[at..at + SECTOR_BYTES],
        };
        let mut image = source.without_content();
        for cell in &cells {
            let crc = match source.kept_crc(cell) {
                Some(crc) => crc,
                None => match cell.memory {
                    Memory::Payload(at) => payload.sector_crc(at),
                    Memory::Staged(_) => crc32c(bytes(cell)),
                },
            };
            image.add(cell, source.version, crc, bytes(cell));
        }
        image.seal();
        image.writes = runs(&cells, payload.bytes(), &staging);
        Ok(image)
    }

    fn add(&mut self, cell: &Cell, version: u64, crc: u32, bytes: &[u8]) {
        if cell.position.is_none() {
            let bytes = Bytes::copy_from_slice(bytes);
            let patch = Patch { version, batch: 0, crc, bytes };
            self.patches.insert((cell.piece, cell.sector), patch);
            return;
        }
        match self.pieces.get_mut(&cell.piece) {
            Some(PieceChange::Replaced(piece)) => {
                let piece = Arc::get_mut(piece).expect("nobody else has seen it");
                piece.set(cell.sector.into(), crc);
            }
            Some(PieceChange::Adjusted { filled, .. }) => filled.push((cell.sector, crc)),
            Some(PieceChange::Dropped) | None => {
                unreachable!("a step without content has no cells")
            }
        }
    }

    /// Pieces that only get patches change nothing in their record.
    fn seal(&mut self) {
        self.pieces.retain(|_, change| match change {
            PieceChange::Adjusted { filled, cleared } => !filled.is_empty() || *cleared != 0,
            PieceChange::Dropped | PieceChange::Replaced(_) => true,
        });
    }
}

impl Source<'_> {
    /// All sectors that the update makes, in order, and the staging bytes they need.
    fn cells(&self) -> (Vec<Cell>, usize) {
        let mut cells = Vec::new();
        let mut staged = 0;
        for (piece, step) in &self.plan.steps {
            let (content, kept, patched, block) = match *step {
                Step::Drop => continue,
                Step::Rewrite { write, keep, .. } => (write | keep, keep, 0, self.blocks[piece]),
                Step::Adjust { fill, patch, .. } => {
                    let old = self.old[piece].piece.as_ref().expect("only existing pieces adjust");
                    (fill | patch, 0, patch, old.block)
                }
            };
            let merge = self.plan.merge.get(piece).copied().unwrap_or(0);
            for sector in (0..64u8).filter(|sector| content >> sector & 1 == 1) {
                let is = |mask: u64| mask >> sector & 1 == 1;
                let direct = if is(kept | merge) { None } else { self.direct(*piece, sector) };
                let memory = direct.map_or(Memory::Staged(staged), Memory::Payload);
                if direct.is_none() {
                    staged += SECTOR_BYTES;
                }
                let position = block.position + u64::from(sector) * u64::from(SECTOR);
                cells.push(Cell {
                    piece: *piece,
                    sector,
                    position: (!is(patched)).then_some(position),
                    needs_old: is(kept | merge),
                    is_kept: is(kept),
                    memory,
                });
            }
        }
        (cells, staged)
    }

    /// Where in the payload the whole sector lies, if its memory can be written from as it is.
    fn direct(&self, piece: u16, sector: u8) -> Option<usize> {
        let start = sector_start(piece, sector);
        let at = start.checked_sub(self.offset as usize)?;
        let inside = at + SECTOR_BYTES <= self.payload.len();
        (inside && (self.payload.as_ptr().addr() + at).is_multiple_of(SECTOR_BYTES)).then_some(at)
    }

    /// Brings old content to its staging places, checked.
    async fn read_old(&self, core: &Core, cells: &[Cell], mut staging: Buf) -> Result<Buf, Status> {
        let mut parts: Vec<ReadPart> = Vec::new();
        let mut on_disk: Vec<(&Cell, usize, u32)> = Vec::new();
        for cell in cells.iter().filter(|cell| cell.needs_old) {
            let Memory::Staged(at) = cell.memory else { unreachable!("old content is staged") };
            let old = &self.old[&cell.piece];
            if let Some(patch) = old.patches.get(&cell.sector) {
                staging[at..at + SECTOR_BYTES].copy_from_slice(&patch.bytes);
                continue;
            }
            let piece = old.piece.as_ref().expect("a written sector lies in a piece");
            let crc = piece.crc(cell.sector.into()).expect("only written sectors are needed");
            let position = piece.block.position + u64::from(cell.sector) * u64::from(SECTOR);
            on_disk.push((cell, at, crc));
            match parts.last_mut() {
                Some(last)
                    if last.position + last.length as u64 == position
                        && last.at + last.length == at =>
                {
                    last.length += SECTOR_BYTES;
                }
                _ => parts.push(ReadPart { position, at, length: SECTOR_BYTES }),
            }
        }
        staging = core.disk.read(staging, parts).await?;
        for (cell, at, crc) in on_disk {
            if crc32c(&staging[at..at + SECTOR_BYTES]) != crc {
                let block = self.old[&cell.piece].piece.as_ref().map(|piece| piece.block);
                return Err(corrupt(core, self.of, cell.piece, cell.sector, block));
            }
        }
        Ok(staging)
    }

    /// Puts the payload over staged sectors and zeros what lies beyond the chunk's new length.
    fn put_payload(&self, cells: &[Cell], staging: &mut Buf) {
        let from = self.offset as usize;
        let to = from + self.payload.len();
        for cell in cells.iter().filter(|cell| !cell.is_kept) {
            let Memory::Staged(at) = cell.memory else { continue };
            let start = sector_start(cell.piece, cell.sector);
            let (first, end) = (from.max(start), to.min(start + SECTOR_BYTES));
            if first < end {
                let target = at + first - start..at + end - start;
                staging[target].copy_from_slice(&self.payload[first - from..end - from]);
            }
            let beyond = (self.plan.length as usize).max(start) - start;
            if beyond < SECTOR_BYTES {
                staging[at + beyond..at + SECTOR_BYTES].fill(0);
            }
        }
    }

    /// Content that is copied keeps its checksum, so that no copy can hide a flipped bit.
    fn kept_crc(&self, cell: &Cell) -> Option<u32> {
        if !cell.is_kept {
            return None;
        }
        let old = &self.old[&cell.piece];
        match old.patches.get(&cell.sector) {
            Some(patch) => Some(patch.crc),
            None => old.piece.as_ref()?.crc(cell.sector.into()),
        }
    }

    fn without_content(&self) -> Image {
        let pieces = self.plan.steps.iter().map(|(number, step)| {
            let change = match *step {
                Step::Drop => PieceChange::Dropped,
                Step::Rewrite { .. } => {
                    PieceChange::Replaced(Arc::new(Piece::new(self.blocks[number])))
                }
                Step::Adjust { clear, .. } => {
                    PieceChange::Adjusted { filled: Vec::new(), cleared: clear }
                }
            };
            (*number, change)
        });
        Image { writes: Vec::new(), pieces: pieces.collect(), patches: Patches::new() }
    }
}

fn sector_start(piece: u16, sector: u8) -> usize {
    usize::from(piece) * PIECE_SIZE as usize + usize::from(sector) * SECTOR_BYTES
}

/// The writes of all cells that go to blocks.
fn runs(cells: &[Cell], payload: &SharedBuf, staging: &SharedBuf) -> Vec<WritePart> {
    let mut runs: Vec<(u64, Memory, usize)> = Vec::new();
    for cell in cells {
        let Some(position) = cell.position else { continue };
        if let Some((start, memory, length)) = runs.last_mut()
            && *start + *length as u64 == position
            && memory.after(*length) == cell.memory
        {
            *length += SECTOR_BYTES;
            continue;
        }
        runs.push((position, cell.memory, SECTOR_BYTES));
    }
    let part = |(position, memory, length): (u64, Memory, usize)| {
        let bytes = match memory {
            Memory::Payload(at) => payload.slice(at..at + length),
            Memory::Staged(at) => staging.slice(at..at + length),
        };
        WritePart { position, bytes }
    };
    runs.into_iter().map(part).collect()
}

impl Memory {
    fn after(self, bytes: usize) -> Self {
        match self {
            Self::Payload(at) => Self::Payload(at + bytes),
            Self::Staged(at) => Self::Staged(at + bytes),
        }
    }
}
