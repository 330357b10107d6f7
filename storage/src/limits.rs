//! Bounds of the chunk server.

use std::time::Duration;

/// Calls and results that wait for one target's task.
pub const MAILBOX: usize = 4_096;
/// Mails that the task handles before it performs what came of them.
pub const MAILS_AT_ONCE: usize = 128;
/// The machine's clock: its retries are no shorter.
pub const TICK: Duration = Duration::from_millis(50);
/// A forward waits for the disks of all members behind; the machine repeats it.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(8);
/// Questions between storage nodes.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// Buffers for full copies to a successor; apart from those of requests, which may hold all the rest
/// while they wait for a copy.
pub const COPY_BYTES: u64 = 128 << 20;
/// How long a copy or a read waits for a buffer.
pub const BUFFER_WAIT: Duration = Duration::from_secs(2);
/// Parts of one read call.
pub const READ_PARTS_MAX: usize = 1_024;
/// Chunks in one answer to a listing.
pub const LIST_CHUNKS_MAX: u32 = 4_096;
