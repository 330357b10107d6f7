//! A replica on disk: one RocksDB, written by the group's thread only.

use std::{path::PathBuf, sync::Arc, time::Instant};

use ff2_meta_core::KvRead;
use ff2_proto::pb;
use prost011::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState};
use rocksdb::{BoundColumnFamily, DB, WriteBatch, WriteOptions};

use super::{LogStore, StoreBatch, log::LogShape, snapshot_message};
use crate::{
    error::stop,
    format::{self, Identity},
    membership::{self, Membership},
    metrics::GroupMetrics,
};

mod flips;
mod open;
mod pins;
mod reader;

pub(crate) use open::random;
pub use open::{format_group, restore_group};
use pins::Pin;
pub(crate) use pins::Pins;
pub(crate) use reader::StateReader;

/// See the module.
pub struct RocksStore {
    db: Arc<DB>,
    folder: PathBuf,
    identity: Identity,
    log: LogShape,
    hard: HardState,
    conf: ConfState,
    membership: Membership,
    applied: u64,
    reader: StateReader,
    pins: Pins,
    address: String,
    metrics: GroupMetrics,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksStore({}, applied {})", self.folder.display(), self.applied)
    }
}

impl RocksStore {
    /// `None` until the group's leader let this folder in.
    pub fn raft_id(&self) -> Option<u64> {
        Some(self.identity.raft_id).filter(|id| *id != 0)
    }

    /// Names the folder in [`pb::JoinGroupRequest`].
    pub fn incarnation(&self) -> u64 {
        self.identity.incarnation
    }

    /// Takes the raft id that the leader gave this folder.
    pub(crate) fn adopt(&mut self, raft_id: u64) {
        assert_eq!(self.identity.raft_id, 0, "a folder keeps its raft id");
        assert_ne!(raft_id, 0, "raft ids are from 1");
        self.identity.raft_id = raft_id;
        let bytes = prost::Message::encode_to_vec(&self.identity);
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.cf(format::CF_RAFT), format::IDENTITY, bytes);
        self.commit(batch, true);
    }

    pub(crate) fn reader(&self) -> StateReader {
        self.reader.clone()
    }

    pub(crate) fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// Ends readers and page servers, waits for them, and closes the database.
    pub(crate) fn close(self) {
        self.reader.close();
        self.pins.close();
        // Readers hold the database for one read; C++ must not outlive `main` in another thread.
        for _ in 0..2_000 {
            if Arc::strong_count(&self.db) == 1 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.db.cancel_all_background_work(true);
    }

    fn cf(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name).expect("all column families are made at open")
    }

    fn active(&self) -> &'static str {
        format::CF_STATES[self.reader.active()]
    }

    fn spare(&self) -> &'static str {
        format::CF_STATES[1 - self.reader.active()]
    }

    fn commit(&self, batch: WriteBatch, sync: bool) {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        if let Err(error) = self.db.write_opt(batch, &options) {
            stop(&self.folder, "write", &error);
        }
    }

    fn empty_spare(&self) {
        let name = self.spare();
        let made = self
            .db
            .drop_cf(name)
            .and_then(|()| self.db.create_cf(name, &open::state_options(self.reader.cache())));
        if let Err(error) = made {
            stop(&self.folder, "empty the spare state", &error);
        }
    }

    fn put_install(&mut self, batch: &mut WriteBatch, install: &super::Install) {
        let raft = self.cf(format::CF_RAFT);
        batch.put_cf(&raft, format::ACTIVE, self.spare());
        batch.delete_range_cf(&raft, format::log_key(0), format::log_key(u64::MAX));
        batch.put_cf(&raft, format::TRUNCATED, format::pair(install.index, install.term));
        batch.put_cf(&raft, format::APPLIED, install.index.to_be_bytes());
        batch.put_cf(&raft, format::CONF, install.conf.encode_to_vec());
        batch.put_cf(&raft, format::MEMBERS, install.membership.encode());
        drop(raft);
        self.log.reset(install.index, install.term);
        self.applied = install.index;
        self.conf = install.conf.clone();
        self.membership = install.membership.clone();
    }

    fn put_entries(&mut self, batch: &mut WriteBatch, entries: Vec<Entry>) {
        let raft = self.cf(format::CF_RAFT);
        for entry in &entries {
            batch.put_cf(&raft, format::log_key(entry.index), entry.encode_to_vec());
        }
        drop(raft);
        let old_last = self.log.append(entries);
        let raft = self.cf(format::CF_RAFT);
        for index in self.log.last() + 1..=old_last {
            batch.delete_cf(&raft, format::log_key(index));
        }
    }

    fn put_truncate(&mut self, batch: &mut WriteBatch, index: u64) {
        let first = self.log.first();
        if !self.log.truncate(index) {
            return;
        }
        let raft = self.cf(format::CF_RAFT);
        let (index, term) = self.log.truncated();
        batch.delete_range_cf(&raft, format::log_key(first), format::log_key(index + 1));
        batch.put_cf(&raft, format::TRUNCATED, format::pair(index, term));
    }

    fn put_state(&mut self, batch: &mut WriteBatch, changed: StoreBatch) {
        let db = Arc::clone(&self.db);
        let raft = db.cf_handle(format::CF_RAFT).expect("made at open");
        if !changed.changes.is_empty() {
            let state = self.cf(self.active());
            for (key, value) in &changed.changes {
                match value {
                    Some(value) => batch.put_cf(&state, key, value),
                    None => batch.delete_cf(&state, key),
                }
            }
        }
        if let Some(applied) = changed.applied {
            batch.put_cf(&raft, format::APPLIED, applied.to_be_bytes());
            self.applied = applied;
        }
        if let Some(conf) = changed.conf {
            batch.put_cf(&raft, format::CONF, conf.encode_to_vec());
            self.conf = conf;
        }
        if let Some(membership) = changed.membership {
            batch.put_cf(&raft, format::MEMBERS, membership.encode());
            self.membership = membership;
        }
        if let Some(hard) = changed.hard {
            batch.put_cf(&raft, format::HARD, hard.encode_to_vec());
            self.hard = hard;
        }
    }
}

