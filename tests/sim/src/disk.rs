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
//! Left to the engine's own tests: the reuse of freed blocks, and patches that are written in place.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use ff2_proto::{ChainVersion, ChunkId};
use ff2_storage_core::target::{Change, Loaded, LoadedPending, Record, StoreOp, UpdateId};
use xxhash_rust::xxh3::xxh3_64;

use crate::rng::Rng;

/// Bytes of a chunk as cells of eight; cell `i` is what a register of the history holds.
pub(crate) type Content = Vec<u64>;

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
    Block { number: u64, sum: u64 },
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
    Committed(Record, Place),
    NoCommitted,
}

impl Disk {
    /// Takes an operation in; the caller then waits as told.
    pub(crate) fn take(&mut self, chunk: ChunkId, op: StoreOp<Content>) -> Wait {
        let (rows, block) = match op {
            StoreOp::Prepare { id, change, chunk_size, tags } => {
                let before = self.committed(chunk).map(|(_, content)| content).unwrap_or_default();
                let content = changed(&before, &change);
                let length = content.len() as u32 * CELL;
                let removes = change.removes();
                let pending = LoadedPending { id, removes, length, chunk_size, tags };
                let (place, block) = self.put(&before, content);
                (vec![Row::Pending(pending), Row::Bytes(place)], block)
            }
            StoreOp::Commit { id } => {
                let stored = self.now.chunks.get(&chunk).and_then(|stored| stored.pending.clone());
                let (pending, place) = stored.expect("a commit has its pending");
                assert_eq!(pending.id, id, "the pending update is the one that is committed");
                let row = match pending.removes {
                    true => Row::NoCommitted,
                    false => Row::Committed(record(pending), place),
                };
                (vec![Row::NoPending, row], None)
            }
            // A prepare that failed left nothing to drop.
            StoreOp::Abort { id } if self.pending(chunk).is_none_or(|(known, _)| known != id) => {
                return Wait::Nothing;
            }
            StoreOp::Abort { .. } => (vec![Row::NoPending], None),
        };
        let prepares = matches!(rows[0], Row::Pending(_));
        let batch = Batch { chunk, rows };
        self.now.apply(&batch);
        match block {
            Some(number) => {
                let other = self.writing.insert(chunk, (number, batch));
                assert!(other.is_none(), "one store operation of a chunk at a time");
                Wait::Blocks
            }
            None => {
                self.unsynced.push(batch);
                if prepares { Wait::Log } else { Wait::Nothing }
            }
        }
    }

    /// Puts a version's bytes somewhere. The engine goes by their number and alignment; here it is
    /// the bytes that decide about overwrites, so that both ways are gone often.
    fn put(&mut self, before: &Content, content: Content) -> (Place, Option<u64>) {
        let overwrites = content.len() == before.len();
        if content.is_empty() || (overwrites && checksum(&content).is_multiple_of(2)) {
            return (Place::Index(content), None);
        }
        self.blocks_made += 1;
        let (number, sum) = (self.blocks_made, checksum(&content));
        self.blocks.insert(number, content);
        self.unsynced_blocks.insert(number);
        (Place::Block { number, sum }, Some(number))
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
                break;
            }
            self.durable.apply(&batch);
        }
        let used = self.durable.blocks();
        self.blocks.retain(|number, _| used.contains(number));
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

    pub(crate) fn committed(&self, chunk: ChunkId) -> Option<(UpdateId, Content)> {
        let (record, place) = self.now.chunks.get(&chunk)?.committed.as_ref()?;
        Some((record.id, self.read(place)))
    }

    pub(crate) fn pending(&self, chunk: ChunkId) -> Option<(UpdateId, Content)> {
        let (pending, place) = self.now.chunks.get(&chunk)?.pending.as_ref()?;
        Some((pending.id, self.read(place)))
    }

    fn read(&self, place: &Place) -> Content {
        match place {
            Place::Index(content) => content.clone(),
            Place::Block { number, sum } => {
                let content = &self.blocks[number];
                assert_eq!(checksum(content), *sum, "the index names a block that was torn");
                content.clone()
            }
        }
    }

    /// Every committed chunk with its update and content.
    pub(crate) fn contents(&self) -> BTreeMap<ChunkId, (UpdateId, Content)> {
        let chunks = self.now.chunks.keys();
        chunks.filter_map(|&chunk| Some((chunk, self.committed(chunk)?))).collect()
    }
}

impl Index {
    /// Returns the blocks that nothing refers to any more.
    fn apply(&mut self, batch: &Batch) -> Vec<u64> {
        let stored = self.chunks.entry(batch.chunk).or_default();
        let before = stored.blocks();
        for row in &batch.rows {
            match row {
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
        let after = stored.blocks();
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

/// The text stands for the encoding.
fn checksum(of: &impl std::fmt::Debug) -> u64 {
    xxh3_64(format!("{of:?}").as_bytes())
}

fn record(pending: LoadedPending) -> Record {
    let LoadedPending { id, length, chunk_size, tags, .. } = pending;
    Record { id, length, chunk_size, tags, synced_under: ChainVersion(0) }
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
