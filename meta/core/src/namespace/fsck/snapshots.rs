//! Snapshots: what is preserved is preserved for one of them.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;

use super::{Problem, numbered, record, unreadable};
use crate::{
    kv::KvRead,
    namespace::{
        keys::{self, PRESERVED_PREFIX, Tag},
        number, preserve,
    },
};

pub(super) fn check(kv: &dyn KvRead, volume: &pb::VolumeRecord, problems: &mut Vec<Problem>) {
    let found = numbered::<pb::SnapshotRecord>(kv, Tag::Snapshot, record, problems);
    let mut snapshots = BTreeMap::new();
    let mut slots = BTreeSet::new();
    for (id, rest, record) in found {
        let snapshot = u32::try_from(id).unwrap_or(0);
        let mut wrong = |what| problems.push(Problem::Snapshot { snapshot, what });
        if record.id != snapshot || !rest.is_empty() || snapshot == 0 {
            wrong("is stored under another number");
        }
        if snapshot > volume.next_snapshot {
            wrong("has a number that was not given out");
        }
        if record.slot == 0 || record.slot > number::SLOTS || !slots.insert(record.slot) {
            wrong("has no slot of its own");
        }
        snapshots.insert(snapshot, record);
    }
    let snapshots: Vec<pb::SnapshotRecord> = snapshots.into_values().collect();
    let ids = preserve::ids_from(&snapshots, 0);
    if volume.newest_snapshot != ids.last().copied().unwrap_or(0) {
        let snapshot = volume.newest_snapshot;
        problems.push(Problem::Snapshot { snapshot, what: "is not the newest" });
    }
    let mut strays = BTreeSet::new();
    for (key, _) in keys::all(kv, &[Tag::Preserved as u8]) {
        match key.get(1..PRESERVED_PREFIX).and_then(|id| id.try_into().ok()) {
            Some(id) => drop(strays.insert(u32::from_be_bytes(id))),
            None => problems.push(unreadable(&key)),
        }
    }
    for snapshot in strays.into_iter().filter(|id| !ids.contains(id)) {
        problems
            .push(Problem::Snapshot { snapshot, what: "is not there, and rows are kept for it" });
    }
}
