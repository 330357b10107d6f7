//! What an update does to each piece of a chunk. Pure: bitmaps in, steps out.
//!
//! Until a version is committed its predecessor must stay readable, whatever the disk does. A
//! written sector (4 KiB) of a committed piece is therefore never overwritten by `prepare`. Three
//! ways remain, chosen for each piece:
//!
//! - **Rewrite**: a new block with all of the piece's content; the old one is freed at commit. For
//!   pieces that are new, outgrow their block, or are changed in more than [`PATCH_SECTORS_MAX`]
//!   written sectors.
//! - **Fill**: sectors that are holes of the piece's block are written in place. No committed byte
//!   lives there, so a torn write harms nothing. Appends are this.
//! - **Patch**: a written sector gets its whole new content in the index, in the same batch as the
//!   pending record, and is written to its place only after the commit. An append that begins in
//!   the middle of a sector patches that sector: durable bytes never share a sector with a write
//!   in progress. A random 4 KiB overwrite costs 4 KiB in the index log and 4 KiB in place.

use std::collections::BTreeMap;

use crate::format::{PIECE_SECTORS, PIECE_SIZE, SECTOR, block_size_for};

/// Written sectors of a piece that one update may patch; more rewrite the piece.
pub const PATCH_SECTORS_MAX: u32 = 8;

/// An update, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Write { offset: u32, length: u32 },
    Truncate { length: u32 },
    Remove,
    Replace { length: u32, payload: u32 },
}

/// What the planner must know of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PieceState {
    pub block_size: u32,
    /// Sectors with content, in the block or in patches.
    pub written: u64,
}

/// What the planner must know of a chunk.
#[derive(Clone, Debug)]
pub struct ChunkState<'a> {
    /// Committed length; 0 for a chunk that is not there.
    pub length: u32,
    pub chunk_size: u32,
    /// False while a read or the disk may still use sectors that became holes: then they are
    /// not written in place yet.
    pub may_fill: bool,
    /// The file is known to be larger than a piece, so a piece's block is made for all of it.
    pub grows: bool,
    /// What it is becomes a clone, with the blocks and patches that it has: the new version gets others.
    pub keeps: bool,
    /// The pieces that exist, at least those in [`Change::pieces`].
    pub pieces: &'a BTreeMap<u16, PieceState>,
}

/// What becomes of one piece. Bit i of a mask is sector i.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The piece becomes a hole.
    Drop,
    /// A new block: `write` sectors from the update, `keep` sectors copied.
    Rewrite { block_size: u32, write: u64, keep: u64 },
    /// `fill` goes to holes of the block, `patch` to the index, `clear` become holes.
    Adjust { fill: u64, patch: u64, clear: u64 },
}

/// The outcome of planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the chunk after the update.
    pub length: u32,
    pub steps: BTreeMap<u16, Step>,
    /// Sectors of `write`, `fill` or `patch` that hold old bytes as well, by piece: the update's
    /// bytes go over the old content (zeros for a hole).
    pub merge: BTreeMap<u16, u64>,
}

/// Why an update is refused before anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("bytes up to {end} lie beyond the chunk size {chunk_size}")]
    BeyondChunk { end: u64, chunk_size: u32 },
    #[error("a replacement of {length} bytes cannot hold a payload of {payload}")]
    PayloadTooLong { length: u32, payload: u32 },
}

impl Change {
    /// The pieces that matter for planning: first, and end (exclusive).
    pub fn pieces(&self) -> (u32, u32) {
        match *self {
            Self::Write { length: 0, .. } => (0, 0),
            Self::Write { offset, length } => {
                let end = u64::from(offset) + u64::from(length);
                (offset / PIECE_SIZE, end.div_ceil(PIECE_SIZE.into()) as u32)
            }
            Self::Truncate { length } => (length / PIECE_SIZE, u32::MAX),
            Self::Remove | Self::Replace { .. } => (0, u32::MAX),
        }
    }

    /// As [`Self::pieces`], where the update keeps what the chunk was: then all matter.
    pub fn pieces_of(&self, keeps: bool) -> (u32, u32) {
        if keeps { (0, u32::MAX) } else { self.pieces() }
    }
}

