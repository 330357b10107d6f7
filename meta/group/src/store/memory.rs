//! A store in memory that can crash: what was not synced may be lost from any point on, and the batch
//! at that point may be there in part.

use std::{cell::RefCell, collections::BTreeMap};

use ff2_meta_core::{Kv, KvRead, MemKv};
use ff2_proto::{
    marks::{Mark, reached},
    pb,
};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState};

use super::{LogStore, StoreBatch, log::LogShape, no_such_snapshot, page, snapshot_message};
use crate::{format, limits, membership::Membership};

/// See the module.
#[derive(Debug)]
pub struct MemStore {
    now: Image,
    /// What a crash cannot take away.
    durable: Image,
    /// Batches since, in order: a crash keeps some prefix of them.
    unsynced: Vec<StoreBatch>,
    incoming: MemKv,
    pins: RefCell<Pins>,
    address: String,
}

#[derive(Clone, Debug)]
struct Image {
    log: LogShape,
    hard: HardState,
    conf: ConfState,
    membership: Membership,
    applied: u64,
    kv: MemKv,
}

#[derive(Debug)]
struct Pins {
    next: u64,
    held: BTreeMap<u64, Pin>,
}

#[derive(Debug)]
struct Pin {
    to: u64,
    index: u64,
    served: u64,
    kv: MemKv,
}

impl MemStore {
    /// A replica that was never formed; `seed` makes its snapshot ids differ from those of other runs.
    pub fn empty(address: &str, seed: u64) -> Self {
        let now = Image {
            log: LogShape::whole(),
            hard: HardState::default(),
            conf: ConfState::default(),
            membership: Membership::default(),
            applied: 0,
            kv: MemKv::new(),
        };
        let pins = RefCell::new(Pins { next: seed | 1, held: BTreeMap::new() });
        let (durable, incoming) = (now.clone(), MemKv::new());
        Self { now, durable, unsynced: Vec::new(), incoming, pins, address: address.into() }
    }

    /// A founding member of a new group.
    pub fn formed(address: &str, seed: u64, members: &[pb::Member]) -> Self {
        let mut store = Self::empty(address, seed);
        let (index, term) = (format::BOOT_INDEX, format::BOOT_TERM);
        let voters = members.iter().map(|member| member.raft_id).collect();
        store.now.log.reset(index, term);
        store.now.hard = HardState { term, commit: index, vote: 0 };
        store.now.conf = ConfState { voters, ..Default::default() };
        store.now.membership = Membership::new(members.iter().cloned());
        store.now.applied = index;
        store.durable = store.now.clone();
        store
    }

    /// Loses power. The first `kept` batches since the last sync happen to have reached the disk, and
    /// a part of the next one, which a start drops by the checksum of the whole.
    #[must_use]
    pub fn crash(mut self, kept: usize, seed: u64) -> Self {
        let written = self.unsynced.drain(..).take(kept + 1);
        let mut log: Vec<_> = written.map(|batch| (checksum(&batch), batch)).collect();
        if let Some((_, torn)) = log.get_mut(kept) {
            tear(torn);
        }
        for (sum, batch) in log {
            // As RocksDB does with the torn end of its log: all of the batch or nothing.
            if checksum(&batch) != sum {
                reached(Mark::TornLogCut);
                break;
            }
            // An install is always synced, so no state in the making has to survive.
            assert!(batch.install.is_none(), "installs are synced");
            self.durable.apply(batch, &MemKv::new());
        }
        self.now = self.durable.clone();
        self.incoming = MemKv::new();
        self.pins = RefCell::new(Pins { next: seed | 1, held: BTreeMap::new() });
        self
    }

    /// Batches that a crash may take away.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub fn kv(&self) -> &MemKv {
        &self.now.kv
    }
}

/// Leaves half of what a batch begins with, and nothing of its end.
fn tear(batch: &mut StoreBatch) {
    let changes = std::mem::take(&mut batch.changes);
    let mut entries = std::mem::take(&mut batch.entries);
    entries.truncate(entries.len() / 2);
    let half = changes.len() / 2;
    let changes = changes.into_iter().take(half).collect();
    *batch = StoreBatch { entries, changes, ..Default::default() };
}

/// The text stands for the encoding.
fn checksum(batch: &StoreBatch) -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{batch:?}").as_bytes())
}

impl Image {
    fn apply(&mut self, batch: StoreBatch, incoming: &MemKv) {
        if let Some(install) = batch.install {
            self.kv = incoming.clone();
            self.log.reset(install.index, install.term);
            self.applied = install.index;
            self.conf = install.conf;
            self.membership = install.membership;
        }
        self.kv.apply(batch.changes);
        self.log.append(batch.entries);
        if let Some(index) = batch.truncate {
            self.log.truncate(index);
        }
        self.applied = batch.applied.unwrap_or(self.applied);
        if let Some(conf) = batch.conf {
            self.conf = conf;
        }
        if let Some(membership) = batch.membership {
            self.membership = membership;
        }
        if let Some(hard) = batch.hard {
            self.hard = hard;
        }
        assert!(self.applied <= self.hard.commit, "commit is written no later than applied");
        assert!(self.hard.commit <= self.log.last(), "what is committed is in the log");
    }
}

