//! The ordered key space that replicated state lives in: a trait, an in-memory one, and an overlay
//! that gathers the changes of one command.

use std::{collections::BTreeMap, fmt, ops::Bound};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

/// Reads of an ordered key space.
pub trait KvRead {
    fn get(&self, key: &[u8]) -> Option<Bytes>;
    /// Pairs with `from <= key < to` in order, at most `limit`.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)>;
}

/// Writes, too.
pub trait Kv: KvRead {
    fn put(&mut self, key: &[u8], value: Bytes);
    fn delete(&mut self, key: &[u8]);
}

/// A key space in memory: tests and the simulator.
#[derive(Clone, Default, PartialEq)]
pub struct MemKv {
    pairs: BTreeMap<Bytes, Bytes>,
}

impl MemKv {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.pairs.iter()
    }

    /// Takes in the changes of an overlay.
    pub fn apply(&mut self, changes: BTreeMap<Bytes, Option<Bytes>>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.pairs.insert(key, value),
                None => self.pairs.remove(&key),
            };
        }
    }

    /// Equal exactly if all pairs are (but for hash collisions).
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (key, value) in &self.pairs {
            // Lengths in front, so that no two sequences of pairs look alike.
            hash.update(&(key.len() as u64).to_le_bytes());
            hash.update(key);
            hash.update(&(value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        hash.digest()
    }
}

impl fmt::Debug for MemKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemKv({} pairs)", self.pairs.len())
    }
}

impl KvRead for MemKv {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.pairs.get(key).cloned()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        if from >= to {
            return Vec::new();
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let pairs = self.pairs.range::<[u8], _>(range).take(limit);
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Kv for MemKv {
    fn put(&mut self, key: &[u8], value: Bytes) {
        self.pairs.insert(Bytes::copy_from_slice(key), value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.pairs.remove(key);
    }
}

/// Changes over a key space that stays as it is until somebody takes them.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    changes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base, changes: BTreeMap::new() }
    }

    /// The changes in key order: a value to put, or `None` to delete. Dropping the overlay instead
    /// leaves no trace.
    pub fn into_changes(self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.changes
    }
}

impl fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({} changes)", self.changes.len())
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.changes.get(key) {
            Some(change) => change.clone(),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        if from >= to || limit == 0 {
            return Vec::new();
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let changed: BTreeMap<&Bytes, &Option<Bytes>> =
            self.changes.range::<[u8], _>(range).collect();
        // Each deletion here can hide one pair below.
        let deleted = changed.values().filter(|change| change.is_none()).count();
        let below = self.base.scan(from, to, limit.saturating_add(deleted));
        // Below a full page, keys after its last one are unknown: what changed there waits for the next page.
        let full = below.len() == limit.saturating_add(deleted);
        let last = below.last().map(|(key, _)| key.clone());
        let mut merged: BTreeMap<Bytes, Bytes> = below.into_iter().collect();
        for (key, change) in changed {
            if full && last.as_ref().is_some_and(|last| key > last) {
                break;
            }
            match change {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        merged.into_iter().take(limit).collect()
    }
}

impl Kv for Overlay<'_> {
    fn put(&mut self, key: &[u8], value: Bytes) {
        self.changes.insert(Bytes::copy_from_slice(key), Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.changes.insert(Bytes::copy_from_slice(key), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn an_overlay_reads_as_if_applied() {
        let mut base = MemKv::new();
        for key in ["a", "b", "c", "d", "e"] {
            base.put(key.as_bytes(), b("old"));
        }
        let before = base.hash();
        let mut over = Overlay::new(&base);
        over.delete(b"a");
        over.put(b"bb", b("new"));
        over.put(b"d", b("new"));
        over.delete(b"zz");
        let mut applied = base.clone();
        let scans: Vec<_> = (0..8).map(|limit| over.scan(b"a", b"z", limit)).collect();
        assert_eq!(over.get(b"a"), None);
        assert_eq!(over.get(b"d"), Some(b("new")));
        applied.apply(over.into_changes());
        for (limit, scan) in scans.into_iter().enumerate() {
            assert_eq!(scan, applied.scan(b"a", b"z", limit), "limit {limit}");
        }
        assert_eq!(base.hash(), before, "the base is untouched");
        assert_ne!(applied.hash(), before);
        assert!(base.scan(b"z", b"a", 9).is_empty());
    }
}
