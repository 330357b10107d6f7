//! Bounds of what a validation takes.

use std::time::Duration;

/// The whole of it, whatever hangs.
pub const QUICK_MAX: Duration = Duration::from_secs(10);
pub const FULL_MAX: Duration = Duration::from_secs(120);
/// See [`Budget::slack`](crate::budget::Budget::slack).
pub(crate) const PART_SLACK: Duration = Duration::from_millis(500);
/// Of the memory that is free just now, the part that is tried: a page cache that others need is left.
pub(crate) const MEMORY_QUICK: u64 = 8;
pub(crate) const MEMORY_FULL: u64 = 2;
/// Memory that is written as a whole before it is read: more than the caches of a core hold.
pub(crate) const MEMORY_BLOCK: u64 = 64 << 20;
/// One of the three arrays of a core whose bandwidth is measured, if there is memory for it.
pub(crate) const TRIAD_ARRAY: u64 = 64 << 20;
/// One transfer to or from a disk, and how many are on their way at once.
pub(crate) const DISK_BLOCK: u64 = 4 << 20;
pub(crate) const DISK_STREAMS: usize = 4;
/// Of the free space of a file system, the part that is written.
pub(crate) const DISK_SPACE: u64 = 10;
/// Connections that carry bytes between a pair at once: one is bound by a core.
pub(crate) const PAIR_STREAMS: usize = 4;
/// Bytes that a pair's sender hands over at once.
pub(crate) const PAIR_CHUNK: usize = 256 << 10;
/// Round trips of a latency.
pub(crate) const PAIR_TRIPS: usize = 500;
/// Until a stranger is cut off.
pub(crate) const PAIR_ADMISSION: Duration = Duration::from_secs(5);
/// Connections that a server holds at once; more are closed.
pub(crate) const PAIR_SESSIONS: usize = 32;
/// What a server takes or gives by one connection.
pub(crate) const PAIR_BYTES: u64 = 64 << 30;
/// Shorter tokens could be guessed.
pub const TOKEN_MIN: usize = 16;
/// Results of a core that are told apart; a broken one may give another each time.
pub(crate) const CHECKSUMS_MAX: usize = 16;
