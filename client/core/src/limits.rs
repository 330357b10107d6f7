//! Bounds of the client's machines.

use std::time::Duration;

/// First wait after a failure: below the time of a failover, above that of a queue to drain.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(2);
/// Longest wait between two attempts: a healed cluster is found again within this.
pub const RETRY_WAIT_MAX: Duration = Duration::from_millis(500);
/// Attempts in a row without any wait, so that two servers that point at each other cost no spin.
pub const RETRY_AT_ONCE_MAX: u32 = 4;

/// A target that failed is the last choice for this long: about as long as its lease.
pub const AVOID_TARGET: Duration = Duration::from_secs(3);
/// Targets remembered as failed; the earliest to recover makes room.
pub const AVOIDED_TARGETS_MAX: usize = 1024;

/// Bytes of one read call: large enough that the call costs nothing beside them, small enough that
/// a long read is spread over several connections.
pub const READ_BATCH_BYTES_MAX: u64 = 4 << 20;
/// Parts of one read call.
pub const READ_BATCH_PARTS_MAX: usize = 128;
/// Of a span for which it is better to be asked for with others than beside them.
pub const READ_SMALL_BYTES_MAX: u32 = 16 << 10;
/// Parts of a call from where on another node is asked beside it: what each costs is then little more than its own.
pub const READ_SMALL_PARTS: usize = 8;

/// Writes of one inode that wait or run.
pub const INODE_WRITES_MAX: usize = 1024;

/// Read-ahead of a sequential reader: the first window, and where its doubling ends.
pub const PREFETCH_MIN: u64 = 128 << 10;
pub const PREFETCH_MAX: u64 = 8 << 20;
/// Reads in sequence before any read-ahead: one may be chance.
pub const PREFETCH_AFTER: u32 = 2;

/// Chunk updates of one client in flight.
pub const CHANNELS_MAX: u32 = 256;
/// Namespace mutations of one session in flight. The leader keeps an answer for each.
pub const MUTATIONS_MAX: usize = 256;

/// Changes that a client foresees of one place where there is a limit, and that are not answered: two
/// requests of its journal.
pub const FORESEEN_IN_QUOTA_MAX: u64 = 256;
/// Places of which is remembered what is left.
pub const ROOMS_MAX: usize = 4096;
/// How far a file grows under a quota before the namespace is asked again.
pub const QUOTA_WINDOW_MIN: u64 = 1 << 20;
pub const QUOTA_WINDOW_MAX: u64 = 256 << 20;

/// Inodes that were read and of which the namespace does not know yet: more than are read before it is told.
pub const ACCESSES_MAX: usize = 65_536;
/// ... and those of one request.
pub const ACCESSES_TOLD: usize = 512;

/// Operations of the high class that go while one of the low class waits, before that one goes.
pub const HIGH_BEFORE_LOW_MAX: u32 = 8;

const _: () = assert!(PREFETCH_MIN.is_power_of_two() && PREFETCH_MAX >= PREFETCH_MIN);
const _: () = assert!(READ_BATCH_BYTES_MAX <= ff2_proto::limits::BULK_BYTES_MAX as u64);
