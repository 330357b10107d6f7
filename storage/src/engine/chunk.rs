//! A chunk in memory: what the index says of it, as far as it is known here.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use ff2_proto::{ChainVersion, ChunkVersion, Status, pb, status::Code};
use ff2_storage_core::{
    alloc::Block,
    format::{Piece, chunk_bounds},
    target::Keeping,
};

use super::{
    CommittedChunk, LocalChunk, PendingChunk, PendingKind, Which,
    index::{Index, to_piece},
};
use ff2_storage_core::format::Key;

/// The new content of one sector, in the index until it is written to its place.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// The version that made it.
    pub(super) version: u64,
    /// The batch that committed it.
    pub(super) batch: u64,
    pub(super) crc: u32,
    pub(super) bytes: Bytes,
}

/// By piece and sector.
pub(super) type Patches = BTreeMap<(u16, u8), Patch>;

/// What a pending version does to one piece.
#[derive(Clone, Debug)]
pub(super) enum PieceChange {
    Dropped,
    Replaced(Arc<Piece>),
    Adjusted { filled: Vec<(u8, u32)>, cleared: u64 },
}

/// A prepared version.
#[derive(Clone, Debug)]
pub(super) struct PendingState {
    pub(super) about: PendingChunk,
    pub(super) pieces: BTreeMap<u16, PieceChange>,
    pub(super) patches: Patches,
}

/// The place for the one pending version of a chunk.
#[derive(Debug, Default)]
pub(super) enum Slot {
    #[default]
    Free,
    /// An update is on its way to the disk.
    Preparing,
    Prepared(Box<PendingState>),
}

/// See the module. Chunks with patches or an occupied slot stay in memory, others may be forgotten.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) committed: Option<CommittedChunk>,
    /// Committed pieces as far as they were looked up; `None` is known to be a hole.
    pieces: BTreeMap<u16, Option<Arc<Piece>>>,
    all_pieces_known: bool,
    /// Committed patches, all of them.
    pub(super) patches: Patches,
    pub(super) slot: Slot,
    /// The last batch that made holes of sectors whose content may still be read, or a crash
    /// bring back.
    pub(super) holes_batch: u64,
}

/// One piece as a reader sees it.
#[derive(Clone, Debug)]
pub(super) struct PieceView {
    pub(super) index: u16,
    pub(super) piece: Option<Arc<Piece>>,
    /// By sector; they hide the block's content.
    pub(super) patches: BTreeMap<u8, Patch>,
}

impl Chunk {
    /// From the index; `None` if there is no such chunk.
    pub(super) fn load(of: LocalChunk, index: &Index) -> Result<Option<Self>, Status> {
        let record = index.record::<pb::ChunkRecord>(&Key::Chunk(of.target, of.chunk))?;
        let committed = record.map(|record| committed(&record));
        Ok(committed.map(|committed| Self { committed: Some(committed), ..Self::default() }))
    }

    /// As found at start; its pieces are looked up when they are wanted.
    pub(super) fn recovered(
        committed: Option<CommittedChunk>,
        patches: Patches,
        slot: Slot,
    ) -> Self {
        Self { committed, patches, slot, ..Self::default() }
    }

    pub(super) fn length(&self) -> u32 {
        self.committed.as_ref().map_or(0, |committed| committed.length)
    }

    /// Piece records in memory.
    pub(super) fn weight(&self) -> usize {
        1 + self.pieces.len()
    }

    pub(super) fn must_stay(&self) -> bool {
        !self.patches.is_empty() || !matches!(self.slot, Slot::Free)
    }

    pub(super) fn prepared(&self) -> Option<&PendingState> {
        match &self.slot {
            Slot::Prepared(pending) => Some(pending),
            Slot::Free | Slot::Preparing => None,
        }
    }

