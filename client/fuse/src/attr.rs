//! Attributes, kinds and errors in the kernel's words.

use ff2_client::{AttrChange, NodeKind, Status, TimeChange, pb, pb::FileKind};
use ff2_fuse_kernel::{Attr, Errno, SetAttr, SetTime};

/// What `stat` shows as the best size of a request.
const BLOCK_BYTES: u32 = 1 << 20;

pub(crate) fn kernel_attr(attr: &pb::Attr) -> Attr {
    Attr {
        inode: attr.inode,
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime_ns: attr.atime_ns,
        mtime_ns: attr.mtime_ns,
        ctime_ns: attr.ctime_ns,
        btime_ns: attr.btime_ns,
        mode: kind_mode(attr.kind()) | (attr.mode & 0o7777),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev as u32,
        block_bytes: BLOCK_BYTES,
    }
}

/// The kind as `st_mode` has it.
pub(crate) fn kind_mode(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular | FileKind::KindUnknown => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
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

/// What a SETATTR asks for; `by_handle`: through a file that is open for writing.
pub(crate) fn attr_change(asked: &SetAttr, by_handle: bool) -> AttrChange {
    AttrChange {
        mode: asked.mode.map(|mode| mode & 0o7777),
        uid: asked.uid,
        gid: asked.gid,
        size: asked.size,
        atime: asked.atime.map(time_change),
        mtime: asked.mtime.map(time_change),
        by_handle,
        drop_privileges: false,
    }
}

fn time_change(time: SetTime) -> TimeChange {
    match time {
        SetTime::Now => TimeChange::Now,
        SetTime::At(ns) => TimeChange::At(ns),
    }
}

pub(crate) fn errno(failure: &Status) -> Errno {
    Errno(failure.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

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
