//! Bounds of metad.

use std::time::Duration;

use crate::audit::Bounds;

/// Buffers of the data plane: namespace messages carry no bulk bytes, raft batches few.
pub const BUFFER_BYTES: u64 = 64 << 20;
/// Longest time that a routing watch is held.
pub const WATCH_MAX: Duration = Duration::from_secs(30);
/// Left of a caller's deadline when a held call is answered.
pub const ANSWER_MARGIN: Duration = Duration::from_millis(100);
/// A goodbye is answered when the death is on record, or after this.
pub const LEAVE_WAIT: Duration = Duration::from_millis(1_500);
/// A command of the leader's own.
pub const OWN_COMMAND: Duration = Duration::from_secs(5);
/// Between two looks of a metad that starts at whether it votes.
pub const VOTES_LOOK: Duration = Duration::from_millis(50);
/// Between two looks of a new leader at what is unfinished.
pub const UNFINISHED_PAUSE: Duration = Duration::from_millis(50);
/// One chunk update or listing of a leader.
pub const CHUNK_CALL: Duration = Duration::from_secs(2);
/// Chunk updates that one task has in progress.
pub const CHUNK_CALLS: usize = 32;
/// Chunk updates that share a deadline.
pub const CHUNK_STEPS: usize = 256;
/// Chunks of one listing.
pub const CHUNK_PAGE: u32 = 1_024;
/// Chunks up to this number are removed without asking which exist.
pub const CHUNKS_UNASKED: u64 = 16;
/// Inodes whose chunks are collected at the same time.
pub const COLLECTED_TOGETHER: usize = 16;
/// Orphans looked at in one round, and removed by one command.
pub const ORPHANS_PAGE: u32 = 1_024;
/// Orphan notices in one keepalive answer.
pub const NOTICES_MAX: u32 = 1_024;
/// Orphans that a session may say it holds.
pub const HOLDS_MAX: usize = 65_536;
/// Truncations and length doubts of one listing.
pub const LEFTOVERS_PAGE: u32 = 256;
/// How soon a quota begins to be counted.
pub const QUOTAS_ROUND: Duration = Duration::from_millis(512);
/// How long after its time something in the trash may still be there.
pub const TRASH_ROUND: Duration = Duration::from_millis(1_024);
/// Entries of the trash that go in one command.
pub const TRASH_STEP: usize = 256;
/// Steps of one call that empties the trash.
pub const TRASH_STEPS: usize = 16;
/// Entries of the trash that a page of a listing looks at.
pub const TRASH_PAGE: u32 = 512;
/// What is in the trash goes before its time when less than one part in so many of the disks is free.
pub const TRASH_FREE_PART: u64 = 10;
/// Steps of that, before it is looked again how much is free: chunks go a little later than their files.
pub const TRASH_FREE_STEPS: usize = 4;
/// How long after such steps it is looked again.
pub const TRASH_FREE_PAUSE: Duration = Duration::from_secs(5);
/// How soon a new leader goes on with a snapshot that is being made or removed.
pub const SNAPSHOTS_ROUND: Duration = Duration::from_millis(1_024);
/// How long all writes wait for those that had begun before a snapshot, until it is given up: longer than it takes
/// until a server that died is out of its chains.
pub const FREEZE_MAX: Duration = Duration::from_secs(6);
/// Between two questions whether all storage nodes know of a snapshot.
pub const PUBLISH_PAUSE: Duration = Duration::from_millis(20);
/// Between two steps of a removal, which others should not feel: of rows that are passed on, and of pages of chunks
/// that are looked through.
pub const REMOVAL_PAUSE: Duration = Duration::from_millis(20);
/// Files whose length is asked at the same time.
pub const RECOVERED_TOGETHER: usize = 16;
/// How long a grant lets its holder do I/O without asking again.
pub const GRANT: Duration = Duration::from_secs(24 * 3_600);
/// Age of the space figures that statfs answers.
pub const SPACE_AGE: Duration = Duration::from_secs(2);
/// Longest time that a question for locks is held, and how often it looks by itself: a grant whose
/// command this leader did not see the answer of wakes nobody.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
pub const LOCK_LOOK: Duration = Duration::from_secs(1);
/// For how long a mount may go by what it caches after it last asked for invalidations. A mount that
/// dies holds changes of what it cached up for so long, once.
pub const CACHE_LEASE: Duration = Duration::from_secs(5);
/// Inodes that one session caches: the oldest makes room for the next.
pub const CALLBACKS_PER_SESSION_MAX: usize = 262_144;
/// Invalidations that one session has not handled; beyond it nothing new is cached for it.
pub const INVALIDATIONS_OWED_MAX: usize = 4_096;
/// Invalidations of one answer.
pub const INVALIDATIONS_MAX: usize = 1_024;
/// Longest time that a question for invalidations is held: well within the lease.
pub const INVALIDATION_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Times that a request is logged whose names came to mean other inodes than those that were told.
pub const TELL_TRIES: u32 = 2;
/// What was changed under somebody's cache is cached by nobody for so long: several exchanges between
/// mounts that change it in turns.
pub const CONTENDED: Duration = Duration::from_millis(100);
/// Rounds of the leader's background work.
pub const SESSIONS_ROUND: Duration = Duration::from_millis(1_024);
pub const ORPHANS_ROUND: Duration = Duration::from_millis(512);
pub const LEFTOVERS_ROUND: Duration = Duration::from_millis(1_024);
/// A leader that proposed nothing for so long looks at its book in larger steps.
pub const QUIET_AFTER: Duration = Duration::from_secs(2);
/// Samples of the cluster's throughput that the status page shows, and their distance.
pub const HISTORY_SAMPLES: usize = 150;
pub const HISTORY_STEP: Duration = Duration::from_secs(2);
/// Fill of a disk that the status reports.
pub const DISK_FULL_PERCENT: u64 = 90;
/// Problems, and mends, that a check of the namespace names; the others are only counted.
pub const CHECK_NAMED: usize = 1_000;
/// Looks at a namespace that is repaired: a fault that another one hides is seen by the next, and what changes all the
/// time is left.
pub const MEND_ROUNDS: usize = 16;
/// Changes of one batch.
pub const BATCH_MAX: usize = 256;
/// The audit log of a metad, and what one answer tells of it.
pub(crate) const AUDIT: Bounds = Bounds { file_bytes: 4 << 20, files: 16 };
pub const AUDIT_PAGE_BYTES: usize = 1 << 20;
/// Refusals that are recorded at once, and the seconds after which one more is.
pub const AUDIT_REFUSALS_BURST: u64 = 64;
pub const AUDIT_REFUSAL_S: u64 = 10;
/// What is read of a backup at once.
pub const ARCHIVE_BUFFER: usize = 1 << 20;
/// Pairs of the cluster's facts that are restored by one write.
pub const RESTORED_TOGETHER: usize = 4_096;
/// How far the clocks of metads may be apart when a backup is restored.
pub const CLOCKS_APART_S: u64 = 300;