impl LogStore for MemStore {
    fn with_state<R>(&self, read: impl FnOnce(&dyn KvRead) -> R) -> R {
        read(&self.now.kv)
    }

    fn applied(&self) -> u64 {
        self.now.applied
    }

    fn hard(&self) -> &HardState {
        &self.now.hard
    }

    fn conf(&self) -> &ConfState {
        &self.now.conf
    }

    fn membership(&self) -> &Membership {
        &self.now.membership
    }

    fn write(&mut self, batch: StoreBatch, sync: bool) {
        let incoming = match batch.install {
            Some(_) => std::mem::take(&mut self.incoming),
            None => MemKv::new(),
        };
        assert!(sync || batch.install.is_none(), "installs are synced");
        self.now.apply(batch.clone(), &incoming);
        self.unsynced.push(batch);
        if sync {
            for batch in self.unsynced.drain(..) {
                self.durable.apply(batch, &incoming);
            }
        }
    }

    fn truncatable(&self, entries: u64) -> u64 {
        let pinned = self.pins.borrow().held.values().map(|pin| pin.index).min();
        let surplus = self.now.log.surplus(entries).min(self.now.applied);
        surplus.min(pinned.unwrap_or(u64::MAX))
    }

    fn begin_install(&mut self) {
        self.incoming = MemKv::new();
    }

    fn install_page(&mut self, pairs: &[pb::KeyValue]) {
        for pair in pairs {
            self.incoming.put(&pair.key, pair.value.clone());
        }
    }

    fn pages_served(&self, snapshot: u64) -> Option<u64> {
        self.pins.borrow().held.get(&snapshot).map(|pin| pin.served)
    }

    fn unpin(&mut self, snapshot: u64) {
        self.pins.borrow_mut().held.remove(&snapshot);
    }

    fn page(&self, request: &pb::FetchSnapshotRequest) -> pb::FetchSnapshotReply {
        let mut pins = self.pins.borrow_mut();
        let Some(pin) = pins.held.get_mut(&request.snapshot) else { return no_such_snapshot() };
        pin.served += 1;
        let behind = pin.kv.pairs().filter(|(key, _)| **key > request.after_key);
        page(request, behind.map(|(key, value)| (key.clone(), value.clone())))
    }
}

impl raft::Storage for MemStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.now.hard.clone(), self.now.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.now.log.first() {
            return Err(raft::StorageError::Compacted.into());
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        self.now.log.recent(low, high, max).map_err(|_| raft::StorageError::Unavailable.into())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.now.log.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.now.log.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.now.log.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let now = &self.now;
        let mut pins = self.pins.borrow_mut();
        pins.held.retain(|_, pin| pin.to != to);
        let known = crate::membership::contains(&now.conf, to);
        if !known || now.applied < request_index || pins.held.len() >= limits::PINS_MAX {
            return Err(raft::StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let id = pins.next;
        pins.next = pins.next.wrapping_add(2);
        let pin = Pin { to, index: now.applied, served: 0, kv: now.kv.clone() };
        let manifest = pb::SnapshotManifest {
            snapshot: id,
            index: now.applied,
            keys: now.kv.len() as u64,
            members: now.membership.members.values().cloned().collect(),
            address: self.address.clone(),
            next_raft_id: now.membership.next_raft_id,
        };
        pins.held.insert(id, pin);
        Ok(snapshot_message(&manifest, now.log.term(now.applied)?, &now.conf))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn batch(index: u64) -> StoreBatch {
        let entry = Entry { index, term: 6, ..Default::default() };
        let changes = BTreeMap::from([(Bytes::from("k"), Some(Bytes::from(index.to_string())))]);
        StoreBatch {
            entries: vec![entry],
            hard: Some(HardState { term: 6, vote: 1, commit: index }),
            applied: Some(index),
            changes,
            ..Default::default()
        }
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        for kept in 0..=3 {
            let member = pb::Member { raft_id: 1, node: 1, ..Default::default() };
            let mut store = MemStore::formed("a:1", 1, &[member]);
            store.write(batch(6), false);
            store.write(batch(7), true);
            for index in 8..=10 {
                store.write(batch(index), false);
            }
            assert_eq!(store.unsynced(), 3);
            let store = store.crash(kept, 2);
            assert_eq!(store.applied(), 7 + kept as u64);
            assert_eq!(store.kv().get(b"k"), Some(Bytes::from((7 + kept).to_string())));
        }
    }
}
