//! Bounds of the chunk server's drivers and service. The engine has its own.

use std::time::Duration;

use ff2_proto::limits as shared;

/// Calls that wait for one target's task; more are answered with BUSY.
pub const MAILBOX: usize = 4_096;
/// Finished store operations and answers on their way to one target's task. Whoever has one waits.
pub const COMPLETIONS: usize = 4_096;
/// Mails taken between two looks at the other sources of events.
pub const MAIL_BATCH: usize = 64;
/// Outcomes that wait to be sent to the successor; more are not sent, and the successor asks.
pub const OUTCOMES: usize = 4_096;
/// Outcomes in one message.
pub const OUTCOMES_PER_CALL: usize = 512;

/// Time between two ticks of a target's machine: below the shortest pause that it makes.
pub const TICK: Duration = Duration::from_millis(20);
/// While nothing is in progress: how late a failed disk or the end of a lease is noticed then.
pub const IDLE_TICK: Duration = Duration::from_millis(512);
/// One try of a forward: it waits for the disks of everybody behind.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(4);
/// One try of a question, a page, an outcome: they wait for no disk.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a copy waits for a buffer before it is tried again later.
pub const BUFFER_WAIT: Duration = Duration::from_secs(1);
/// One part in this many of the buffers may hold copies of whole chunks.
pub const COPY_SHARE: u64 = 8;
/// How long a target may take to end: longer than any call that it makes.
pub const END_WAIT: Duration = Duration::from_secs(10);
/// How long the driver waits for a reply of its machine when the caller set no shorter limit.
pub const REPLY_WAIT: Duration = Duration::from_secs(60);

/// Parts of one read.
pub const READ_PARTS: usize = 1_024;
/// One part in this many of the buffers is for reads, so that they and updates never wait for each
/// other's memory. At least what the largest read takes: each part in a buffer of up to twice its size.
pub const READ_SHARE: u64 = 4;
pub const READ_BYTES_MIN: u64 = (2 * shared::BULK_BYTES_MAX + READ_PARTS * (4 << 10)) as u64;
/// Grants that were checked lately.
pub const GRANTS: usize = 1_024;
/// Before a store that could not be made or removed is tried again.
pub const MATCH_AGAIN: Duration = Duration::from_secs(5);
/// Time between two looks for successors that are silent.
pub const SILENCE_LOOK: Duration = Duration::from_millis(1_024);
/// One probe of a node that is silent. A node under a heavy load answers within this, whatever its disks do.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two looks at the whole node: resync shares, failed disks, space.
pub const HOUSEKEEPING: Duration = Duration::from_millis(512);
/// Chunks that a scrub takes note of at once.
pub const SCRUB_PAGE: usize = 256;
/// What it reads at once.
pub const SCRUB_BYTES: u32 = 1 << 20;
/// Time until it looks again at a target that does not serve, or did not answer.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks whether it is time for a scrub, when nobody asks for one.
pub const SCRUB_LOOK: Duration = Duration::from_secs(60);
/// Chunks of one target shown by `/dump`.
pub const DUMP_LINES: usize = 256;

const _: () = assert!(MAIL_BATCH <= MAILBOX);
const _: () = assert!(ASK_TIMEOUT.as_millis() < FORWARD_TIMEOUT.as_millis());
