//! Attributes, times and errors in the kernel's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ff2_client::pb::FileKind;
use ff2_client::{AttrChange, NodeKind, Status, TimeChange, pb};
use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};

/// What `stat` shows as the best size of a request.
const BLOCK_BYTES: u32 = 1 << 20;

pub(crate) fn file_attr(attr: &pb::Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.inode),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time(attr.atime_ns),
        mtime: time(attr.mtime_ns),
        ctime: time(attr.ctime_ns),
        crtime: time(attr.btime_ns),
        kind: file_type(attr.kind()),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev as u32,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// "No such name", to be remembered by the kernel: an entry with inode 0.
pub(crate) fn no_attr() -> FileAttr {
    file_attr(&pb::Attr { kind: FileKind::Regular.into(), ..pb::Attr::default() })
}

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular | FileKind::KindUnknown => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// What mknod(2) asks for.
pub(crate) fn node_kind(mode: u32, rdev: u32) -> Option<NodeKind> {
    let rdev = u64::from(rdev);
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(NodeKind::Regular),
        libc::S_IFIFO => Some(NodeKind::Fifo),
        libc::S_IFSOCK => Some(NodeKind::Socket),
        libc::S_IFCHR => Some(NodeKind::CharDevice { rdev }),
        libc::S_IFBLK => Some(NodeKind::BlockDevice { rdev }),
        _ => None,
    }
}

/// What setattr asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

impl Change {
    pub(crate) fn into_change(self, by_handle: bool) -> AttrChange {
        AttrChange {
            mode: self.mode.map(|mode| mode & 0o7777),
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            atime: self.atime.map(time_change),
            mtime: self.mtime.map(time_change),
            by_handle,
            drop_privileges: false,
        }
    }
}

fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::At(nanoseconds(time)),
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let clamp = |since: Duration| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => clamp(since),
        Err(before) => -clamp(before.duration()),
    }
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

pub(crate) fn errno(failure: &Status) -> Errno {
    Errno::from_i32(failure.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_both_ways() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, -6_213_559_680_000_000_001] {
            assert_eq!(nanoseconds(time(ns)), ns);
        }
    }

    #[test]
    fn kinds_are_those_of_the_mode() {
        assert_eq!(node_kind(libc::S_IFREG | 0o644, 0), Some(NodeKind::Regular));
        assert_eq!(node_kind(0o644, 0), Some(NodeKind::Regular));
        assert_eq!(node_kind(libc::S_IFIFO, 0), Some(NodeKind::Fifo));
        let device = node_kind(libc::S_IFCHR, 259);
        assert_eq!(device, Some(NodeKind::CharDevice { rdev: 259 }));
        assert_eq!(node_kind(libc::S_IFDIR, 0), None, "mkdir(2) makes directories");
    }
}