impl LogStore for RocksStore {
    fn with_state<R>(&self, read: impl FnOnce(&dyn KvRead) -> R) -> R {
        read(&reader::Direct { db: &self.db, cf: self.cf(self.active()), folder: &self.folder })
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    fn hard(&self) -> &HardState {
        &self.hard
    }

    fn conf(&self) -> &ConfState {
        &self.conf
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }

    fn write(&mut self, mut changed: StoreBatch, sync: bool) {
        let mut batch = WriteBatch::default();
        let installed = changed.install.take();
        if let Some(install) = &installed {
            assert!(sync, "installs are synced");
            assert!(changed.changes.is_empty(), "an install brings the whole state");
            self.put_install(&mut batch, install);
        }
        let entries = std::mem::take(&mut changed.entries);
        let count = entries.len();
        if !entries.is_empty() {
            self.put_entries(&mut batch, entries);
        }
        if let Some(index) = changed.truncate {
            self.put_truncate(&mut batch, index);
        }
        self.put_state(&mut batch, changed);
        assert!(self.applied <= self.hard.commit, "commit is written no later than applied");
        assert!(self.hard.commit <= self.log.last(), "what is committed is in the log");
        let begun = Instant::now();
        self.commit(batch, sync);
        if sync {
            self.metrics.sync.observe(begun.elapsed().as_secs_f64());
            // A vote is synced without any.
            if count > 0 {
                self.metrics.entries.observe(count as f64);
            }
        }
        if installed.is_some() {
            self.reader.flip();
            self.empty_spare();
            self.metrics.snapshots.inc();
        }
    }

    fn truncatable(&self, entries: u64) -> u64 {
        let surplus = self.log.surplus(entries).min(self.applied);
        surplus.min(self.pins.first_index().unwrap_or(u64::MAX))
    }

    fn begin_install(&mut self) {
        self.empty_spare();
    }

    fn install_page(&mut self, pairs: &[pb::KeyValue]) {
        let mut batch = WriteBatch::default();
        let spare = self.cf(self.spare());
        for pair in pairs {
            batch.put_cf(&spare, &pair.key, &pair.value);
        }
        drop(spare);
        self.commit(batch, false);
    }

    fn pages_served(&self, snapshot: u64) -> Option<u64> {
        self.pins.served(snapshot)
    }

    fn unpin(&mut self, snapshot: u64) {
        self.pins.release(snapshot);
    }

    fn page(&self, request: &pb::FetchSnapshotRequest) -> pb::FetchSnapshotReply {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let request = request.clone();
        self.pins.page(request, Box::new(move |reply| drop(sender.send(reply))));
        receiver.recv().unwrap_or_else(|_| super::no_such_snapshot())
    }
}

impl RocksStore {
    fn read_entry(&self, index: u64) -> Entry {
        let raft = self.cf(format::CF_RAFT);
        let found = match self.db.get_pinned_cf(&raft, format::log_key(index)) {
            Ok(found) => found,
            Err(error) => stop(&self.folder, "read", &error),
        };
        let bytes = found.expect("every index of the log's shape is on disk");
        let entry = Entry::decode(&*bytes).expect("written by this store");
        assert_eq!(entry.index, index, "entries lie under their index");
        entry
    }
}

impl raft::Storage for RocksStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.log.first() {
            return Err(raft::StorageError::Compacted.into());
        }
        match self.log.recent(low, high, max_size.into().unwrap_or(u64::MAX)) {
            Ok(entries) => Ok(entries),
            Err(high) => Ok((low..high).map(|index| self.read_entry(index)).collect()),
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.log.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let wait = raft::StorageError::SnapshotTemporarilyUnavailable;
        if !membership::contains(&self.conf, to) || self.applied < request_index {
            return Err(wait.into());
        }
        let pin = Pin { to, index: self.applied, state: self.reader.active() };
        let Some(snapshot) = self.pins.pin(&self.db, pin) else {
            return Err(wait.into());
        };
        let estimate = self
            .db
            .property_int_value_cf(&self.cf(self.active()), rocksdb::properties::ESTIMATE_NUM_KEYS);
        let manifest = pb::SnapshotManifest {
            snapshot,
            index: self.applied,
            keys: estimate.ok().flatten().unwrap_or(0),
            members: self.membership.members.values().cloned().collect(),
            address: self.address.clone(),
            next_raft_id: self.membership.next_raft_id,
        };
        Ok(snapshot_message(&manifest, self.log.term(self.applied)?, &self.conf))
    }
}
