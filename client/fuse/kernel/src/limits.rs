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
/// Ring entries of a CPU: at first, when more are added, how many at once, and in all. Each holds one
/// request from its arrival to its answer, so those that wait for locks must not take all. An entry's
/// payload has as many bytes as the largest request, of address space; memory comes with use.
pub(crate) const ENTRIES_FIRST: usize = 32;
pub(crate) const ENTRIES_LOW: usize = 8;
pub(crate) const ENTRIES_MAX: usize = 1024;
/// Entries of a CPU that may be away when a request to wait for a lock comes. The rest is for those who
/// let locks go.
pub(crate) const AWAY_MAX: usize = ENTRIES_MAX / 4;
/// Entries of a ring's queues: commands to the kernel, and its answers.
pub(crate) const SUBMISSIONS: u32 = 128;
pub(crate) const COMPLETIONS: u32 = 4096;
/// Pause before memory that an operation still uses is looked at again.
pub(crate) const LATE_PAUSE: Duration = Duration::from_millis(1);
/// A runtime that ends waits this long for blocking work.
pub(crate) const END: Duration = Duration::from_secs(1);
