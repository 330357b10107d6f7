//! Bounds of the CRAQ machine and of what a chunk remembers.

use std::time::Duration;

/// Exactly-once entries that a chunk remembers, one for each channel that wrote to it lately, the
/// oldest version going first. A retry whose entry went is carried out a second time, so there are
/// more than twice as many as updates are admitted to one chunk: all that were admitted together
/// with an update, and as many again, may pass before its retry arrives.
pub const TAGS_PER_CHUNK: usize = 160;

/// Client updates that wait for their turn on one chunk; more are refused with BUSY.
pub const WAITING_UPDATES_PER_CHUNK: usize = 64;
/// The same over all chunks of a target.
pub const WAITING_UPDATES_PER_TARGET: usize = 4_096;
/// Chunks of a target that are in change at one time; what would begin another is told BUSY.
pub const LIVE_CHUNKS_PER_TARGET: usize = 16_384;
/// Reads that wait for one chunk's pending version.
pub const WAITING_READS_PER_CHUNK: usize = 256;
/// Reads of a target that wait or are on its disk.
pub const READS_PER_TARGET: usize = 8_192;
/// Callers that wait for the same update (retries of one call).
pub const CALLS_PER_UPDATE: usize = 8;
/// Store operations queued for one chunk behind the one in progress. An update adds at most three
/// (settle the one before it, or drop it, and prepare), and at most one update is pending.
pub const STORE_QUEUE: usize = 8;

/// Removed chunks that are remembered, with their exactly-once entries, against late duplicates.
pub const TOMBSTONES: usize = 16_384;
/// Dropped updates that are remembered until the chain changes.
pub const DROPPED: usize = 4_096;

/// How long a read waits for a pending version before the client is sent elsewhere.
pub const READ_WAIT: Duration = Duration::from_millis(500);
/// An update that is durable from here on but not settled: after this long the head is asked.
pub const SETTLE_WAIT: Duration = Duration::from_millis(200);
/// A question to the head that was not answered is asked again after this long.
pub const QUERY_RETRY: Duration = Duration::from_millis(200);
/// A successor that lives and has not answered an update for so long is spoken of.
pub const SUCCESSOR_SILENT: Duration = Duration::from_secs(3);
/// Between two probes of a node that is silent, or cut off.
pub const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Probes without an answer, in a row, after which it is cut off; and answered ones after which it is not.
pub const PROBES_TO_CUT: u32 = 2;
pub const PROBES_TO_HEAL: u32 = 5;
/// Pause before a failed forward is sent again: the first, doubled up to the last.
pub const FORWARD_RETRY_FIRST: Duration = Duration::from_millis(10);
pub const FORWARD_RETRY_LAST: Duration = Duration::from_millis(500);

/// A payload above this is let go once it can be read from the store and nobody is about to send it:
/// memory that waits for another node could otherwise wait in a circle. Smaller ones are kept: to
/// send the whole chunk in their place costs more than they do.
pub const PAYLOAD_KEPT: u32 = 64 << 10;

/// Chunks of one page of a resync or a listing.
pub const PAGE_CHUNKS: u32 = 1_024;
/// Copies that one target has on the way to its syncing successor.
pub const COPIES_IN_FLIGHT: usize = 8;
/// Own chunks that one call of the planner looks at, so that a step stays short.
pub const PLAN_CHUNKS: usize = 4_096;
/// Chunks that are looked at again after the pass; with more, the whole pass is done again.
pub const REDO_CHUNKS: usize = 16_384;
/// Pause of a resync after a failure or while it waits for a live update.
pub const RESYNC_RETRY: Duration = Duration::from_millis(200);
/// Pause before a resync tries again what could not be read on its own side.
pub const UNREADABLE_RETRY: Duration = Duration::from_secs(5);
/// A copy is charged at least this much, so that empty chunks are paced too.
pub const COPY_COST_MIN: u32 = 4 << 10;

const _: () = assert!(TAGS_PER_CHUNK > 2 * (WAITING_UPDATES_PER_CHUNK + 1));
const _: () = assert!(PAGE_CHUNKS >= 1);
const _: () = assert!(FORWARD_RETRY_FIRST.as_millis() < FORWARD_RETRY_LAST.as_millis());
