//! A bounded memory of chunks: the oldest entry goes when it is full.

use std::collections::{BTreeMap, VecDeque};

use ff2_proto::ChunkId;

#[derive(Clone, Debug)]
pub(super) struct Memory<T> {
    entries: BTreeMap<ChunkId, (u64, T)>,
    /// (stamp, chunk) in order of insertion; a pair whose stamp is not the entry's is void.
    order: VecDeque<(u64, ChunkId)>,
    stamp: u64,
    limit: usize,
}

impl<T> Memory<T> {
    pub(super) fn new(limit: usize) -> Self {
        assert!(limit > 0);
        Self { entries: BTreeMap::new(), order: VecDeque::new(), stamp: 0, limit }
    }

    pub(super) fn get(&self, chunk: ChunkId) -> Option<&T> {
        self.entries.get(&chunk).map(|(_, value)| value)
    }

    /// Returns what was forgotten to make room.
    pub(super) fn insert(&mut self, chunk: ChunkId, value: T) -> Option<T> {
        self.stamp += 1;
        self.entries.insert(chunk, (self.stamp, value));
        self.order.push_back((self.stamp, chunk));
        self.sweep();
        if self.entries.len() <= self.limit {
            return None;
        }
        let (_, oldest) = self.order.pop_front()?;
        let forgotten = self.entries.remove(&oldest).map(|(_, value)| value);
        self.sweep();
        forgotten
    }

    pub(super) fn remove(&mut self, chunk: ChunkId) -> Option<T> {
        let removed = self.entries.remove(&chunk).map(|(_, value)| value);
        self.sweep();
        removed
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops void pairs from the front, and all of them when they outweigh the entries.
    fn sweep(&mut self) {
        let entries = &self.entries;
        let is_live =
            |(stamp, chunk): &(u64, ChunkId)| entries.get(chunk).is_some_and(|(s, _)| s == stamp);
        while self.order.front().is_some_and(|pair| !is_live(pair)) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.limit {
            self.order.retain(is_live);
        }
        debug_assert!(self.order.len() >= self.entries.len());
    }
}

#[cfg(test)]
mod tests {
    use ff2_proto::InodeId;

    use super::*;

    fn chunk(inode: u64) -> ChunkId {
        ChunkId::new(InodeId(inode), 0)
    }

    #[test]
    fn the_oldest_goes_and_nothing_grows() {
        let mut memory = Memory::new(3);
        for n in 1..=3 {
            assert_eq!(memory.insert(chunk(n), n), None);
        }
        assert_eq!(memory.insert(chunk(1), 10), None, "again: it is the youngest now");
        assert_eq!(memory.insert(chunk(4), 4), Some(2));
        assert_eq!(memory.get(chunk(1)), Some(&10));
        assert_eq!(memory.remove(chunk(3)), Some(3));
        for n in 0..1_000 {
            memory.insert(chunk(n % 2), n);
            assert!(memory.order.len() <= 7 && memory.len() <= 3);
        }
    }
}
