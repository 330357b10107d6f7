//! What answers and notifications carry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::args::wire;

wire! {
    /// Leads every answer; a notification has `unique` 0 and its code as `error`.
    OutHeader { len: u32, error: i32, unique: u64, } 16
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_granularity_ns: u32, max_pages: u16,
        map_alignment: u16, flags_high: u32, max_stack_depth: u32, request_timeout_s: u16,
        unused: [u16; 11],
    } 64
    AttrRecord {
        inode: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64, atime_ns: u32,
        mtime_ns: u32, ctime_ns: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        block_bytes: u32, flags: u32,
    } 88
    AttrOut { valid_s: u64, valid_ns: u32, dummy: u32, attr: AttrRecord, } 104
    EntryOut {
        inode: u64, generation: u64, entry_valid_s: u64, attr_valid_s: u64, entry_valid_ns: u32,
        attr_valid_ns: u32, attr: AttrRecord,
    } 128
    SxTime { s: i64, ns: u32, reserved: i32, } 16
    StatxRecord {
        mask: u32, block_bytes: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare0: u16, inode: u64, size: u64, blocks: u64, attributes_mask: u64, atime: SxTime,
        btime: SxTime, ctime: SxTime, mtime: SxTime, rdev_major: u32, rdev_minor: u32,
        dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    } 256
    StatxOut { valid_s: u64, valid_ns: u32, flags: u32, spare: [u64; 2], stat: StatxRecord, } 288
    OpenOut { handle: u64, flags: u32, backing: i32, } 16
    WriteOut { size: u32, padding: u32, } 8
    StatFsOut {
        blocks: u64, blocks_free: u64, blocks_available: u64, files: u64, files_free: u64,
        block_bytes: u32, name_bytes_max: u32, fragment_bytes: u32, padding: u32, spare: [u32; 6],
    } 80
    GetXattrOut { size: u32, padding: u32, } 8
    LockOut { start: u64, end: u64, kind: u32, pid: u32, } 24
    SeekOut { offset: u64, } 8
    /// Leads a name of a listing; the next one begins at a multiple of 8 bytes.
    DirEntry { inode: u64, offset: u64, name_bytes: u32, kind: u32, } 24
    InvalInodeOut { inode: u64, offset: i64, length: i64, } 24
    InvalEntryOut { parent: u64, name_bytes: u32, flags: u32, } 16
    DeleteOut { parent: u64, child: u64, name_bytes: u32, padding: u32, } 24
    StoreOut { inode: u64, offset: u64, size: u32, padding: u32, } 24
    /// What a ring entry's header says of itself.
    RingEntry { flags: u64, commit_id: u64, payload_bytes: u32, padding: u32, reserved: u64, } 32
    /// What a command on the ring says, in its second half.
    RingCommand { flags: u64, commit_id: u64, queue: u16, padding: [u8; 6], } 24
}
