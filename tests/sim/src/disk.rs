//! The simulated chunk store of one target, with the two things that the engine writes and the order
//! in which it does.
//!
//! Bytes of a new version go to blocks that nothing refers to, and those are synced. Only then does
//! the version's batch enter the index's log, and it is durable with the log's next sync; bytes of
//! some small overwrites travel in the batch itself (docs/design/0001). A commit or an abort is a
//! batch that waits for somebody else's sync. The process sees its own decisions at once.
//!
//! A crash tears both. Of a block that no sync covers, any cells may have reached the platter. Of the
//! log, a prefix has, and of the batch behind it a part, with the checksum of the whole: whoever
//! starts drops it by that, as RocksDB drops the torn end of its log.
//!
//! Blocks may also be damaged without a crash (`disk/damage.rs`). The index keeps the checksum of what it
//! names, as the engine's does, and who reads looks at it.
//!
//! Left to the engine's own tests: the reuse of freed blocks, and patches that are written in place.

mod damage;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

pub(crate) use damage::Damage;
use ff2_proto::{
    ChunkId, Code, Status,
    marks::{Mark, reached},
};
use ff2_storage_core::format::crc32c;
use ff2_storage_core::target::{Change, Loaded, LoadedPending, Record, StoreOp, UpdateId};
use xxhash_rust::xxh3::xxh3_64;

use crate::rng::Rng;

/// Bytes of a chunk as cells of eight; cell `i` is what a register of the history holds.
pub(crate) type Content = Vec<u64>;

/// A version of a chunk, if there is one.
pub(crate) type Found = Option<(UpdateId, Content)>;

/// Bytes of a cell.
pub(crate) const CELL: u32 = 8;

/// What an operation waits for before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// [`Disk::written`], then [`Disk::sync`].
    Blocks,
    /// [`Disk::sync`].
    Log,
    Nothing,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What the process goes by.
    now: Index,
    /// What a start would find.
    durable: Index,
    blocks: BTreeMap<u64, Content>,
    unsynced_blocks: BTreeSet<u64>,
    /// Versions whose blocks are being written and synced: not in the log yet.
    writing: BTreeMap<ChunkId, (u64, Batch)>,
    /// What the log's next sync makes durable.
    unsynced: Vec<Batch>,
    blocks_made: u64,
    /// Blocks that damage was done to. Any other one with a wrong checksum is an error of this store.
    hurt: BTreeSet<u64>,
    /// Reads do not look at checksums.
    is_blind: bool,
}

#[derive(Clone, Debug, Default)]
struct Index {
    chunks: BTreeMap<ChunkId, Stored>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    committed: Option<(Record, Place)>,
    pending: Option<(LoadedPending, Place)>,
}

/// Where a version's bytes are.
#[derive(Clone, Debug)]
enum Place {
    Index(Content),
    Block { number: u64, crc: u32 },
}

/// One atomic change of a chunk in the index.
#[derive(Clone, Debug)]
struct Batch {
    chunk: ChunkId,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
enum Row {
    Pending(LoadedPending),
    /// Bytes of the pending version, or where they lie.
    Bytes(Place),
    NoPending,
    /// The committed version is there under this name too, unless something is.
    Keep(ChunkId),
    Committed(Record, Place),
    NoCommitted,
}

impl Disk {
    /// Takes an operation in; the caller then waits as told. Fails with CORRUPT if the operation builds on
    /// bytes that cannot be read.
    pub(crate) fn take(&mut self, chunk: ChunkId, op: StoreOp<Content>) -> Result<Wait, Status> {
        let (rows, block) = match op {
            StoreOp::Prepare { id, change, chunk_size, tags, keeping } => {
                let before = match change.needs_base() {
                    true => self.committed(chunk)?.map(|(_, content)| content).unwrap_or_default(),
                    false => Content::new(),
                };
                let content = changed(&before, &change);
                let length = content.len() as u32 * CELL;
                let removes = change.removes();
                let pending = LoadedPending { id, removes, length, chunk_size, tags, keeping };
                let (place, block) = self.put(&before, content);
                (vec![Row::Pending(pending), Row::Bytes(place)], block)
            }
            StoreOp::Commit { id } => {
                let stored = self.now.chunks.get(&chunk).and_then(|stored| stored.pending.clone());
                let (pending, place) = stored.expect("a commit has its pending");
                assert_eq!(pending.id, id, "the pending update is the one that is committed");
                let keep = Row::Keep(chunk.at(pending.keeping.keep));
                let keeps = pending.keeping.keep != 0;
                let row = match pending.removes {
                    true => Row::NoCommitted,
                    false => Row::Committed(pending.into_record(), place),
                };
                let keep = keeps.then_some(keep);
                (keep.into_iter().chain([Row::NoPending, row]).collect(), None)
            }
            // A prepare that failed left nothing to drop.
            StoreOp::Abort { id } if self.pending_id(chunk) != Some(id) => {
                return Ok(Wait::Nothing);
            }
            StoreOp::Abort { .. } => (vec![Row::NoPending], None),
        };
        let is_told = !matches!(rows.last(), Some(Row::Committed(..) | Row::NoCommitted));
        let batch = Batch { chunk, rows };
        self.now.apply(&batch);
        match block {
            Some(number) => {
                let other = self.writing.insert(chunk, (number, batch));
                assert!(other.is_none(), "one store operation of a chunk at a time");
                Ok(Wait::Blocks)
            }
            None => {
                self.unsynced.push(batch);
                Ok(if is_told { Wait::Log } else { Wait::Nothing })
            }
        }
    }

