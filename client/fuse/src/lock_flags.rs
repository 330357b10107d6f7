//! Whether a lock request is a `flock`: the kernel says so in a flag that fuser 0.18.0 reads and does
//! not hand on.

use fuser::Request;

/// `struct fuse_in_header`: length and opcode lead it.
const HEADER_BYTES: usize = 40;
const OPCODE_AT: usize = 4;
const LOCK_OPCODES: std::ops::RangeInclusive<u32> = 31..=33;
/// `struct fuse_lk_in`, which follows it: handle, owner, range (24 bytes), flags, padding.
const LOCK_BYTES: usize = 48;
const FLAGS_AT: usize = HEADER_BYTES + 40;
const FLAG_FLOCK: u32 = 1;

/// Of a request that fuser's `getlk` or `setlk` was called with.
pub(crate) fn is_flock(request: &Request) -> bool {
    assert_eq!(size_of::<Request>(), HEADER_BYTES, "fuser is another one than 0.18.0");
    let header: *const u8 = std::ptr::from_ref(request).cast();
    let number = |at: usize| {
        // SAFETY: both calls read within the header's 40 bytes, which `request` is.
        unsafe { header.add(at).cast::<u32>().read_unaligned() }
    };
    let is_lock = LOCK_OPCODES.contains(&number(OPCODE_AT));
    if !is_lock || (number(0) as usize) < HEADER_BYTES + LOCK_BYTES {
        return false;
    }
    // SAFETY: `Request` is a view of the header at its place in fuser's read buffer (`ref_cast` of a
    // reference into it, fuser 0.18.0 `RequestWithSender::request_header`), the rest of the message
    // follows it there, and the header says that it is long enough; fuser itself has read these very
    // bytes before it called us. The version is pinned, and the tests of mounts tell `flock` from byte
    // ranges. JUSTIFICATION: without the flag a program that takes both would wait for itself.
    let flags = unsafe { header.add(FLAGS_AT).cast::<u32>().read_unaligned() };
    flags & FLAG_FLOCK != 0
}
