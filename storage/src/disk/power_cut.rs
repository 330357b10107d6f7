//! For tests: what a power cut may take back. Remembers the old content of every write that no sync
//! covers yet.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{ALIGNMENT, WritePart};

#[derive(Debug)]
pub(crate) struct Unsynced {
    path: PathBuf,
    /// Off until a test wants it: it costs a read for each write.
    state: Mutex<Option<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    writes: BTreeMap<u64, Old>,
}

/// The content that one part of a write went over.
#[derive(Debug)]
struct Old {
    position: u64,
    bytes: Vec<u8>,
    is_answered: bool,
}

impl Unsynced {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), state: Mutex::new(None) }
    }

    pub(crate) fn watch(&self) {
        *self.state.lock() = Some(State::default());
    }

    pub(super) fn before_write(&self, parts: &[WritePart]) -> Vec<u64> {
        let mut state = self.state.lock();
        let Some(state) = &mut *state else { return Vec::new() };
        let file = File::open(&self.path).unwrap();
        let remember = |part: &WritePart| {
            let mut bytes = vec![0; part.bytes.len()];
            file.read_exact_at(&mut bytes, part.position).unwrap();
            state.next += 1;
            let old = Old { position: part.position, bytes, is_answered: false };
            state.writes.insert(state.next, old);
            state.next
        };
        parts.iter().map(remember).collect()
    }

    pub(super) fn after_write(&self, written: &[u64]) {
        if let Some(state) = &mut *self.state.lock() {
            for number in written {
                if let Some(old) = state.writes.get_mut(number) {
                    old.is_answered = true;
                }
            }
        }
    }

    /// Writes that a sync beginning now makes durable.
    pub(super) fn before_sync(&self) -> Vec<u64> {
        let state = self.state.lock();
        let Some(state) = &*state else { return Vec::new() };
        let answered = state.writes.iter().filter(|(_, old)| old.is_answered);
        answered.map(|(number, _)| *number).collect()
    }

    pub(super) fn after_sync(&self, covered: &[u64]) {
        if let Some(state) = &mut *self.state.lock() {
            for number in covered {
                state.writes.remove(number);
            }
        }
    }

    /// Takes unsynced sectors back in a copy of the data, newest first: those that `lost` picks.
    /// `copy` makes the copy while no write begins or is forgotten.
    pub(crate) fn cut(&self, to: &Path, copy: impl FnOnce(), mut lost: impl FnMut() -> bool) {
        let state = self.state.lock();
        copy();
        let Some(state) = &*state else { return };
        let file = OpenOptions::new().write(true).open(to).unwrap();
        for old in state.writes.values().rev() {
            for (number, sector) in old.bytes.chunks(ALIGNMENT).enumerate() {
                if lost() {
                    let position = old.position + (number * ALIGNMENT) as u64;
                    file.write_all_at(sector, position).unwrap();
                }
            }
        }
    }
}