/// Decides; see the module.
pub fn plan(chunk: &ChunkState<'_>, change: Change) -> Result<Plan, Refused> {
    refuse(chunk, change)?;
    let mut plan = Plan { length: 0, steps: BTreeMap::new(), merge: BTreeMap::new() };
    match change {
        Change::Write { offset, length } => {
            plan.length = chunk.length.max(offset + length);
            write(chunk, offset, offset + length, &mut plan);
        }
        Change::Truncate { length } => {
            plan.length = length;
            truncate(chunk, length, &mut plan);
        }
        Change::Remove => {
            plan.steps = chunk.pieces.keys().map(|piece| (*piece, Step::Drop)).collect();
        }
        Change::Replace { length, payload } => {
            plan.length = length;
            plan.steps = chunk.pieces.keys().map(|piece| (*piece, Step::Drop)).collect();
            for piece in 0..payload.div_ceil(PIECE_SIZE) {
                let touched = Touched::of(piece, 0, payload);
                let block_size = block_size_for(touched.end_bytes());
                let step = Step::Rewrite { block_size, write: touched.all, keep: 0 };
                plan.steps.insert(piece as u16, step);
            }
        }
    }
    if chunk.keeps {
        copy_all(chunk, &mut plan);
    }
    plan.check(chunk);
    Ok(plan)
}

fn refuse(chunk: &ChunkState<'_>, change: Change) -> Result<(), Refused> {
    let end = match change {
        Change::Write { offset, length } => u64::from(offset) + u64::from(length),
        Change::Truncate { length } => length.into(),
        Change::Remove => 0,
        Change::Replace { length, payload } if payload > length => {
            return Err(Refused::PayloadTooLong { length, payload });
        }
        Change::Replace { length, .. } => length.into(),
    };
    if end > chunk.chunk_size.into() {
        return Err(Refused::BeyondChunk { end, chunk_size: chunk.chunk_size });
    }
    Ok(())
}

/// The sectors of one piece that a range of bytes touches.
#[derive(Clone, Copy, Debug)]
struct Touched {
    all: u64,
    /// Those touched in part.
    edges: u64,
}

impl Touched {
    fn of(piece: u32, from: u32, to: u32) -> Self {
        let start = piece * PIECE_SIZE;
        let from = from.max(start) - start;
        let to = (to - start).min(PIECE_SIZE);
        debug_assert!(from < to, "the range touches the piece");
        let all = sectors(from / SECTOR, to.div_ceil(SECTOR));
        // May be empty or inverted within one sector.
        let (first, end) = (from.div_ceil(SECTOR), to / SECTOR);
        let whole = if first < end { sectors(first, end) } else { 0 };
        Self { all, edges: all & !whole }
    }

    /// Bytes of the piece up to the last touched sector.
    fn end_bytes(&self) -> u32 {
        (u64::BITS - self.all.leading_zeros()) * SECTOR
    }
}

/// Bits `from..to`.
fn sectors(from: u32, to: u32) -> u64 {
    debug_assert!(from <= to && to <= PIECE_SECTORS);
    let below = |bit: u32| 1u64.checked_shl(bit).map_or(u64::MAX, |bit| bit - 1);
    below(to) & !below(from)
}

fn write(chunk: &ChunkState<'_>, from: u32, to: u32, plan: &mut Plan) {
    let (first, end) = Change::Write { offset: from, length: to - from }.pieces();
    for piece in first..end {
        let touched = Touched::of(piece, from, to);
        let old = chunk.pieces.get(&(piece as u16)).copied();
        let merge = touched.edges & old.unwrap_or_default().written;
        if touched.edges != 0 && merge != 0 {
            plan.merge.insert(piece as u16, merge);
        }
        plan.steps.insert(piece as u16, write_piece(chunk, piece, old, touched));
    }
}

