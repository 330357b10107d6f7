//! What a sequential reader will want next.
//!
//! One [`Prefetch`] per open handle. Reads in sequence open a window ahead of the reader that
//! doubles up to a bound; a read elsewhere closes it. What is read ahead is kept by the driver; this
//! says what to fetch, and how far behind the reader it may be thrown away.

use crate::limits;

/// A range of the file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub length: u64,
}

impl Range {
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

#[derive(Clone, Debug, Default)]
pub struct Prefetch {
    /// Where the next read in sequence begins.
    next: u64,
    /// Reads in sequence so far.
    run: u32,
    /// Bytes to keep ahead; 0 while the reads are random.
    window: u64,
    /// Everything below was fetched or asked for.
    fetched: u64,
    /// The largest read of the run.
    largest: u64,
}

impl Prefetch {
    pub fn new() -> Self {
        Self::default()
    }

    /// A read is served: what to fetch in the background now, if anything. `size` is the file's.
    pub fn on_read(&mut self, offset: u64, length: u64, size: u64) -> Option<Range> {
        let end = offset.saturating_add(length);
        let largest = self.largest.max(length);
        let in_sequence = offset.abs_diff(self.next) <= slack(largest) && self.run > 0;
        if !in_sequence && offset != self.next {
            self.restart(end, length);
            return None;
        }
        self.largest = largest;
        self.run = self.run.saturating_add(1);
        self.next = self.next.max(end);
        if self.run < limits::PREFETCH_AFTER {
            self.fetched = self.fetched.max(self.next);
            return None;
        }
        self.fetched = self.fetched.max(self.next);
        let ahead = self.fetched - self.next;
        // Half a window is left: that is when the next piece must be on its way.
        if self.window > 0 && ahead > self.window / 2 {
            return None;
        }
        self.window = match self.window {
            0 => limits::PREFETCH_MIN,
            window => (window * 2).min(limits::PREFETCH_MAX),
        };
        let until = self.next.saturating_add(self.window).min(size);
        if until <= self.fetched {
            return None;
        }
        let range = Range { offset: self.fetched, length: until - self.fetched };
        self.fetched = until;
        self.check();
        Some(range)
    }

    /// Whether bytes before this offset will not be asked for again by a reader in sequence.
    pub fn passed(&self) -> u64 {
        self.next.saturating_sub(slack(self.largest))
    }

    /// What was to be fetched from this offset on is not, for want of memory: a later read says it
    /// again.
    pub fn gave_up(&mut self, offset: u64) {
        self.fetched = self.fetched.min(offset).max(self.next);
    }

    pub fn is_sequential(&self) -> bool {
        self.window > 0
    }

    /// What was fetched is void (the file changed): forget it and begin small.
    pub fn reset(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    fn restart(&mut self, end: u64, length: u64) {
        *self = Self { next: end, run: 1, window: 0, fetched: end, largest: length };
    }

    fn check(&self) {
        debug_assert!(self.window <= limits::PREFETCH_MAX);
        debug_assert!(self.fetched - self.next <= limits::PREFETCH_MAX);
    }
}

/// The kernel's own read-ahead arrives a little out of order: one request that overtook another
/// begins two lengths from where the next was expected. Near is as good as exact.
fn slack(largest: u64) -> u64 {
    largest.saturating_mul(2).max(limits::PREFETCH_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;

    #[test]
    fn a_sequential_reader_gets_a_growing_bounded_window() {
        let mut prefetch = Prefetch::new();
        let size = 1 << 30;
        let (mut at, mut fetched, mut largest) = (0, 0, 0);
        while at < size {
            if let Some(range) = prefetch.on_read(at, 64 * K, size) {
                assert!(range.offset >= fetched, "nothing is fetched twice");
                fetched = range.end();
                largest = largest.max(range.length);
                assert!(fetched - (at + 64 * K) <= limits::PREFETCH_MAX);
            }
            at += 64 * K;
        }
        assert_eq!(fetched, size, "it runs to the end and not beyond");
        assert!(largest >= limits::PREFETCH_MAX / 2, "{largest}");
    }

    #[test]
    fn the_first_read_and_random_reads_fetch_nothing() {
        let mut prefetch = Prefetch::new();
        let size = 1 << 30;
        assert_eq!(prefetch.on_read(0, 4 * K, size), None, "one read may be all");
        for step in 1..50u64 {
            let offset = (step * 7_919 * 4096 * 64) % size;
            assert_eq!(prefetch.on_read(offset, 4 * K, size), None);
            assert!(!prefetch.is_sequential());
        }
    }

    #[test]
    fn a_jump_closes_the_window() {
        let mut prefetch = Prefetch::new();
        let size = 1 << 30;
        for step in 0..100 {
            prefetch.on_read(step * 128 * K, 128 * K, size);
        }
        assert!(prefetch.is_sequential());
        assert_eq!(prefetch.on_read(900 << 20, 4 * K, size), None);
        assert!(!prefetch.is_sequential());
        let range = prefetch.on_read((900 << 20) + 4 * K, 4 * K, size).expect("in sequence again");
        assert_eq!(range.length, limits::PREFETCH_MIN);
    }

    #[test]
    fn reads_slightly_out_of_order_are_a_sequence() {
        for length in [64 * K, 1 << 20] {
            let mut prefetch = Prefetch::new();
            let size = 1 << 30;
            let mut fetched = 0;
            for pair in 0..64u64 {
                for place in [pair * 2 + 1, pair * 2] {
                    let range = prefetch.on_read(place * length, length, size);
                    fetched += range.map_or(0, |range| range.length);
                }
            }
            assert!(fetched > 100 * length, "{fetched} for reads of {length}");
        }
    }

    #[test]
    fn what_was_not_fetched_is_asked_for_again() {
        let mut prefetch = Prefetch::new();
        let size = 1 << 30;
        assert_eq!(prefetch.on_read(0, 64 * K, size), None);
        let wanted = prefetch.on_read(64 * K, 64 * K, size).expect("two in sequence");
        prefetch.gave_up(wanted.offset + 4 * K);
        let again = prefetch.on_read(128 * K, 64 * K, size).expect("the rest, and more");
        assert_eq!(again.offset, 192 * K, "but not what is read meanwhile");
        prefetch.gave_up(0);
        let again = prefetch.on_read(192 * K, 64 * K, size).expect("all of it");
        assert_eq!(again.offset, 256 * K);
    }

    #[test]
    fn small_files_end_the_window() {
        let mut prefetch = Prefetch::new();
        assert_eq!(prefetch.on_read(0, 4 * K, 10 * K), None);
        let range = prefetch.on_read(4 * K, 4 * K, 10 * K).expect("two in sequence");
        assert_eq!(range, Range { offset: 8 * K, length: 2 * K });
        assert_eq!(prefetch.on_read(8 * K, 2 * K, 10 * K), None);
        assert_eq!(prefetch.on_read(10 * K, 2 * K, 10 * K), None);
    }
}
