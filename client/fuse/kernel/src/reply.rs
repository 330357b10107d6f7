//! Answers, in the kernel's form.

use std::time::Duration;

use ff2_fabric::SharedBuf;
use zerocopy::IntoBytes;

use crate::{
    abi::{self, AttrRecord},
    listing::Listing,
};

/// A number of errno(3), positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const EINTR: Self = Self(libc::EINTR);
    pub const EIO: Self = Self(libc::EIO);
    pub const ENOENT: Self = Self(libc::ENOENT);
    pub const ENOSYS: Self = Self(libc::ENOSYS);
    pub const ENOTTY: Self = Self(libc::ENOTTY);
    pub const ERANGE: Self = Self(libc::ERANGE);
}

/// What an inode is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    pub inode: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Nanoseconds since 1970, as the others.
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub btime_ns: i64,
    /// Kind and permissions, as `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub block_bytes: u32,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub attr: Attr,
    pub generation: u64,
    /// How long the kernel may trust the name, and how long the attributes.
    pub name_ttl: Duration,
    pub attr_ttl: Duration,
}

/// What statvfs(3) shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub blocks: u64,
    pub blocks_free: u64,
    pub files: u64,
    pub files_free: u64,
    pub block_bytes: u32,
    pub name_bytes_max: u32,
}

/// An answer. Bytes are not copied into it.
#[derive(Debug)]
pub struct Reply {
    /// 0, or a negative number.
    pub(crate) error: i32,
    pub(crate) head: Vec<u8>,
    pub(crate) pieces: Vec<SharedBuf>,
}

impl Reply {
    pub fn error(errno: Errno) -> Self {
        // What the kernel would take for a bug of ours is an I/O error.
        let known = (1..512).contains(&errno.0);
        Self { error: if known { -errno.0 } else { -libc::EIO }, ..Self::empty() }
    }

    /// Success, and nothing to tell.
    pub fn empty() -> Self {
        Self { error: 0, head: Vec::new(), pieces: Vec::new() }
    }

    /// A few bytes: a link's target, an extended attribute.
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self { head: bytes, ..Self::empty() }
    }

    /// Bytes of a file, in order.
    pub fn data(pieces: Vec<SharedBuf>) -> Self {
        Self { pieces, ..Self::empty() }
    }

    pub fn entry(entry: &Entry) -> Self {
        Self::bytes(entry.record().as_bytes().to_vec())
    }

    /// There is no such name, which the kernel may remember.
    pub fn no_entry(ttl: Duration) -> Self {
        let attr_ttl = Duration::ZERO;
        Self::entry(&Entry { attr: Attr::default(), generation: 0, name_ttl: ttl, attr_ttl })
    }

    pub fn attr(attr: &Attr, ttl: Duration) -> Self {
        let (valid_s, valid_ns) = (ttl.as_secs(), ttl.subsec_nanos());
        let out = abi::AttrOut { valid_s, valid_ns, dummy: 0, attr: attr.record() };
        Self::bytes(out.as_bytes().to_vec())
    }

    /// With the time of birth.
    pub fn statx(attr: &Attr, ttl: Duration) -> Self {
        let (valid_s, valid_ns) = (ttl.as_secs(), ttl.subsec_nanos());
        let stat = attr.statx_record();
        let out = abi::StatxOut { valid_s, valid_ns, flags: 0, spare: [0; 2], stat };
        Self::bytes(out.as_bytes().to_vec())
    }

    /// `flags`: of [`crate::open`].
    pub fn opened(handle: u64, flags: u32) -> Self {
        Self::bytes(abi::OpenOut { handle, flags, backing: 0 }.as_bytes().to_vec())
    }

    pub fn created(entry: &Entry, handle: u64, flags: u32) -> Self {
        let mut reply = Self::entry(entry);
        reply.head.extend_from_slice(abi::OpenOut { handle, flags, backing: 0 }.as_bytes());
        reply
    }

    pub fn written(bytes: u32) -> Self {
        Self::bytes(abi::WriteOut { size: bytes, padding: 0 }.as_bytes().to_vec())
    }

    pub fn space(space: &Space) -> Self {
        let out = abi::StatFsOut {
            blocks: space.blocks,
            blocks_free: space.blocks_free,
            blocks_available: space.blocks_free,
            files: space.files,
            files_free: space.files_free,
            block_bytes: space.block_bytes,
            name_bytes_max: space.name_bytes_max,
            fragment_bytes: space.block_bytes,
            padding: 0,
            spare: [0; 6],
        };
        Self::bytes(out.as_bytes().to_vec())
    }

    /// A value of an extended attribute, or their names, for who has room for `size` bytes; 0 asks how
    /// much room is needed.
    pub fn xattr(value: Vec<u8>, size: u32) -> Self {
        match u32::try_from(value.len()) {
            Ok(needed) if size == 0 => {
                let out = abi::GetXattrOut { size: needed, padding: 0 };
                Self::bytes(out.as_bytes().to_vec())
            }
            Ok(needed) if needed <= size => Self::bytes(value),
            _ => Self::error(Errno::ERANGE),
        }
    }

    /// The lock that stands in the way, or one of kind `F_UNLCK`.
    pub fn lock(start: u64, end: u64, kind: i32, pid: u32) -> Self {
        let out = abi::LockOut { start, end, kind: kind.cast_unsigned(), pid };
        Self::bytes(out.as_bytes().to_vec())
    }

    pub fn sought(offset: u64) -> Self {
        Self::bytes(abi::SeekOut { offset }.as_bytes().to_vec())
    }

    pub fn listing(listing: Listing) -> Self {
        Self::bytes(listing.into_bytes())
    }

    /// Bytes behind the header.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.pieces.iter().map(|piece| piece.len()).sum::<usize>()
    }
}

