//! Reads of the key-value state: by the group's thread directly, by others in a consistent snapshot.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use ff2_meta_core::KvRead;
use parking_lot::RwLock;
use prost::Message as _;
use rocksdb::{
    BoundColumnFamily, Cache, DB, Direction, IteratorMode, ReadOptions, SnapshotWithThreadMode,
};

use super::{
    flips::Flips,
    pins::{Pin, Pins},
};
use crate::{
    error::stop,
    format::{self, Identity},
};

/// A handle for readers on other threads.
#[derive(Clone)]
pub(crate) struct StateReader(Arc<Shared>);

struct Shared {
    /// `None` once the group is closed.
    db: RwLock<Option<Arc<DB>>>,
    /// Which of [`format::CF_STATES`] is active.
    flips: Flips<AtomicU64>,
    folder: PathBuf,
    cache: Cache,
}

impl std::fmt::Debug for StateReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateReader({})", self.0.folder.display())
    }
}

impl StateReader {
    pub(super) fn new(db: &Arc<DB>, active: usize, folder: &Path, cache: Cache) -> Self {
        Self(Arc::new(Shared {
            db: RwLock::new(Some(Arc::clone(db))),
            flips: Flips::new(active),
            folder: folder.to_path_buf(),
            cache,
        }))
    }

    /// Runs `read` over the state as it is now, or returns `None` if the group was closed.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&dyn KvRead) -> R) -> Option<R> {
        let db = self.0.db.read().clone()?;
        // Later flips do not touch it, because the handle keeps a dropped column family alive.
        let look = |state: usize| {
            let cf = db.cf_handle(format::CF_STATES[state])?;
            Some(View { snapshot: db.snapshot(), cf, folder: &self.0.folder })
        };
        let view = self.0.flips.take(look, drop);
        Some(read(&view))
    }

    /// Says in the folder that its log and state are of this format from now on, so that releases that do not read it
    /// refuse it. Never a lower one. `None`: the group was closed.
    pub(crate) fn mark(&self, format: u32) -> Option<Result<(), rocksdb::Error>> {
        let db = self.0.db.read().clone()?;
        let raft = db.cf_handle(format::CF_RAFT)?;
        let mark = || {
            let Some(bytes) = db.get_cf(&raft, format::IDENTITY)? else { return Ok(()) };
            match Identity::decode(bytes.as_slice()) {
                Ok(identity) if identity.format < format => {
                    let marked = Identity { format, ..identity }.encode_to_vec();
                    db.put_cf_opt(&raft, format::IDENTITY, marked, &super::open::synced())
                }
                // It was read when the folder was opened.
                Ok(_) | Err(_) => Ok(()),
            }
        };
        Some(mark())
    }

    /// Pins the state as it is now, for a backup, and tells about how many keys it has. `None`: the group was closed,
    /// or too much is pinned.
    pub(crate) fn pin(&self, pins: &Pins) -> Option<(u64, u64)> {
        let db = self.0.db.read().clone()?;
        let pin = |state| Some((state, pins.pin(&db, Pin { to: 0, index: 0, state })));
        let let_go = |(_, pinned): (usize, Option<u64>)| {
            pinned.into_iter().for_each(|snapshot| pins.release(snapshot));
        };
        let (state, snapshot) = self.0.flips.take(pin, let_go);
        let cf = db.cf_handle(format::CF_STATES[state])?;
        let keys = db.property_int_value_cf(&cf, rocksdb::properties::ESTIMATE_NUM_KEYS);
        Some((snapshot?, keys.ok().flatten().unwrap_or(0)))
    }

    pub(super) fn active(&self) -> usize {
        self.0.flips.active()
    }

    pub(super) fn flip(&self) {
        self.0.flips.flip();
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(super) fn close(&self) {
        *self.0.db.write() = None;
    }
}

struct View<'a> {
    snapshot: SnapshotWithThreadMode<'a, DB>,
    cf: Arc<BoundColumnFamily<'a>>,
    folder: &'a Path,
}

/// The newest state, read by the only thread that writes it.
pub(super) struct Direct<'a> {
    pub(super) db: &'a DB,
    pub(super) cf: Arc<BoundColumnFamily<'a>>,
    pub(super) folder: &'a Path,
}

impl KvRead for View<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.snapshot.get_pinned_cf(&self.cf, key) {
            Ok(found) => found.map(|value| Bytes::copy_from_slice(&value)),
            Err(error) => stop(self.folder, "read", &error),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        if from >= to {
            return Vec::new();
        }
        let mode = IteratorMode::From(from, Direction::Forward);
        let pairs = self.snapshot.iterator_cf_opt(&self.cf, upto(to), mode);
        collect(self.folder, pairs.take(limit))
    }
}

impl KvRead for Direct<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.db.get_pinned_cf(&self.cf, key) {
            Ok(found) => found.map(|value| Bytes::copy_from_slice(&value)),
            Err(error) => stop(self.folder, "read", &error),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        if from >= to {
            return Vec::new();
        }
        let mode = IteratorMode::From(from, Direction::Forward);
        let pairs = self.db.iterator_cf_opt(&self.cf, upto(to), mode);
        collect(self.folder, pairs.take(limit))
    }
}

fn upto(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to);
    options
}

type Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

fn collect(folder: &Path, pairs: impl Iterator<Item = Item>) -> Vec<(Bytes, Bytes)> {
    pairs
        .map(|pair| match pair {
            Ok((key, value)) => (Bytes::from(key), Bytes::from(value)),
            Err(error) => stop(folder, "scan", &error),
        })
        .collect()
}
