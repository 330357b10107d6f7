//! What requests carry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* } $bytes:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    )*};
}
pub(crate) use wire;

wire! {
    /// Leads every request.
    InHeader {
        len: u32, opcode: u32, unique: u64, inode: u64, uid: u32, gid: u32, pid: u32,
        extra_words: u16, padding: u16,
    } 40
    /// 64 bytes, of which kernels before 7.36 send 16.
    InitIn {
        major: u32, minor: u32, max_readahead: u32, flags: u32, flags_high: u32, unused: [u32; 11],
    } 64
    ForgetIn { lookups: u64, } 8
    BatchForgetIn { count: u32, dummy: u32, } 8
    ForgetOne { inode: u64, lookups: u64, } 16
    GetAttrIn { flags: u32, dummy: u32, handle: u64, } 16
    StatxIn { flags: u32, reserved: u32, handle: u64, sx_flags: u32, sx_mask: u32, } 24
    SetAttrIn {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64,
        atime: i64, mtime: i64, ctime: i64, atime_ns: u32, mtime_ns: u32, ctime_ns: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    } 88
    MakeNodeIn { mode: u32, rdev: u32, umask: u32, padding: u32, } 16
    MakeDirIn { mode: u32, umask: u32, } 8
    RenameIn { new_parent: u64, } 8
    Rename2In { new_parent: u64, flags: u32, padding: u32, } 16
    LinkIn { inode: u64, } 8
    OpenIn { flags: u32, open_flags: u32, } 8
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, } 16
    ReadIn {
        handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    } 40
    WriteIn {
        handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    } 40
    ReleaseIn { handle: u64, flags: u32, release_flags: u32, lock_owner: u64, } 24
    FsyncIn { handle: u64, flags: u32, padding: u32, } 16
    /// The long form, which INIT asks for.
    SetXattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32, } 16
    GetXattrIn { size: u32, padding: u32, } 8
    FlushIn { handle: u64, unused: u32, padding: u32, lock_owner: u64, } 24
    LockIn {
        handle: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, lock_flags: u32,
        padding: u32,
    } 48
    AccessIn { mask: u32, padding: u32, } 8
    InterruptIn { unique: u64, } 8
    AllocateIn { handle: u64, offset: u64, length: u64, mode: u32, padding: u32, } 32
    SeekIn { handle: u64, offset: u64, whence: u32, padding: u32, } 24
    CopyRangeIn {
        handle_in: u64, offset_in: u64, inode_out: u64, handle_out: u64, offset_out: u64,
        length: u64, flags: u64,
    } 56
    IoctlIn {
        handle: u64, flags: u32, command: u32, argument: u64, in_size: u32, out_size: u32,
    } 32
}
