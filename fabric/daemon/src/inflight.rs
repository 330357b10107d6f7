//! What this process works on right now, so that whatever hangs can be named.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::limits::IN_FLIGHT_LISTED;

/// Begins and ends are spread over this many maps, so that workers rarely meet.
const SHARDS: usize = 16;

/// Registry of operations in progress; clones share it. It is as bounded as the work itself.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    shards: [Mutex<BTreeMap<u64, Entry>>; SHARDS],
}

#[derive(Clone, Debug)]
struct Entry {
    op: &'static str,
    detail: String,
    /// What it waits for, if it said so.
    waits_for: Option<String>,
    since: Instant,
}

/// Keeps one operation listed until it is dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    shared: Arc<Shared>,
    id: u64,
    since: Instant,
}

impl InFlight {
    /// Lists an operation. `detail` says which one, for example the chunk and its chain.
    pub fn begin(&self, op: &'static str, detail: impl Into<String>) -> InFlightGuard {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let entry = Entry { op, detail: detail.into(), waits_for: None, since };
        self.shared.shard(id).lock().insert(id, entry);
        InFlightGuard { shared: self.shared.clone(), id, since }
    }

    pub fn count(&self) -> usize {
        self.shared.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// All of them, oldest first, as JSON.
    pub fn dump(&self) -> Value {
        let mut all: Vec<Entry> = Vec::new();
        for shard in &self.shared.shards {
            all.extend(shard.lock().values().cloned());
        }
        all.sort_by_key(|entry| entry.since);
        let count = all.len();
        let listed: Vec<Value> = all.into_iter().take(IN_FLIGHT_LISTED).map(Entry::show).collect();
        json!({ "count": count, "operations": listed })
    }
}

impl Shared {
    fn shard(&self, id: u64) -> &Mutex<BTreeMap<u64, Entry>> {
        &self.shards[(id % SHARDS as u64) as usize]
    }
}

impl Entry {
    fn show(self) -> Value {
        let mut shown = json!({
            "op": self.op,
            "detail": self.detail,
            "for_ms": u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        if let Some(waits_for) = self.waits_for {
            shown["waits_for"] = waits_for.into();
        }
        shown
    }
}

impl InFlightGuard {
    /// Says what the operation waits for from here on.
    pub fn waits_for(&self, what: impl Into<String>) {
        let what = what.into();
        if let Some(entry) = self.shared.shard(self.id).lock().get_mut(&self.id) {
            entry.waits_for = Some(what);
        }
    }

    /// It goes on.
    pub fn goes_on(&self) {
        if let Some(entry) = self.shared.shard(self.id).lock().get_mut(&self.id) {
            entry.waits_for = None;
        }
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.shared.shard(self.id).lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_listed_oldest_first_until_they_end() {
        let inflight = InFlight::default();
        let read = inflight.begin("read", "chunk 1.0");
        let write = inflight.begin("write", "chunk 2.0");
        write.waits_for("the successor, target 7");
        let dump = inflight.dump();
        assert_eq!(dump["count"], 2);
        assert_eq!(dump["operations"][0]["op"], "read");
        assert_eq!(dump["operations"][1]["waits_for"], "the successor, target 7");
        write.goes_on();
        drop(read);
        let dump = inflight.dump();
        assert_eq!(dump["operations"][0]["detail"], "chunk 2.0");
        assert!(dump["operations"][0].get("waits_for").is_none());
        drop(write);
        assert_eq!(inflight.count(), 0);
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let inflight = InFlight::default();
        let guards: Vec<_> =
            (0..IN_FLIGHT_LISTED + 5).map(|i| inflight.begin("op", i.to_string())).collect();
        let dump = inflight.dump();
        assert_eq!(dump["count"], guards.len());
        assert_eq!(dump["operations"].as_array().unwrap().len(), IN_FLIGHT_LISTED);
        assert_eq!(dump["operations"][0]["detail"], "0");
    }
}
