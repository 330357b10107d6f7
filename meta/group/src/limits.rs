//! Bounds of one group. Full means that the caller is pushed back, never that memory grows.

use std::time::Duration;

/// Proposals that wait for their answer, and their bytes.
pub const PROPOSALS_MAX: usize = 32 << 10;
pub const PROPOSAL_BYTES_MAX: usize = 64 << 20;
/// As many commands are a batch worth sending while an earlier one is on its way.
pub const PROPOSALS_AT_ONCE: usize = 64;
/// One command: the largest namespace batch is far below.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Linearizable reads that wait for their round.
pub const READS_MAX: usize = 64 << 10;
/// Raft messages that arrived and were not yet handled.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
pub const BATCHES_MAX: usize = 4 << 10;
/// Joins, removals, transfers and snapshot pages that wait.
pub const REQUESTS_MAX: usize = 256;

/// Commands that arrive together share an entry up to this size, and so one sync.
pub const ENTRY_BYTES_MAX: usize = 256 << 10;
/// Entries of one append message (a single larger entry still goes).
pub const MESSAGE_BYTES_MAX: u64 = 512 << 10;
/// Append messages to one follower that are not acknowledged yet.
pub const MESSAGES_INFLIGHT_MAX: usize = 64;
/// Log that is not committed yet; above, proposals are refused.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Committed log that is applied in one write.
pub const APPLY_BYTES_MAX: u64 = 4 << 20;
/// Raft messages to one peer that travel as one call.
pub const BATCH_SEND_BYTES_MAX: usize = 4 << 20;

/// Log kept whatever `log_keep_entries` says: entries may be large.
pub const LOG_BYTES_MAX: u64 = 512 << 20;
/// Recent entries in memory, for followers that are up to date.
pub const LOG_CACHE_BYTES_MAX: usize = 16 << 20;

/// A snapshot page, unless the follower asks for less.
pub const PAGE_BYTES: u32 = 1 << 20;
pub const PAGE_BYTES_MAX: u32 = 4 << 20;
/// Snapshots that one leader holds for followers at a time.
pub const PINS_MAX: usize = 4;
/// A pinned snapshot that no follower asked about for this many election timeouts is let go.
pub const PIN_IDLE_ELECTIONS: u64 = 5;
/// A backup's snapshot is let go when nobody asked for a page for so long.
pub const BACKUP_IDLE: Duration = Duration::from_secs(60);
/// Failed tries of one page before the follower gives the snapshot up.
pub const PAGE_TRIES: u32 = 5;
pub const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Voters of a group; each write waits for a majority of them.
pub const VOTERS_MAX: usize = 7;
/// Members, learners included.
pub const MEMBERS_MAX: usize = 16;
/// Addresses learnt from messages of peers that the membership record does not know yet.
pub const HINTS_MAX: usize = 64;
/// A learner this close to the leader's log becomes a voter.
pub const PROMOTE_LAG_MAX: u64 = 256;

/// Bytes of the write-ahead log that one sync brings to the disk: a batch of commands, and some more.
pub const SYNC_BYTES_MAX: usize = 2 * COMMAND_BYTES_MAX;

const _: () = assert!(MESSAGE_BYTES_MAX < UNCOMMITTED_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX <= COMMAND_BYTES_MAX);
const _: () = assert!((PAGE_BYTES_MAX as usize) < ff2_proto::limits::HEADER_BYTES_MAX);
const _: () = assert!(
    BATCH_SEND_BYTES_MAX + COMMAND_BYTES_MAX + (MESSAGE_BYTES_MAX as usize)
        < ff2_proto::limits::HEADER_BYTES_MAX
);

/// Raft batches that wait for one peer and group; raft sends again what is dropped.
pub(crate) const LINK_QUEUE: usize = 1_024;
/// Raft messages that travel in one call.
pub(crate) const LINK_MESSAGES_MAX: usize = 4_096;
/// Raft bytes that travel in one call.
pub(crate) const LINK_BYTES_MAX: usize = 4 << 20;
/// A raft call: longer than a slow disk, shorter than what would hold up the news behind it.
pub(crate) const LINK_CALL: Duration = Duration::from_secs(2);
/// One try to join a group.
pub(crate) const JOIN_CALL: Duration = Duration::from_secs(5);
