//! Bounds of the disks and the engine.

use std::time::Duration;

/// Requests that one disk accepts before callers wait.
pub const DISK_REQUESTS_MAX: usize = 1024;
/// A disk that keeps a request longer is failed. Kernels retry a bad sector for many seconds.
pub const DISK_STALL_MAX: Duration = Duration::from_secs(30);
/// Slabs of buffers that one disk's ring knows (16 GiB); transfers of others cost more CPU.
pub const REGISTERED_SLABS: u16 = 1024;
/// Updates being prepared on one disk; more wait.
pub const PREPARES_MAX: usize = 512;
/// Sectors waiting in the index for their place on the disk; updates wait while there are more.
pub const PATCHES_MAX: usize = 4096;
/// From so many on, patches are written back at once. Small against [`MEMTABLE_BYTES`]: a patch
/// that is dropped before its memtable is flushed never reaches a table file.
pub const PATCHES_KICK: usize = 256;
/// Patches of one round of writing back (1 MiB of sectors, one sync).
pub const PATCHES_PER_ROUND: usize = 256;
/// How long a patch waits for company.
pub const PATCH_AGE_MS: u64 = 512;
/// An idle disk makes its last commits durable after this time.
pub const IDLE_SYNC_MS: u64 = 1_000;
/// Memory that one disk's updates and unaligned reads copy through.
pub const STAGING_BYTES: u64 = 32 << 20;
/// Gap in sectors that a read bridges rather than split in two.
pub const READ_GAP_SECTORS: u32 = 8;
/// Independent parts of the memory index.
pub const SHARDS: usize = 64;
/// Piece records kept in memory by one shard, beyond those that must stay (about 400 bytes each).
pub const SHARD_PIECES_MAX: usize = 1024;
/// Chunks removed by one batch when a target goes.
pub const REMOVE_BATCH_CHUNKS: usize = 256;
/// Space that was freed serves again at once; the file system (or device) is told of what is still free after this
/// time, in pieces of at least so many bytes.
pub const PUNCH_AFTER: Duration = Duration::from_secs(60);
pub const PUNCH_BYTES_MIN: u64 = 1 << 20;
/// With less free than so many times the reserve it is told at once.
pub const TIGHT_RESERVES: u64 = 4;
/// Part of a disk that only replacements may use: a full disk can still be repaired.
pub const RESERVE_DIVISOR: u64 = 64;
/// A target that left its chain for want of room returns when this part of the disk is available: with
/// less it would soon leave again.
pub const ROOM_DIVISOR: u64 = 16;
/// Free space of the file system below which writes are refused: this part of it, at most
/// [`INDEX_RESERVE_MAX`]. The index lives there and must be able to take deletes.
pub const INDEX_RESERVE_DIVISOR: u64 = 32;
pub const INDEX_RESERVE_MAX: u64 = 256 << 20;
/// Replacements (a repair) and overwrites in the index may go below it by this divisor, and only
/// shortening and removing beyond.
pub const LAST_RESERVE_DIVISOR: u64 = 2;
/// How long a look at the file system's free space counts.
pub const SPACE_CHECK_MS: u64 = 50;

/// How often, and how long each time, an update on a full disk waits for reads to let go of blocks
/// that are free otherwise.
pub const RETIRED_LOOKS: u32 = 25;
pub const RETIRED_WAIT: Duration = Duration::from_millis(20);
/// How long who asks for the space waits for an index write before it is told the last figures.
pub const SPACE_WAIT_MS: u64 = 5;

/// Of the index of one disk.
pub const MEMTABLE_BYTES: usize = 16 << 20;
pub const MEMTABLES_MAX: i32 = 3;
/// Blocks of all indexes of the process.
pub const INDEX_CACHE_BYTES: usize = 64 << 20;
pub const INDEX_FILE_BYTES: u64 = 16 << 20;
pub const INDEX_BACKGROUND_JOBS: i32 = 2;
pub const INDEX_FILES_OPEN_MAX: i32 = 512;
/// Bytes of the index' log that one sync brings to the disk.
pub const INDEX_SYNC_BYTES_MAX: usize = 8 << 20;
