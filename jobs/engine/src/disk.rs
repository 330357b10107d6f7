//! The prefix cache on disk: a folder of blocks, which several engines and restarts share; it may lie on ff2. One
//! thread saves blocks, another brings them back, so that no step waits for a disk.

mod eviction;
mod format;
mod rates;
mod store;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::Instant,
};

use ff2_model::{Block, Model, Pages, Parameters, Stored};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;
use zerocopy::IntoBytes;

use crate::{
    EngineError,
    blocks::Key,
    inbox::Inbox,
    schedule::{Id, Sequence},
};
pub use eviction::Eviction;
pub(crate) use rates::Rates;
use store::Store;

/// A folder for blocks of the prefix cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Made if it is missing. Engines of the same model and block size share what is in it.
    pub folder: PathBuf,
    /// Bytes of blocks at most; with more, those that are worth least are removed.
    pub bytes_max: u64,
}

/// Blocks waiting to be saved; more are not saved rather than waited for.
const SAVES_MAX: usize = 64;
/// Prompts waiting for their blocks; more compute theirs.
const LOADS_MAX: usize = 16;

enum Write {
    /// With the seconds that computing it again would take.
    Save(Key, Vec<u8>, f64),
    /// A sequence that has ended had these, first to last.
    Used(Vec<Key>),
}

struct Load {
    sequence: Sequence,
    keys: Vec<Key>,
}

/// A sequence whose blocks are there, as far as the disk had them.
pub(crate) struct Loaded {
    pub(crate) sequence: Sequence,
    pub(crate) blocks: Vec<(Key, Vec<u8>)>,
    /// What the reading took.
    pub(crate) seconds: f64,
}

/// The engine thread's side.
pub(crate) struct Disk {
    writes: SyncSender<Write>,
    loads: SyncSender<Load>,
    not_saved: Arc<AtomicU64>,
}

impl Disk {
    pub(crate) fn start(
        options: &DiskOptions,
        root: Key,
        inbox: &Arc<Inbox>,
    ) -> Result<Self, EngineError> {
        let store = Arc::new(Store::open(options, root)?);
        let (writes, to_write) = mpsc::sync_channel(SAVES_MAX);
        let (loads, to_load) = mpsc::sync_channel::<Load>(LOADS_MAX);
        let not_saved = Arc::new(AtomicU64::new(0));
        let (saving, failed) = (Arc::clone(&store), Arc::clone(&not_saved));
        // Both end when the engine's thread, and with it the sending side, does.
        spawn("engine-save", move || {
            for write in to_write {
                let saved = match write {
                    Write::Save(key, body, seconds) => saving.save(&key, &body, seconds),
                    Write::Used(keys) => {
                        saving.used(&keys);
                        Ok(())
                    }
                };
                if let Err(error) = saved
                    && failed.fetch_add(1, Ordering::Relaxed) == 0
                {
                    tracing::warn!(%error, "cannot save a block of the prefix cache; serving goes on");
                }
            }
        })?;
        let inbox = Arc::downgrade(inbox);
        spawn("engine-load", move || {
            for Load { sequence, keys } in to_load {
                let start = Instant::now();
                let blocks: Vec<(Key, Vec<u8>)> =
                    keys.into_iter().map_while(|key| Some((key, store.load(&key)?))).collect();
                let seconds = start.elapsed().as_secs_f64();
                store.used(&blocks.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                let Some(inbox) = inbox.upgrade() else { return };
                inbox.loaded(Loaded { sequence, blocks, seconds });
            }
        })?;
        Ok(Self { writes, loads, not_saved })
    }

    /// Saves a block soon, if the disk keeps up.
    pub(crate) fn save(&self, key: Key, body: Vec<u8>, seconds: f64) {
        if self.writes.try_send(Write::Save(key, body, seconds)).is_err() {
            self.not_saved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// These blocks were of use together, first to last.
    pub(crate) fn used(&self, keys: Vec<Key>) {
        // Of a busy disk only the order of its blocks is a little older.
        let _ = self.writes.try_send(Write::Used(keys));
    }

    /// Brings the blocks behind those in memory; the sequence comes back through the inbox. If too many wait already,
    /// it is returned at once.
    pub(crate) fn load(&self, sequence: Sequence, keys: Vec<Key>) -> Option<Sequence> {
        match self.loads.try_send(Load { sequence, keys }) {
            Ok(()) => None,
            Err(TrySendError::Full(load) | TrySendError::Disconnected(load)) => Some(load.sequence),
        }
    }

    /// Blocks that were not saved, because the disk was full, failed or too slow.
    pub(crate) fn not_saved(&self) -> u64 {
        self.not_saved.load(Ordering::Relaxed)
    }
}

/// What the keys of a model's blocks start from: its configuration and weights, and the size of a block.
pub(crate) fn root(model: &Model, block_tokens: usize) -> Key {
    let mut weights = Xxh3::new();
    model.weights().visit("", &mut |_, tensor| match tensor.stored() {
        Stored::F32(numbers) => weights.update(numbers.as_bytes()),
        Stored::Fp8(numbers, scales) => {
            weights.update(numbers);
            weights.update(scales.as_bytes());
        }
    });
    let mut hash = Sha256::new();
    hash.update(format!("{:?}, blocks of {block_tokens}", model.config()));
    hash.update(weights.digest128().to_le_bytes());
    Key(hash.finalize().into())
}

/// A block's numbers as its file has them.
pub(crate) fn to_bytes(pages: &Pages, block: Block) -> Vec<u8> {
    pages.read(block).flat_map(|part| part.as_bytes()).copied().collect()
}

/// Fills a block from its file's bytes; false if they are not as many.
pub(crate) fn from_bytes(pages: &mut Pages, block: Block, mut body: &[u8]) -> bool {
    for part in pages.read_mut(block) {
        let part = part.as_mut_bytes();
        let Some((now, later)) = body.split_at_checked(part.len()) else { return false };
        part.copy_from_slice(now);
        body = later;
    }
    body.is_empty()
}

// The files are little-endian, and nothing is swapped.
const _: () = assert!(cfg!(target_endian = "little"));

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop).map_err(EngineError::Threads)
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Id(id) = self.sequence.id;
        write!(f, "Loaded({id}: {} blocks)", self.blocks.len())
    }
}