impl Entry {
    /// How long the kernel keeps anything of it.
    pub fn kept(&self) -> Duration {
        self.name_ttl.max(self.attr_ttl)
    }

    pub(crate) fn record(&self) -> abi::EntryOut {
        abi::EntryOut {
            inode: self.attr.inode,
            generation: self.generation,
            entry_valid_s: self.name_ttl.as_secs(),
            attr_valid_s: self.attr_ttl.as_secs(),
            entry_valid_ns: self.name_ttl.subsec_nanos(),
            attr_valid_ns: self.attr_ttl.subsec_nanos(),
            attr: self.attr.record(),
        }
    }
}

/// Seconds, and the nanoseconds after them.
fn split(ns: i64) -> (i64, u32) {
    const SECOND: i64 = 1_000_000_000;
    (ns.div_euclid(SECOND), u32::try_from(ns.rem_euclid(SECOND)).expect("below a second"))
}

impl Attr {
    pub(crate) fn record(&self) -> AttrRecord {
        let (atime, atime_ns) = split(self.atime_ns);
        let (mtime, mtime_ns) = split(self.mtime_ns);
        let (ctime, ctime_ns) = split(self.ctime_ns);
        AttrRecord {
            inode: self.inode,
            size: self.size,
            blocks: self.blocks,
            atime,
            mtime,
            ctime,
            atime_ns,
            mtime_ns,
            ctime_ns,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            block_bytes: self.block_bytes,
            flags: 0,
        }
    }

    fn statx_record(&self) -> abi::StatxRecord {
        let time = |ns| {
            let (s, ns) = split(ns);
            abi::SxTime { s, ns, reserved: 0 }
        };
        let device = u64::from(self.rdev);
        abi::StatxRecord {
            mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
            block_bytes: self.block_bytes,
            attributes: 0,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            mode: u16::try_from(self.mode & 0xffff).expect("16 bits"),
            spare0: 0,
            inode: self.inode,
            size: self.size,
            blocks: self.blocks,
            attributes_mask: 0,
            atime: time(self.atime_ns),
            btime: time(self.btime_ns),
            ctime: time(self.ctime_ns),
            mtime: time(self.mtime_ns),
            rdev_major: libc::major(device),
            rdev_minor: libc::minor(device),
            dev_major: 0,
            dev_minor: 0,
            spare2: [0; 14],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_have_positive_nanoseconds() {
        assert_eq!(split(-1), (-1, 999_999_999));
        assert_eq!(split(1_700_000_000_123_456_789), (1_700_000_000, 123_456_789));
        assert_eq!(split(i64::MIN), (-9_223_372_037, 145_224_192));
    }

    #[test]
    fn numbers_that_are_no_errno_are_io_errors() {
        assert_eq!(Reply::error(Errno::ENOENT).error, -libc::ENOENT);
        for wrong in [0, -5, 512, i32::MIN] {
            assert_eq!(Reply::error(Errno(wrong)).error, -libc::EIO);
        }
    }

    #[test]
    fn an_attribute_goes_to_who_has_room_for_it() {
        assert_eq!(Reply::xattr(vec![7; 5], 0).head, [5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Reply::xattr(vec![7; 5], 5).head, [7; 5]);
        assert_eq!(Reply::xattr(vec![7; 5], 4).error, -libc::ERANGE);
    }

    #[test]
    fn a_birth_is_told_with_everything_else() {
        let attr = Attr { mode: 0o100_644, btime_ns: 3_000_000_004, ..Attr::default() };
        let reply = Reply::statx(&attr, Duration::from_millis(1500));
        assert_eq!(reply.head.len(), 288);
        assert_eq!(reply.head[..12], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0x65, 0xcd, 0x1d]);
        let stat = &reply.head[32..];
        assert_eq!(stat[..4], 0xfff_u32.to_ne_bytes());
        assert_eq!(stat[80..92], [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], "stx_btime");
    }
}
