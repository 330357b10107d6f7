//! Bounds of the kernel interface.

use std::time::Duration;

/// Executors, unless more are asked for: each has connections of its own to every server.
pub(crate) const EXECUTORS_MAX: usize = 8;
/// Threads that read `/dev/fuse`: each message wakes all that wait.
pub(crate) const READERS_MAX: usize = 4;
/// Messages that are taken from one source before other work gets its turn.
pub(crate) const BATCH: usize = 32;
/// Writes up to this are copied to a buffer of their size, which costs less than to divide one.
pub(crate) const COPIED_BYTES_MAX: usize = 16 << 10;
/// Interrupts that are remembered for requests that do not wait yet.
pub(crate) const EARLY_INTERRUPTS_MAX: usize = 256;
/// Ring entries of a mount; on how many CPUs ever, those of one CPU are within bounds. Each holds one
/// request from its arrival to its answer. An entry's payload has as many bytes as the largest request,
/// of address space; memory comes with use, and the kernel uses the last that came back first.
const ENTRIES: usize = 1024;
const ENTRIES_OF_CPU: (usize, usize) = (64, 512);
/// Commands to the kernel that are prepared at once.
pub(crate) const SUBMISSIONS: u32 = 128;
/// Pause before memory that an operation still uses is looked at again.
pub(crate) const LATE_PAUSE: Duration = Duration::from_millis(1);
/// A runtime that ends waits this long for blocking work.
pub(crate) const END: Duration = Duration::from_secs(1);

pub(crate) const fn entries_of_cpu(cpus: usize) -> usize {
    let (min, max) = ENTRIES_OF_CPU;
    let share = ENTRIES / cpus;
    if share < min {
        min
    } else if share > max {
        max
    } else {
        share
    }
}

/// Entries of a CPU that may be away when a request to wait for a lock comes. The rest is for those who
/// let locks go.
pub(crate) const fn away_max(entries: usize) -> usize {
    entries / 2
}