fn write_piece(
    chunk: &ChunkState<'_>,
    piece: u32,
    old: Option<PieceState>,
    touched: Touched,
) -> Step {
    let whole = block_size_for(PIECE_SIZE.min(chunk.chunk_size - piece * PIECE_SIZE));
    let Some(old) = old else {
        let grows = chunk.grows || piece > 0;
        let block_size = if grows { whole } else { block_size_for(touched.end_bytes()) };
        return Step::Rewrite { block_size, write: touched.all, keep: 0 };
    };
    let overwritten = touched.all & old.written;
    let fill = touched.all & !old.written;
    let keep = old.written & !touched.all;
    if touched.end_bytes() > old.block_size {
        return Step::Rewrite { block_size: whole, write: touched.all, keep };
    }
    if overwritten == 0 && chunk.may_fill {
        return Step::Adjust { fill, patch: 0, clear: 0 };
    }
    // Few sectors go to the index all together: that saves the data a sync.
    if touched.all.count_ones() <= PATCH_SECTORS_MAX {
        return Step::Adjust { fill: 0, patch: touched.all, clear: 0 };
    }
    if overwritten.count_ones() <= PATCH_SECTORS_MAX && chunk.may_fill {
        return Step::Adjust { fill, patch: overwritten, clear: 0 };
    }
    Step::Rewrite { block_size: old.block_size.min(whole), write: touched.all, keep }
}

fn truncate(chunk: &ChunkState<'_>, length: u32, plan: &mut Plan) {
    for (piece, old) in chunk.pieces {
        let start = u32::from(*piece) * PIECE_SIZE;
        if start >= length {
            plan.steps.insert(*piece, Step::Drop);
            continue;
        }
        let kept = length - start;
        if kept >= PIECE_SIZE {
            continue;
        }
        let clear = old.written & !sectors(0, kept.div_ceil(SECTOR));
        // Bytes beyond the chunk's length are zero already, so a chunk that grows needs nothing.
        let cut = !kept.is_multiple_of(SECTOR) && length < chunk.length;
        let patch = if cut { old.written & 1 << (kept / SECTOR) } else { 0 };
        if patch != 0 {
            plan.merge.insert(*piece, patch);
        }
        if patch | clear != 0 {
            plan.steps.insert(*piece, Step::Adjust { fill: 0, patch, clear });
        }
    }
}

/// Gives each piece that stays a new block with all of its content.
fn copy_all(chunk: &ChunkState<'_>, plan: &mut Plan) {
    for (piece, old) in chunk.pieces {
        let block_size = old.block_size;
        let whole = Step::Rewrite { block_size, write: 0, keep: old.written };
        let step = match plan.steps.get(piece) {
            None => whole,
            Some(Step::Drop | Step::Rewrite { .. }) => continue,
            Some(Step::Adjust { fill, patch, clear }) => {
                let write = fill | patch;
                Step::Rewrite { block_size, write, keep: old.written & !(write | clear) }
            }
        };
        plan.steps.insert(*piece, step);
    }
}

impl Plan {
    /// The block sizes to allocate, in order of the pieces.
    pub fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        self.steps.values().filter_map(|step| match step {
            Step::Rewrite { block_size, .. } => Some(*block_size),
            Step::Drop | Step::Adjust { .. } => None,
        })
    }

    /// Sectors that go to blocks: what the data may grow by.
    pub fn placed_sectors(&self) -> u32 {
        let placed = |step: &Step| match step {
            Step::Drop => 0,
            Step::Rewrite { write, keep, .. } => (write | keep).count_ones(),
            Step::Adjust { fill, .. } => fill.count_ones(),
        };
        self.steps.values().map(placed).sum()
    }

    /// What must hold of every plan.
    fn check(&self, chunk: &ChunkState<'_>) {
        let all_planned = || chunk.pieces.keys().all(|piece| self.steps.contains_key(piece));
        assert!(!chunk.keeps || all_planned(), "all that is kept has its own place");
        for (piece, step) in &self.steps {
            let old = chunk.pieces.get(piece).copied();
            match *step {
                Step::Drop => assert!(old.is_some(), "only what is there is dropped"),
                Step::Rewrite { block_size, write, keep } => {
                    assert_eq!(write & keep, 0);
                    let top = u64::BITS - (write | keep).leading_zeros();
                    assert!(top * SECTOR <= block_size, "the content fits its block");
                }
                Step::Adjust { fill, patch, clear } => {
                    assert!(!chunk.keeps, "what is kept is not touched");
                    let old = old.expect("only what is there is adjusted");
                    assert_eq!(fill & old.written, 0, "committed bytes are not overwritten");
                    assert!(fill & patch == 0 && (fill | patch) & clear == 0);
                    assert!(patch.count_ones() <= PATCH_SECTORS_MAX);
                    assert!(fill == 0 || chunk.may_fill);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