    /// Puts a version's bytes somewhere. The engine goes by their number and alignment; here it is
    /// the bytes that decide about overwrites, so that both ways are gone often.
    fn put(&mut self, before: &[u64], content: Content) -> (Place, Option<u64>) {
        let overwrites = content.len() == before.len();
        if content.is_empty() || (overwrites && checksum_of(&content).is_multiple_of(2)) {
            return (Place::Index(content), None);
        }
        self.blocks_made += 1;
        let (number, crc) = (self.blocks_made, checksum_of(&content));
        self.blocks.insert(number, content);
        self.unsynced_blocks.insert(number);
        (Place::Block { number, crc }, Some(number))
    }

    /// The blocks of the chunk's new version are synced: its batch enters the log.
    pub(crate) fn written(&mut self, chunk: ChunkId) {
        let (number, batch) = self.writing.remove(&chunk).expect("its blocks were being written");
        self.unsynced_blocks.remove(&number);
        self.unsynced.push(batch);
    }

    /// Syncs the log: what entered it so far survives from now on.
    pub(crate) fn sync(&mut self) {
        for batch in mem::take(&mut self.unsynced) {
            for block in self.durable.apply(&batch) {
                self.blocks.remove(&block);
            }
        }
    }

    /// Loses power.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        for number in mem::take(&mut self.unsynced_blocks) {
            let cells = self.blocks.get_mut(&number).expect("a block that was written");
            // What was there before, and belongs to nobody.
            cells.iter_mut().filter(|_| rng.chance(50)).for_each(|cell| *cell = u64::MAX);
        }
        self.writing.clear();
        let kept = rng.within(0..self.unsynced.len() as u64 + 1) as usize;
        let mut log: Vec<(u64, Batch)> = mem::take(&mut self.unsynced)
            .into_iter()
            .take(kept + 1)
            .map(|batch| (checksum(&batch), batch))
            .collect();
        if let Some((_, torn)) = log.get_mut(kept) {
            torn.tear(rng);
        }
        self.recover(log);
    }

    /// What a start makes of the log's end.
    fn recover(&mut self, log: Vec<(u64, Batch)>) {
        for (sum, batch) in log {
            if checksum(&batch) != sum {
                reached(Mark::TornLogCut);
                break;
            }
            self.durable.apply(&batch);
        }
        let used = self.durable.blocks();
        self.blocks.retain(|number, _| used.contains(number));
        self.hurt.retain(|number| used.contains(number));
        self.now = self.durable.clone();
    }

    /// What a starting process finds.
    pub(crate) fn load(&self) -> Vec<Loaded> {
        let chunks = self.now.chunks.iter();
        chunks
            .map(|(&chunk, stored)| Loaded {
                chunk,
                committed: stored.committed.as_ref().map(|(record, _)| record.clone()),
                pending: stored.pending.as_ref().map(|(pending, _)| pending.clone()),
            })
            .collect()
    }

    /// The committed version with its bytes. Fails with CORRUPT if they are not what was written.
    pub(crate) fn committed(&self, chunk: ChunkId) -> Result<Found, Status> {
        let stored = self.now.chunks.get(&chunk).and_then(|stored| stored.committed.as_ref());
        let Some((record, place)) = stored else { return Ok(None) };
        Ok(Some((record.id, self.read(chunk, place)?)))
    }

    /// As [`Self::committed`], of the pending version.
    pub(crate) fn pending(&self, chunk: ChunkId) -> Result<Found, Status> {
        let stored = self.now.chunks.get(&chunk).and_then(|stored| stored.pending.as_ref());
        let Some((pending, place)) = stored else { return Ok(None) };
        Ok(Some((pending.id, self.read(chunk, place)?)))
    }

    /// Whether this version is here, durable, and what was written.
    pub(crate) fn holds(&self, chunk: ChunkId, id: UpdateId) -> bool {
        let Some(stored) = self.durable.chunks.get(&chunk) else { return false };
        let committed = stored.committed.as_ref().map(|(record, place)| (record.id, place));
        let pending = stored.pending.as_ref().map(|(pending, place)| (pending.id, place));
        let mut versions = committed.into_iter().chain(pending);
        versions.any(|(known, place)| known == id && self.read(chunk, place).is_ok())
    }

    fn pending_id(&self, chunk: ChunkId) -> Option<UpdateId> {
        self.now.chunks.get(&chunk)?.pending.as_ref().map(|(pending, _)| pending.id)
    }

    fn read(&self, chunk: ChunkId, place: &Place) -> Result<Content, Status> {
        match place {
            Place::Index(content) => Ok(content.clone()),
            Place::Block { number, crc } => {
                let content = &self.blocks[number];
                if self.is_blind || checksum_of(content) == *crc {
                    return Ok(content.clone());
                }
                assert!(self.hurt.contains(number), "the index names a block that was torn");
                Err(Status::new(Code::Corrupt, format!("{chunk}: the bytes are not those written")))
            }
        }
    }

    /// Those with a committed version.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        let committed = self.now.chunks.iter().filter(|(_, stored)| stored.committed.is_some());
        committed.map(|(chunk, _)| *chunk)
    }

    /// Every committed chunk with its update and content. Fails with CORRUPT if one cannot be read.
    pub(crate) fn contents(&self) -> Result<BTreeMap<ChunkId, (UpdateId, Content)>, Status> {
        let mut contents = BTreeMap::new();
        for &chunk in self.now.chunks.keys() {
            if let Some(found) = self.committed(chunk)? {
                contents.insert(chunk, found);
            }
        }
        Ok(contents)
    }
}

