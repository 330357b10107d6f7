//! The words of the kernel's FUSE interface, protocol 7.31 up to 7.45: numbers and structures as
//! `include/uapi/linux/fuse.h` lays them out. No logic; [`crate::request`] and [`crate::reply`] give
//! them meaning.

mod args;
mod out;

pub(crate) use args::*;
pub(crate) use out::*;

/// Protocol that this crate was written for; an older kernel's is taken as it is.
pub(crate) const MAJOR: u32 = 7;
pub(crate) const MINOR: u32 = 45;
/// The oldest minor that is understood (Linux 5.2): requests have had these sizes since.
pub(crate) const MINOR_MIN: u32 = 31;

/// What the root of a mount is called.
pub const ROOT: u64 = 1;

/// Operations, `enum fuse_opcode`.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const GETLK: u32 = 31;
    pub(crate) const SETLK: u32 = 32;
    pub(crate) const SETLKW: u32 = 33;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
    pub(crate) const COPY_FILE_RANGE_64: u32 = 53;
}

/// Which fields a `SETATTR` means.
pub(crate) mod setattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const HANDLE: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
}

/// `GETATTR` and `STATX` through an open file.
pub(crate) const GETATTR_HANDLE: u32 = 1;
/// A lock is a `flock`, not a byte range.
pub(crate) const LOCK_IS_FLOCK: u32 = 1;
/// `FSYNC` of the data alone.
pub(crate) const FSYNC_DATA: u32 = 1;

/// Flags of a write.
pub mod write {
    /// Pages of the page cache: they have their place, whatever the open file says.
    pub const CACHE: u32 = 1 << 0;
    /// Who writes takes setuid and setgid away.
    pub const KILL_SUIDGID: u32 = 1 << 2;
}

/// Flags of the answer to an open.
pub mod open {
    /// The page cache is bypassed.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// The pages that the kernel has stay.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// Direct writes of one file may run side by side.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// What is negotiated at the start, `INIT`.
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    /// The flags have a second word.
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    /// Requests may come over io_uring.
    pub const OVER_IO_URING: u64 = 1 << 41;
}

/// Codes of messages that the kernel did not ask for, `enum fuse_notify_code`.
pub(crate) mod notify {
    pub(crate) const INVAL_INODE: i32 = 2;
    pub(crate) const INVAL_ENTRY: i32 = 3;
    pub(crate) const STORE: i32 = 4;
    pub(crate) const DELETE: i32 = 6;
    pub(crate) const INC_EPOCH: i32 = 8;
}

/// FUSE over io_uring.
pub(crate) mod uring {
    pub(crate) const REGISTER: u32 = 1;
    pub(crate) const COMMIT_AND_FETCH: u32 = 2;
    /// Where the parts of an entry's header begin: header of the request or the answer, arguments of
    /// the operation, and what tells of the entry itself.
    pub(crate) const OP_AT: usize = 128;
    pub(crate) const ENTRY_AT: usize = 256;
    pub(crate) const HEADER_BYTES: usize = 288;
    pub(crate) const OP_BYTES: usize = ENTRY_AT - OP_AT;
}
