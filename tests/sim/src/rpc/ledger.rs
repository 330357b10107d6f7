//! What the servers carried out and what the clients were told, side by side.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{ChunkId, ChunkVersion};
use ff2_storage_core::target::UpdateId;
use parking_lot::Mutex;

/// Every write of a run writes another value, so a value names its write.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the update of this name writes.
    prepared: BTreeMap<(ChunkId, UpdateId), u64>,
    /// Committed by some member.
    committed: BTreeSet<(ChunkId, UpdateId)>,
    /// Told to a client: (chunk, value) with the version that it was told.
    acknowledged: BTreeMap<(ChunkId, u64), ChunkVersion>,
    /// How often a plain call was carried out.
    executed: BTreeMap<u64, u64>,
}

impl Ledger {
    pub(super) fn prepared(&self, chunk: ChunkId, id: UpdateId, value: u64) {
        self.state.lock().prepared.insert((chunk, id), value);
    }

    pub(super) fn committed(&self, chunk: ChunkId, id: UpdateId) {
        self.state.lock().committed.insert((chunk, id));
    }

    pub(super) fn acknowledged(&self, chunk: ChunkId, value: u64, version: ChunkVersion) {
        self.state.lock().acknowledged.insert((chunk, value), version);
    }

    /// A plain call reached its service.
    pub(super) fn executed(&self, call: u64) {
        *self.state.lock().executed.entry(call).or_default() += 1;
    }

    pub(super) fn times_executed(&self, call: u64) -> u64 {
        self.state.lock().executed.get(&call).copied().unwrap_or(0)
    }

    /// Each value was committed under one name at most; under one, if it was acknowledged, and with
    /// the version that the client was told.
    pub(super) fn updates_are_applied_once(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut problems = Vec::new();
        let mut names: BTreeMap<(ChunkId, u64), Vec<UpdateId>> = BTreeMap::new();
        for (chunk, id) in &state.committed {
            if let Some(&value) = state.prepared.get(&(*chunk, *id)) {
                names.entry((*chunk, value)).or_default().push(*id);
            }
        }
        for ((chunk, value), ids) in &names {
            if ids.len() > 1 {
                problems.push(format!("{chunk}: {value:#x} was applied as each of {ids:?}"));
            }
        }
        for (key, version) in &state.acknowledged {
            let (chunk, value) = key;
            let ids = names.get(key).map_or(&[][..], Vec::as_slice);
            if !ids.iter().any(|id| id.version == *version) {
                problems.push(format!(
                    "{chunk}: {value:#x} was acknowledged as {version:?}, and applied as {ids:?}"
                ));
            }
        }
        problems
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.acknowledged.len(), state.executed.len())
    }
}
