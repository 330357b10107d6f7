//! How far this client wrote into each file, and what the namespace does not know of it yet.
//!
//! Writes go to the chains; the length of a file lives in the namespace, which hears of it at
//! fsync, at close, and from time to time. Between, this client's own `stat` and reads must see what
//! it wrote: the size it shows is the larger of the namespace's and the unreported.

use std::{collections::BTreeMap, time::Duration};

use ff2_proto::InodeId;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Length {
    /// One past the furthest byte written since the last report was answered.
    unreported_end: u64,
    /// One past the furthest byte that may have been written since then, for all that is known.
    attempted_end: u64,
    /// Something was written since then, maybe below the known size: the times changed.
    dirty: bool,
    /// When the first of it was written.
    dirty_since: Duration,
    /// The last write's number: a report covers only what was written before it was sent.
    last_write: u64,
}

/// A report on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub inode: InodeId,
    pub length_at_least: u64,
    /// Writes without an answer may have come as far as this.
    pub attempted_end: u64,
    last_write: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Lengths {
    inodes: BTreeMap<InodeId, Length>,
    /// Writes so far, of all inodes. It never goes back, so that a report's late answer is not taken
    /// for that of another one.
    writes: u64,
}

impl Lengths {
    pub fn new() -> Self {
        Self::default()
    }

    /// A write up to `end` was acknowledged by its chains.
    pub fn wrote(&mut self, now: Duration, inode: InodeId, end: u64) {
        let length = self.next_write(now, inode);
        length.unreported_end = length.unreported_end.max(end);
    }

    /// A write up to `end` was given up without an answer: it may be done, or still be done.
    pub fn attempted(&mut self, now: Duration, inode: InodeId, end: u64) {
        let length = self.next_write(now, inode);
        length.attempted_end = length.attempted_end.max(end);
    }

    fn next_write(&mut self, now: Duration, inode: InodeId) -> &mut Length {
        self.writes += 1;
        let length = self.inodes.entry(inode).or_default();
        if !length.dirty {
            length.dirty_since = now;
        }
        length.dirty = true;
        length.last_write = self.writes;
        length
    }

    /// The size to show, given what the namespace says.
    pub fn size(&self, inode: InodeId, server_size: u64) -> u64 {
        self.inodes.get(&inode).map_or(server_size, |own| server_size.max(own.unreported_end))
    }

    pub fn is_dirty(&self, inode: InodeId) -> bool {
        self.inodes.get(&inode).is_some_and(|length| length.dirty)
    }

    /// What fsync or close has to report; `None`: nothing was written since the last report.
    pub fn report(&self, inode: InodeId) -> Option<Report> {
        let length = self.inodes.get(&inode).filter(|length| length.dirty)?;
        Some(Report {
            inode,
            length_at_least: length.unreported_end,
            attempted_end: length.attempted_end,
            last_write: length.last_write,
        })
    }

    /// The namespace took a report in.
    pub fn reported(&mut self, report: Report) {
        if let Some(length) = self.inodes.get_mut(&report.inode)
            && length.last_write == report.last_write
        {
            self.inodes.remove(&report.inode);
        }
    }

    /// The file was cut or extended to `size` by this client: what was written above is gone, and
    /// the namespace knows the rest.
    pub fn truncated(&mut self, inode: InodeId, size: u64) {
        if let Some(length) = self.inodes.get_mut(&inode) {
            length.unreported_end = length.unreported_end.min(size);
        }
    }

    /// Nobody here has the file open any more.
    pub fn forget(&mut self, inode: InodeId) {
        self.inodes.remove(&inode);
    }

    /// Inodes whose oldest unreported write is older than `age`: report them now, so that other
    /// mounts see a file grow that is never closed.
    pub fn overdue(&self, now: Duration, age: Duration) -> impl Iterator<Item = InodeId> {
        self.inodes
            .iter()
            .filter(move |(_, length)| {
                length.dirty && now.saturating_sub(length.dirty_since) >= age
            })
            .map(|(inode, _)| *inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(5);
    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn own_writes_show_before_they_are_reported() {
        let mut lengths = Lengths::new();
        assert_eq!(lengths.size(FILE, 10), 10);
        lengths.wrote(NOW, FILE, 100);
        lengths.wrote(NOW, FILE, 50);
        assert_eq!(lengths.size(FILE, 10), 100);
        assert_eq!(lengths.size(FILE, 200), 200, "another client wrote further");
        let report = lengths.report(FILE).unwrap();
        assert_eq!(report.length_at_least, 100);
        lengths.reported(report);
        assert_eq!(lengths.report(FILE), None);
        assert_eq!(lengths.size(FILE, 100), 100);
    }

    #[test]
    fn a_write_during_the_report_stays_unreported() {
        let mut lengths = Lengths::new();
        lengths.wrote(NOW, FILE, 100);
        let report = lengths.report(FILE).unwrap();
        lengths.wrote(NOW, FILE, 80);
        lengths.reported(report);
        assert!(lengths.is_dirty(FILE), "its time of change is not reported");
        assert_eq!(lengths.report(FILE).unwrap().length_at_least, 100);
    }

    #[test]
    fn a_late_answer_covers_no_later_write() {
        let mut lengths = Lengths::new();
        lengths.wrote(NOW, FILE, 100);
        let (first, second) = (lengths.report(FILE).unwrap(), lengths.report(FILE).unwrap());
        lengths.reported(first);
        lengths.wrote(NOW, FILE, 200);
        lengths.reported(second);
        assert_eq!(lengths.report(FILE).unwrap().length_at_least, 200);
    }

    #[test]
    fn a_write_without_an_answer_is_reported_and_not_shown() {
        let mut lengths = Lengths::new();
        lengths.wrote(NOW, FILE, 100);
        lengths.attempted(NOW, FILE, 300);
        assert_eq!(lengths.size(FILE, 10), 100);
        let report = lengths.report(FILE).unwrap();
        assert_eq!((report.length_at_least, report.attempted_end), (100, 300));
        lengths.truncated(FILE, 0);
        assert_eq!(lengths.report(FILE).unwrap().attempted_end, 300, "it may come after the cut");
        lengths.reported(report);
        assert_eq!(lengths.report(FILE), None);
    }

    #[test]
    fn truncation_cuts_what_is_unreported() {
        let mut lengths = Lengths::new();
        lengths.wrote(NOW, FILE, 100);
        lengths.truncated(FILE, 30);
        assert_eq!(lengths.size(FILE, 30), 30);
        assert_eq!(lengths.report(FILE).unwrap().length_at_least, 30);
        lengths.truncated(FILE, 500);
        assert_eq!(lengths.size(FILE, 500), 500);
    }

    #[test]
    fn long_writers_report_from_time_to_time() {
        let mut lengths = Lengths::new();
        let age = Duration::from_secs(1);
        lengths.wrote(NOW, FILE, 1);
        lengths.wrote(NOW + age, InodeId(6), 1);
        lengths.wrote(NOW + age, FILE, 2);
        assert_eq!(lengths.overdue(NOW, age).next(), None);
        assert!(lengths.overdue(NOW + age, age).eq([FILE]));
        assert!(lengths.overdue(NOW + age * 2, age).eq([FILE, InodeId(6)]));
        lengths.forget(FILE);
        assert!(lengths.overdue(NOW + age * 2, age).eq([InodeId(6)]));
    }
}
