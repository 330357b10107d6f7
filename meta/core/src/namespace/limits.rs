//! Bounds of the namespace machine.

use std::time::Duration;

/// Sessions of one volume: all their records travel in one answer of `ListSessions`.
pub const SESSIONS_MAX: u64 = 16_384;
/// Bytes of a session's description.
pub const DESCRIPTION_BYTES_MAX: usize = 255;
/// Answers that are remembered for one session. A client has far fewer mutations in flight; one that
/// does not acknowledge answers is told to wait.
pub const ANSWERS_PER_SESSION_MAX: u64 = 4_096;
/// Names and values of the extended attributes of one inode: a few values of the largest size.
pub const XATTR_BYTES_MAX: usize = 256 << 10;
/// Entries of an ACL: what a page holds, as the kernel of a mount takes no more.
pub const ACL_ENTRIES_MAX: usize = 511;
/// Locks that are held on one inode, each a range of one owner.
pub const LOCKS_PER_INODE_MAX: usize = 4_096;
/// Locks that are waited for on one inode.
pub const WAITERS_PER_INODE_MAX: usize = 1_024;
/// Locks that one session holds or waits for.
pub const LOCKS_PER_SESSION_MAX: u64 = 65_536;
/// Owners looked at for a circle of waits, which is then taken for none.
pub const DEADLOCK_OWNERS_MAX: usize = 64;
/// Locks that one owner waits for at the same time, as far as a circle is looked for.
pub const WAITS_PER_OWNER_LOOKED_AT: usize = 16;
/// Files that one session may have open for writing.
pub const WRITERS_PER_SESSION_MAX: u64 = 262_144;
/// Inode numbers that one command allots to a session.
pub const ALLOTMENT_MAX: u32 = 4_096;
/// Allotments of a session with numbers that were not used; the oldest makes room.
pub const ALLOTMENTS_MAX: usize = 4;
/// Sessions that one command expires, and inodes that one command collects: a command is applied in
/// one go, and others wait for it.
pub const EXPIRE_BATCH_MAX: usize = 64;
/// Write sessions and remembered answers that one command settles of sessions that end.
pub const END_STEPS_MAX: usize = 1_024;
pub const COLLECT_BATCH_MAX: usize = 1_024;
/// Extended attributes of inodes that one command collects; the other inodes wait for the next.
pub const COLLECT_STEPS_MAX: usize = 16_384;
/// Entries of a page of orphans, truncations or doubtful lengths.
pub const LIST_PAGE_MAX: u32 = 1_024;
/// Directories between the root and the deepest one. It bounds the loop check of rename.
pub const DEPTH_MAX: u32 = 65_536;
/// Quotas of one volume.
pub const QUOTAS_MAX: u64 = 16_384;
/// Folders with quotas, one in the other. Each change counts in all of them.
pub const QUOTA_DEPTH_MAX: usize = 8;
/// Such a chain is a circle. It may be longer than the one above: quotas that are set while those above them
/// are still being counted do not know of these.
pub const QUOTA_CHAIN_MAX: usize = 2 * QUOTA_DEPTH_MAX;
/// Entries that one step of a count looks at: others wait for it.
pub const QUOTA_STEPS_MAX: usize = 256;
/// How far beyond a limit changes are taken in of which programs were told already: more than hundreds of
/// clients can be told at the same moment.
pub const QUOTA_FORESEEN_INODES: u64 = 65_536;
pub const QUOTA_FORESEEN_BYTES: u64 = 512 << 20;
/// For how long the trash keeps what is removed: ten years.
pub const TRASH_KEEP_S_MAX: u64 = 3_650 * 86_400;
/// Entries of the trash that go for good in one command: others wait for it.
pub const TRASH_STEP_MAX: usize = 1_024;
/// Folders between the root and something in the trash, as far as they are looked for.
pub const PATH_DEPTH: usize = 1_024;
/// Names of a folder that are looked at for that of a folder in it.
pub const NAMES_LOOKED_AT: usize = 65_536;
/// Access times that one command may tell.
pub const ATIMES_MAX: usize = 1_024;
/// Pairs that one step of a longer scan takes from the keys.
pub(super) const SCAN_PAGE: usize = 512;
/// The first cookies of a directory are those of `.` and `..`, which the mount makes up.
pub(super) const FIRST_COOKIE: u64 = 3;
/// No directory comes so far, one entry after the other; programs take cookies for signed.
pub(super) const COOKIE_MAX: u64 = 1 << 62;

/// A session that leaves notices of removed files unacknowledged for so long is expired: longer than
/// the patience of clients, whose creates in flight hold notices back.
pub const NOTICE_WITHHOLD_MAX: Duration = Duration::from_secs(15 * 60);
/// Snapshots of a volume: each one that is newer than what is looked at costs a look.
pub const SNAPSHOTS_MAX: usize = 64;
/// Preserved rows that one command passes on.
pub const PASS_ON_MAX: usize = 512;
