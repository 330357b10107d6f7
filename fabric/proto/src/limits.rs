//! Bounds that both ends of a connection must agree on. Bounds of one crate live in its own `limits.rs`.

/// Addresses of one server: each zone of the network that it is in has one.
pub const ADDRESSES_MAX: usize = 8;
/// Bytes of a name in a directory, as POSIX `NAME_MAX`.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a path or symlink target, as POSIX `PATH_MAX` less its NUL.
pub const PATH_BYTES_MAX: usize = 4095;
/// Symlinks followed in one path walk, as Linux.
pub const SYMLINKS_MAX: u32 = 40;
/// Hard links to one inode, as ext4.
pub const LINKS_MAX: u32 = 65_000;
/// Smallest and largest chunk of a layout.
pub const CHUNK_SIZE_MIN: u32 = 64 << 10;
pub const CHUNK_SIZE_MAX: u32 = 64 << 20;
/// Chunk size of a new volume: large enough that a sequential stream costs few index records, small
/// enough that four writers of one file spread over chains early.
pub const CHUNK_SIZE_DEFAULT: u32 = 4 << 20;
/// Chains that one file uses by default.
pub const STRIPE_DEFAULT: u32 = 8;
/// The largest file whose bytes lie in the namespace: it is made, written and read without a storage node. Such bytes
/// pass through the group's log, so large ones would hold up everybody's names.
pub const INLINE_BYTES_MAX: u32 = 8 << 10;
/// Largest file: 2^32 - 1 chunks of the smallest size, and within `i64` for every size.
pub const FILE_SIZE_MAX: u64 = (u32::MAX as u64) * (CHUNK_SIZE_MIN as u64);
/// Encoded message of one RPC, without its bulk bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 20;
/// Bulk bytes of one RPC: one chunk of the largest size.
pub const BULK_BYTES_MAX: usize = CHUNK_SIZE_MAX as usize;
/// Entries of one directory page.
pub const DIR_PAGE_ENTRIES_MAX: u32 = 1024;
/// Bytes of the name of an extended attribute, of its value, and of all names of an inode with a NUL
/// behind each: as Linux.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
pub const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// A checksum covers this many bytes, so that a small read verifies what it read and no more.
pub const CHECKSUM_BLOCK: u32 = 4 << 10;

const _: () = assert!(CHUNK_SIZE_DEFAULT.is_power_of_two());
const _: () = assert!(CHUNK_SIZE_DEFAULT >= CHUNK_SIZE_MIN && CHUNK_SIZE_DEFAULT <= CHUNK_SIZE_MAX);
const _: () = assert!(FILE_SIZE_MAX <= i64::MAX as u64);