    /// A committed piece, looked up in the index at most once.
    pub(super) fn piece(
        &mut self,
        of: LocalChunk,
        number: u16,
        index: &Index,
    ) -> Result<Option<Arc<Piece>>, Status> {
        match self.pieces.entry(number) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(_) if self.all_pieces_known || self.committed.is_none() => Ok(None),
            Entry::Vacant(unknown) => Ok(unknown.insert(index.piece(of, number)?).clone()),
        }
    }

    /// Looks up every piece.
    pub(super) fn know_all_pieces(&mut self, of: LocalChunk, index: &Index) -> Result<(), Status> {
        if self.all_pieces_known {
            return Ok(());
        }
        if self.committed.is_some() {
            let mut found = BTreeMap::new();
            index.scan(chunk_bounds(of.target, of.chunk), |key, value| {
                if let Key::Piece(_, _, number) = key {
                    let record = super::index::parse(&key, value)?;
                    found.insert(number, Some(Arc::new(to_piece(&key, &record)?)));
                }
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
            self.pieces = found;
        }
        self.all_pieces_known = true;
        Ok(())
    }

    /// Pieces that are known to exist.
    pub(super) fn known_pieces(&self) -> impl Iterator<Item = (u16, &Arc<Piece>)> {
        self.pieces.iter().filter_map(|(number, piece)| Some((*number, piece.as_ref()?)))
    }

    /// A clone of which all is known.
    pub(super) fn cloned(
        committed: CommittedChunk,
        pieces: BTreeMap<u16, Arc<Piece>>,
        patches: Patches,
    ) -> Self {
        let pieces = pieces.into_iter().map(|(number, piece)| (number, Some(piece))).collect();
        let committed = Some(committed);
        Self { committed, pieces, all_pieces_known: true, patches, ..Self::default() }
    }

    /// After the index took it.
    pub(super) fn set_piece(&mut self, number: u16, piece: Option<Arc<Piece>>) {
        self.pieces.insert(number, piece);
    }

    pub(super) fn patches_of(&self, number: u16) -> impl Iterator<Item = (u8, &Patch)> {
        patches_of(&self.patches, number)
    }

    /// Where the chunk's last known block before piece `number` ends: a good place for the next.
    pub(super) fn end_before(&self, number: u16) -> Option<u64> {
        let (_, piece) = self.pieces.range(..number).next_back()?;
        piece.as_ref().map(|piece| piece.block.end())
    }

    /// One piece as `which` sees it.
    pub(super) fn view(
        &mut self,
        of: LocalChunk,
        number: u16,
        which: Which,
        index: &Index,
    ) -> Result<PieceView, Status> {
        let piece = self.piece(of, number, index)?;
        let patches = self.patches_of(number).map(|(sector, patch)| (sector, patch.clone()));
        let mut view = PieceView { index: number, piece, patches: patches.collect() };
        if which == Which::Committed {
            return Ok(view);
        }
        let pending = self.prepared().ok_or_else(|| no_pending(of))?;
        match pending.pieces.get(&number) {
            None => {}
            Some(PieceChange::Dropped) => {
                view = PieceView { piece: None, patches: BTreeMap::new(), ..view }
            }
            Some(PieceChange::Replaced(piece)) => {
                view = PieceView { piece: Some(piece.clone()), patches: BTreeMap::new(), ..view };
            }
            Some(PieceChange::Adjusted { filled, cleared }) => {
                view.patches.retain(|sector, _| cleared >> sector & 1 == 0);
                if let Some(piece) = &view.piece {
                    view.piece = Some(Arc::new(adjusted(piece, filled, *cleared)));
                }
            }
        }
        for (sector, patch) in patches_of(&pending.patches, number) {
            view.patches.insert(sector, patch.clone());
        }
        Ok(view)
    }
}

fn patches_of(patches: &Patches, number: u16) -> impl Iterator<Item = (u8, &Patch)> {
    patches.range((number, 0)..=(number, u8::MAX)).map(|((_, sector), patch)| (*sector, patch))
}

/// The piece after some of its holes were filled and some sectors became holes.
pub(super) fn adjusted(piece: &Piece, filled: &[(u8, u32)], cleared: u64) -> Piece {
    let mut piece = piece.clone();
    piece.clear(cleared);
    for (sector, crc) in filled {
        piece.set((*sector).into(), *crc);
    }
    piece
}

impl PendingState {
    /// Blocks that only this version refers to.
    pub(super) fn new_blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.pieces.values().filter_map(|change| match change {
            PieceChange::Replaced(piece) => Some(piece.block),
            PieceChange::Dropped | PieceChange::Adjusted { .. } => None,
        })
    }

    pub(super) fn to_record(&self) -> pb::PendingRecord {
        let pieces = self.pieces.iter().map(|(number, change)| {
            let mut piece = pb::PendingPiece { piece: (*number).into(), ..Default::default() };
            match change {
                PieceChange::Dropped => piece.dropped = true,
                PieceChange::Replaced(new) => piece.replaced = Some(new.to_record()),
                PieceChange::Adjusted { filled, cleared } => {
                    piece.filled = filled.iter().fold(0, |mask, (sector, _)| mask | 1 << sector);
                    piece.crc32c = filled.iter().map(|(_, crc)| *crc).collect();
                    piece.cleared = *cleared;
                }
            }
            piece
        });
        let patches = self.patches.iter().map(|((piece, sector), patch)| pb::PatchRef {
            piece: (*piece).into(),
            block: (*sector).into(),
            crc32c: patch.crc,
        });
        pb::PendingRecord {
            version: self.about.version.0,
            chain_version: self.about.chain_version.0,
            kind: wire_kind(self.about.kind).into(),
            length: self.about.length,
            chunk_size: self.about.chunk_size,
            tags: self.about.tags.clone(),
            since: self.about.keeping.since,
            keep: self.about.keeping.keep,
            pieces: pieces.collect(),
            patches: patches.collect(),
        }
    }

    /// From the index. `patches` are the chunk's rows of this version.
    pub(super) fn from_record(
        key: &Key,
        record: &pb::PendingRecord,
        mut patches: Patches,
    ) -> Result<Self, Status> {
        let bad = |why: &str| Status::new(Code::Corrupt, format!("the index row {key:?}: {why}"));
        let about = pending(record).ok_or_else(|| bad("unknown kind"))?;
        let mut pieces = BTreeMap::new();
        for piece in &record.pieces {
            let number = u16::try_from(piece.piece).map_err(|_| bad("piece number"))?;
            let change = if piece.dropped {
                PieceChange::Dropped
            } else if let Some(record) = &piece.replaced {
                PieceChange::Replaced(Arc::new(to_piece(key, record)?))
            } else {
                let sectors = (0..64u8).filter(|sector| piece.filled >> sector & 1 == 1);
                if piece.filled.count_ones() as usize != piece.crc32c.len() {
                    return Err(bad("checksums of filled sectors"));
                }
                let filled = sectors.zip(piece.crc32c.iter().copied()).collect();
                PieceChange::Adjusted { filled, cleared: piece.cleared }
            };
            pieces.insert(number, change);
        }
        let mut named: BTreeMap<(u16, u8), u32> = BTreeMap::new();
        for patch in &record.patches {
            let piece = u16::try_from(patch.piece).map_err(|_| bad("a patch's piece"))?;
            let sector = u8::try_from(patch.block).map_err(|_| bad("a patch's sector"))?;
            named.insert((piece, sector), patch.crc32c);
        }
        patches.retain(|place, _| named.contains_key(place));
        let all_there = named
            .iter()
            .all(|(place, crc)| patches.get(place).is_some_and(|patch| patch.crc == *crc));
        if !all_there {
            return Err(bad("a patch is missing or broken"));
        }
        Ok(Self { about, pieces, patches })
    }
}

