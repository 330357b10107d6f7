//! Blocks as files, named by their keys: FOLDER/ROOT/KK/KEY. A block is written under a name of its own (reserved),
//! synced, and renamed (confirmed): under its key is all of it or nothing, whenever a process or host ends. Processes
//! share a folder without talking: equal names have equal contents, and who finds a file gone computes instead.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{DiskOptions, Eviction, format};
use crate::{EngineError, blocks::Key};

/// What a writer that was killed left is removed after this; no write takes so long.
const RESERVED_MAX: Duration = Duration::from_secs(600);
/// After so many saves the folder is looked through again, for what other processes have added and removed.
const SAVES_PER_SCAN: u64 = 256;

pub(super) struct Store {
    folder: PathBuf,
    root: Key,
    eviction: Mutex<Eviction<Key>>,
    bytes_max: u64,
    saves: AtomicU64,
}

impl Store {
    pub(super) fn open(options: &DiskOptions, root: Key) -> Result<Self, EngineError> {
        let folder = options.folder.join(hex(&root.0[..16]));
        let store = Self {
            folder,
            root,
            eviction: Mutex::new(Eviction::new(options.bytes_max)),
            bytes_max: options.bytes_max,
            saves: AtomicU64::new(0),
        };
        let opened = fs::create_dir_all(&store.folder).and_then(|()| store.scan());
        opened.map_err(|source| EngineError::Disk { folder: options.folder.clone(), source })?;
        Ok(store)
    }

    /// A block's body, if there is a whole one.
    pub(super) fn load(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let file = fs::read(&path).ok()?;
        let body_len = file.len().checked_sub(format::HEAD);
        let found = body_len.and_then(|len| format::decode(&self.root, key, &file, len));
        let mut eviction = self.eviction.lock();
        let Some((body, seconds)) = found else {
            tracing::warn!(path = %path.display(), "a block of the prefix cache is damaged; removed");
            let _ = fs::remove_file(&path);
            eviction.forget(key);
            return None;
        };
        eviction.put(*key, file.len() as u64, seconds);
        drop(eviction);
        // For the order of other processes and of the next start.
        if let Ok(opened) = File::open(&path) {
            let _ = opened.set_modified(SystemTime::now());
        }
        Some(body)
    }

    /// A sequence had these blocks, first to last.
    pub(super) fn used(&self, chain: &[Key]) {
        self.eviction.lock().used(chain);
    }

    /// Saves a block, and removes what is worth least where it comes to too much.
    pub(super) fn save(&self, key: &Key, body: &[u8], seconds: f64) -> io::Result<()> {
        let path = self.path(key);
        let file = format::encode(&self.root, key, seconds, body);
        // A block larger than the limit would be removed at once.
        if path.exists() || file.len() as u64 > self.bytes_max {
            return Ok(());
        }
        let number = self.saves.fetch_add(1, Ordering::Relaxed);
        if number % SAVES_PER_SCAN == SAVES_PER_SCAN - 1 {
            self.scan()?;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let reserved = self.folder.join(format!("reserved-{}-{number}", process::id()));
        let written = write_synced(&reserved, &file).and_then(|()| fs::rename(&reserved, &path));
        if written.is_err() {
            let _ = fs::remove_file(&reserved);
        }
        written?;
        let mut eviction = self.eviction.lock();
        eviction.put(*key, file.len() as u64, seconds);
        self.remove_least(&mut eviction);
        Ok(())
    }

    fn remove_least(&self, eviction: &mut Eviction<Key>) {
        while let Some(key) = eviction.evict() {
            let _ = fs::remove_file(self.path(&key));
        }
    }

    /// Counts what is there. What this process does not know yet comes to it by age, as worth no seconds: these are in
    /// the files.
    fn scan(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                for file in fs::read_dir(entry.path())? {
                    let file = file?;
                    // Another process may have removed it meanwhile.
                    if let (Some(key), Ok(about)) = (key_of(&file.path()), file.metadata()) {
                        found.push((about.modified()?, key, about.len()));
                    }
                }
            } else if entry.file_name().to_string_lossy().starts_with("reserved-") {
                let age = entry.metadata().and_then(|about| about.modified()).ok();
                let age = age.and_then(|modified| modified.elapsed().ok());
                if age.is_some_and(|age| age > RESERVED_MAX) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        found.sort_unstable();
        let there: BTreeSet<Key> = found.iter().map(|(_, key, _)| *key).collect();
        let mut eviction = self.eviction.lock();
        eviction.retain(|key| there.contains(key));
        for (_, key, bytes) in found {
            if !eviction.contains(&key) {
                eviction.put(key, bytes, 0.0);
            }
        }
        self.remove_least(&mut eviction);
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(hex(&key.0[..1])).join(hex(&key.0))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(path: &Path) -> Option<Key> {
    let name = path.file_name()?.to_str()?;
    let mut key = [0; 32];
    if name.len() != 64 || !name.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Key(key))
}

#[cfg(test)]
mod tests;
