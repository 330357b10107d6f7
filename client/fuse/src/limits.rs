//! Bounds of the mount.

use std::time::Duration;

/// Largest write request asked for; the kernel lowers it to `fs.fuse.max_pages_limit`.
pub(crate) const WRITE_BYTES_MAX: u32 = 4 << 20;
pub(crate) const WRITE_BYTES_MIN: u32 = 1 << 20;
/// What writes in progress over `/dev/fuse` hold of the client's buffers: the rest is for reads.
pub(crate) const WRITES_POOLED_BYTES: usize = ff2_client::limits::BUFFER_BYTES as usize / 4;
/// What they hold beside that while their servers are down; programs wait beyond it.
pub(crate) const WRITES_PLAIN_BYTES: usize = 512 << 20;
/// Requests of the kernel's own (read-ahead, direct I/O without waiting) in flight.
pub(crate) const BACKGROUND_MAX: u16 = 128;
/// Read-ahead of the kernel; the client library reads ahead of it.
pub(crate) const READ_AHEAD_KB: u32 = 1024;
/// Entries asked for in one page of a directory, and kept for the next request of its handle.
pub(crate) const DIR_PAGE: u32 = 512;
/// How long a directory is listed on from entries that were fetched before.
pub(crate) const DIR_PAGE_AGE: Duration = Duration::from_secs(1);
/// Names of one directory, and of all, that the kernel is told to drop one by one.
pub(crate) const NAMES_PER_DIRECTORY_MAX: usize = 512;
pub(crate) const NAMES_MAX: usize = 131_072;
/// How long the kernel may take to drop names, before all are dropped: what a lookup takes.
pub(crate) const NAMES_PATIENCE: Duration = Duration::from_millis(10);
/// How long another mount's change waits for pages that are being read here.
pub(crate) const PAGES_PATIENCE: Duration = Duration::from_millis(200);
/// How long the kernel may take to make the inode of an answer that it has.
pub(crate) const INSTANTIATION: Duration = Duration::from_millis(100);
/// The kernel keeps what it is told for so much shorter than it may: it begins to count when it reads the
/// answer, and counts in jiffies.
pub(crate) const TTL_MARGIN: Duration = Duration::from_millis(500);
/// What a namespace without callbacks said is trusted for no longer.
pub(crate) const UNTOLD_CACHE: Duration = Duration::from_secs(1);
/// Connections for rings that wait to be accepted, and the pause when none can be.
pub(crate) const RINGS_WAITING_MAX: i32 = 128;
pub(crate) const RINGS_PAUSE: Duration = Duration::from_millis(100);
/// Rings of a mount, and of one user; each has a thread, which mostly sleeps.
pub(crate) const RINGS_MAX: usize = 1024;
pub(crate) const RINGS_PER_USER_MAX: usize = 128;
/// What the regions of one user's rings have together: room in the mount's address space.
pub(crate) const RING_REGION_BYTES_PER_USER_MAX: u64 = 256 << 30;
/// What one ring has in progress: as much as keeps the servers busy, so that a class can go first.
pub(crate) const RING_OPERATIONS_RUNNING_MAX: usize = 64;
pub(crate) const RING_BYTES_RUNNING_MAX: u64 = 32 << 20;
/// Reads of one file that go to the servers together: so many, each of at most so many bytes.
pub(crate) const RING_READS_TOGETHER_MAX: usize = 16;
pub(crate) const RING_SMALL_READ_BYTES_MAX: u64 = 64 << 10;
/// Then each goes on alone: one may be waiting for a chain that is down.
pub(crate) const RING_READS_TOGETHER_PATIENCE: Duration = Duration::from_millis(500);
/// Copies of what rings write, of 4 KiB each.
pub(crate) const RING_WRITE_PAGES: u32 = 16_384;
/// How long a process is taken to have the groups that it had.
pub(crate) const GROUPS_AGE: Duration = Duration::from_secs(1);
pub(crate) const GROUPS_CACHED_MAX: usize = 4096;
/// A stopping mount waits this long for requests in progress.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);
/// After a killed mount process the kernel ends its connection within this.
pub(crate) const GUARD_PATIENCE: Duration = Duration::from_secs(5);
/// A request that takes longer, or of which a signal was told, looks whether its process is being killed,
/// and again each time.
pub(crate) const KILL_CHECK_AFTER: Duration = Duration::from_secs(1);
pub(crate) const KILL_CHECK_EVERY: Duration = Duration::from_millis(500);
/// A killed process waits this long for its lock request to be taken back.
pub(crate) const LOCK_CANCEL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the root's attributes and the space wait for the namespace before they are answered from
/// memory: whoever looks at the mount point itself must not hang with it.
pub(crate) const ROOT_PATIENCE: Duration = Duration::from_secs(1);
