//! The live log's shape in memory: term and size of every entry, and the recent entries themselves.
//! raft-rs asks for terms all the time and reads back what was just written.

use std::collections::VecDeque;

use prost011::Message as _;
use raft::eraftpb::Entry;

use crate::limits;

/// Entries `first ..= last`, where `first - 1` is the truncated one, whose term is still known.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogShape {
    truncated: (u64, u64),
    entries: VecDeque<Shape>,
    bytes: u64,
    /// The newest entries, without a gap up to the last.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// Bytes that `recent` may hold; all of the log if `None`.
    recent_max: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    term: u64,
    bytes: u32,
}

impl LogShape {
    /// A log that keeps only its tail in memory.
    pub(crate) fn cached(truncated: (u64, u64)) -> Self {
        Self { truncated, recent_max: Some(limits::LOG_CACHE_BYTES_MAX), ..Default::default() }
    }

    /// A log that is all in memory.
    pub(crate) fn whole() -> Self {
        Self::default()
    }

    pub(crate) fn first(&self) -> u64 {
        self.truncated.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.truncated.0 + self.entries.len() as u64
    }

    pub(crate) fn truncated(&self) -> (u64, u64) {
        self.truncated
    }

    pub(crate) fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        if index < self.truncated.0 {
            return Err(raft::StorageError::Compacted.into());
        }
        let place = (index - self.first()) as usize;
        self.entries.get(place).map(|e| e.term).ok_or(raft::StorageError::Unavailable.into())
    }

    /// Entries in `[low, high)` up to `max_bytes`, the first one always. `Err(index)` names the end
    /// (exclusive) of what has to be read from disk instead, because the cache begins later.
    pub(crate) fn recent(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, u64> {
        let high = self.fitting(low, high, max_bytes);
        let start = self.last() + 1 - self.recent.len() as u64;
        if low < start {
            return Err(high);
        }
        let from = (low - start) as usize;
        Ok(self.recent.range(from..from + (high - low) as usize).cloned().collect())
    }

    /// The end of as many entries from `low` as fit.
    fn fitting(&self, low: u64, high: u64, max_bytes: u64) -> u64 {
        let mut bytes = 0;
        let mut end = low;
        while end < high {
            bytes += u64::from(self.entries[(end - self.first()) as usize].bytes);
            if bytes > max_bytes && end > low {
                break;
            }
            end += 1;
        }
        end
    }

    /// Appends, replacing what is at and behind the first one's index. Returns the old last index.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> u64 {
        let old_last = self.last();
        let Some(first) = entries.first().map(|entry| entry.index) else { return old_last };
        assert!(first >= self.first(), "committed log is not replaced");
        assert!(first <= old_last + 1, "the log has no gap");
        while self.last() >= first {
            self.pop_last();
        }
        for entry in entries {
            assert_eq!(entry.index, self.last() + 1, "entries follow each other");
            self.push(entry);
        }
        old_last
    }

    fn pop_last(&mut self) {
        let shape = self.entries.pop_back().expect("the loop stops at the first entry");
        self.bytes -= u64::from(shape.bytes);
        if self.recent.pop_back().is_some() {
            self.recent_bytes -= shape.bytes as usize;
        }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let bytes = entry.encoded_len();
        let shape = Shape { term: entry.term, bytes: bytes as u32 };
        self.entries.push_back(shape);
        self.bytes += u64::from(shape.bytes);
        self.recent.push_back(entry);
        self.recent_bytes += bytes;
        while self.recent_max.is_some_and(|max| self.recent_bytes > max) {
            self.drop_oldest_recent();
        }
    }

    fn drop_oldest_recent(&mut self) {
        let place = self.entries.len() - self.recent.len();
        if self.recent.pop_front().is_some() {
            self.recent_bytes -= self.entries[place].bytes as usize;
        }
    }

    /// Forgets entries up to and including `index`. Returns whether there were any.
    pub(crate) fn truncate(&mut self, index: u64) -> bool {
        assert!(index <= self.last(), "only what exists can be forgotten");
        if index <= self.truncated.0 {
            return false;
        }
        while self.truncated.0 < index {
            if self.recent.len() == self.entries.len() {
                self.drop_oldest_recent();
            }
            let shape = self.entries.pop_front().expect("index is within the log");
            self.bytes -= u64::from(shape.bytes);
            self.truncated = (self.truncated.0 + 1, shape.term);
        }
        true
    }

    /// Starts anew behind a snapshot.
    pub(crate) fn reset(&mut self, index: u64, term: u64) {
        *self =
            Self { truncated: (index, term), recent_max: self.recent_max, ..Default::default() };
    }

    /// The largest index whose truncation leaves `entries` entries, and less than
    /// [`limits::LOG_BYTES_MAX`] bytes.
    pub(crate) fn surplus(&self, entries: u64) -> u64 {
        let mut index = self.last().saturating_sub(entries).max(self.truncated.0);
        let mut bytes = self.bytes;
        let mut places = self.entries.iter().zip(self.first()..);
        while bytes > limits::LOG_BYTES_MAX
            && let Some((shape, at)) = places.next()
        {
            bytes -= u64::from(shape.bytes);
            index = index.max(at);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range.map(|index| Entry { index, term, data: vec![7; 100], ..Default::default() }).collect()
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn terms_and_ranges_survive_append_conflict_and_truncation() {
        let mut log = LogShape::cached((5, 5));
        assert_eq!((log.first(), log.last()), (6, 5));
        log.append(entries(6..=20, 6));
        assert_eq!(log.append(entries(15..=17, 7)), 20);
        assert_eq!((log.first(), log.last()), (6, 17));
        assert_eq!(log.term(14).ok(), Some(6));
        assert_eq!(log.term(15).ok(), Some(7));
        assert_eq!(log.term(5).ok(), Some(5));
        assert!(log.term(4).is_err());
        assert!(log.term(18).is_err());
        assert!(log.truncate(10));
        assert!(!log.truncate(10));
        assert_eq!(log.truncated(), (10, 6));
        assert_eq!(indexes(&log.recent(11, 14, u64::MAX).expect("cached")), [11, 12, 13]);
        assert_eq!(indexes(&log.recent(11, 18, 1).expect("cached")), [11], "at least one");
        log.reset(30, 9);
        assert_eq!((log.first(), log.last(), log.bytes), (31, 30, 0));
    }

    #[test]
    fn the_cache_is_bounded_and_says_what_to_read() {
        let mut log = LogShape::cached((0, 0));
        log.append(entries(1..=50, 1));
        log.recent_max = Some(log.recent_bytes / 2);
        log.append(entries(51..=51, 1));
        assert!(log.recent.len() <= 26);
        assert_eq!(log.recent(1, 10, u64::MAX), Err(10));
        assert_eq!(indexes(&log.recent(50, 52, u64::MAX).expect("cached")), [50, 51]);
        log.truncate(51);
        assert_eq!((log.recent.len(), log.recent_bytes, log.bytes), (0, 0, 0));
    }

    #[test]
    fn surplus_keeps_what_was_asked() {
        let mut log = LogShape::cached((0, 0));
        log.append(entries(1..=50, 1));
        assert_eq!(log.surplus(10), 40);
        assert_eq!(log.surplus(100), 0);
    }
}