pub(super) fn committed(record: &pb::ChunkRecord) -> CommittedChunk {
    CommittedChunk {
        version: ChunkVersion(record.committed_version),
        chain_version: ChainVersion(record.committed_chain_version),
        length: record.length,
        chunk_size: record.chunk_size,
        tags: record.tags.clone(),
        since: record.since,
    }
}

pub(super) fn committed_record(chunk: &CommittedChunk) -> pb::ChunkRecord {
    pb::ChunkRecord {
        committed_version: chunk.version.0,
        committed_chain_version: chunk.chain_version.0,
        length: chunk.length,
        chunk_size: chunk.chunk_size,
        tags: chunk.tags.clone(),
        since: chunk.since,
    }
}

/// None for a kind that this release does not know.
pub(super) fn pending(record: &pb::PendingRecord) -> Option<PendingChunk> {
    let kind = match record.kind() {
        pb::UpdateKind::Write => PendingKind::Write,
        pb::UpdateKind::Truncate => PendingKind::Truncate,
        pb::UpdateKind::Remove => PendingKind::Remove,
        pb::UpdateKind::Replace => PendingKind::Replace,
        pb::UpdateKind::UpdateUnknown => return None,
    };
    Some(PendingChunk {
        version: ChunkVersion(record.version),
        chain_version: ChainVersion(record.chain_version),
        kind,
        length: record.length,
        chunk_size: record.chunk_size,
        tags: record.tags.clone(),
        keeping: Keeping { since: record.since, keep: record.keep },
    })
}

fn wire_kind(kind: PendingKind) -> pb::UpdateKind {
    match kind {
        PendingKind::Write => pb::UpdateKind::Write,
        PendingKind::Truncate => pb::UpdateKind::Truncate,
        PendingKind::Remove => pb::UpdateKind::Remove,
        PendingKind::Replace => pb::UpdateKind::Replace,
    }
}

pub(super) fn no_pending(of: LocalChunk) -> Status {
    Status::new(Code::NotFound, format!("{of} has no pending version"))
}

#[cfg(test)]
mod tests;