impl Index {
    /// Returns the blocks that nothing refers to any more.
    fn apply(&mut self, batch: &Batch) -> Vec<u64> {
        let mut kept = BTreeSet::new();
        if let Some(Row::Keep(clone)) = batch.rows.first()
            && let Some(before) = self.chunks.get(&batch.chunk).and_then(|s| s.committed.clone())
            && !self.chunks.contains_key(clone)
        {
            let (record, place) = before;
            let record = Record { tags: Default::default(), ..record };
            let stored = Stored { committed: Some((record, place)), pending: None };
            kept = stored.blocks();
            self.chunks.insert(*clone, stored);
        }
        let stored = self.chunks.entry(batch.chunk).or_default();
        let before = stored.blocks();
        for row in &batch.rows {
            match row {
                Row::Keep(_) => {}
                Row::Pending(pending) => {
                    stored.pending = Some((pending.clone(), Place::Index(Vec::new())));
                }
                Row::Bytes(place) => {
                    let pending = stored.pending.as_mut().expect("bytes follow their pending row");
                    pending.1 = place.clone();
                }
                Row::NoPending => stored.pending = None,
                Row::Committed(record, place) => {
                    stored.committed = Some((record.clone(), place.clone()));
                }
                Row::NoCommitted => stored.committed = None,
            }
        }
        let mut after = stored.blocks();
        after.append(&mut kept);
        if stored.committed.is_none() && stored.pending.is_none() {
            self.chunks.remove(&batch.chunk);
        }
        before.difference(&after).copied().collect()
    }

    fn blocks(&self) -> BTreeSet<u64> {
        self.chunks.values().flat_map(Stored::blocks).collect()
    }
}

impl Stored {
    fn blocks(&self) -> BTreeSet<u64> {
        let committed = self.committed.as_ref().map(|(_, place)| place);
        let places = committed.into_iter().chain(self.pending.as_ref().map(|(_, place)| place));
        let block = |place: &Place| match place {
            Place::Block { number, .. } => Some(*number),
            Place::Index(_) => None,
        };
        places.filter_map(block).collect()
    }
}

impl Batch {
    /// Leaves a part that is less than the whole: some rows, and half of the bytes behind them.
    fn tear(&mut self, rng: &mut Rng) {
        let kept = rng.within(0..self.rows.len() as u64) as usize;
        self.rows.truncate(kept + 1);
        match self.rows.last_mut() {
            Some(Row::Bytes(Place::Index(cells))) if cells.len() > 1 => {
                cells.truncate(cells.len() / 2);
            }
            _ => drop(self.rows.pop()),
        }
    }
}

/// Of the bytes, as the engine makes it.
fn checksum_of(content: &[u64]) -> u32 {
    let bytes: Vec<u8> = content.iter().flat_map(|cell| cell.to_le_bytes()).collect();
    crc32c(&bytes)
}

/// The text stands for the encoding.
fn checksum(of: &impl std::fmt::Debug) -> u64 {
    xxh3_64(format!("{of:?}").as_bytes())
}

fn changed(before: &[u64], change: &Change<Content>) -> Content {
    let mut content = before.to_vec();
    match change {
        Change::Write { offset, length, payload } => {
            let (first, count) = ((offset / CELL) as usize, (length / CELL) as usize);
            assert_eq!(payload.len(), count, "the payload is as long as it says");
            content.resize(content.len().max(first + count), 0);
            content[first..first + count].copy_from_slice(payload);
        }
        Change::Truncate { length } => content.resize((length / CELL) as usize, 0),
        Change::Remove => content.clear(),
        Change::Replace { length, payload } => {
            content.clone_from(payload);
            content.resize((length / CELL) as usize, 0);
        }
    }
    content
}
