//! From a descriptor that a program sent to the handle behind it.

use std::{os::fd::BorrowedFd, sync::Arc};

use ff2_client::File;
use ff2_ring::control::Answer;
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, statx};

use crate::mounted::Mounted;

/// A registered file.
#[derive(Debug)]
pub(super) struct RingFile {
    /// As the kernel opened it, or another that allows as much.
    pub(super) file: Arc<File>,
    /// Of `file`: locks that were taken through it are looked after.
    pub(super) handle: u64,
    pub(super) may_read: bool,
    pub(super) may_write: bool,
    /// Writes go to the end.
    pub(super) appends: bool,
    /// Writes are followed by an fsync.
    pub(super) syncs: bool,
}

/// Who has a descriptor has the right that it was opened with. While the program has it open, the kernel
/// has a handle of ours open; the ring keeps what is behind it. The descriptor itself is not kept: it
/// would hold the mount up against an unmount.
pub(super) fn find(
    at: &Mounted,
    device: (u32, u32),
    descriptor: BorrowedFd<'_>,
) -> Result<RingFile, Answer> {
    let system = |errno: rustix::io::Errno| {
        Answer::refusal(errno.raw_os_error(), format!("look at the descriptor: {errno}"))
    };
    let flags = fcntl_getfl(descriptor).map_err(system)?;
    if flags.contains(OFlags::PATH) {
        let why = "a descriptor with O_PATH opens nothing: open the file for reading or writing";
        return Err(Answer::refusal(libc::EBADF, why));
    }
    // Without asking who serves the file, which may be ourselves.
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(descriptor, c"", how, StatxFlags::INO | StatxFlags::TYPE).map_err(system)?;
    if (found.stx_dev_major, found.stx_dev_minor) != device {
        let why = "the file is not on this mount: connect a ring by a path of its own mount";
        return Err(Answer::refusal(libc::EXDEV, why));
    }
    if FileType::from_raw_mode(found.stx_mode.into()) != FileType::RegularFile {
        return Err(Answer::refusal(
            libc::EINVAL,
            "only regular files have bytes to read by a ring",
        ));
    }
    let access = flags & OFlags::ACCMODE;
    let (may_read, may_write) = (access != OFlags::WRONLY, access != OFlags::RDONLY);
    let inode = at.inode_meant(found.stx_ino);
    let is_it = |file: &File| {
        let how = file.how();
        file.inode().0 == inode && (!may_read || how.read) && (!may_write || how.write)
    };
    let Some((handle, file)) = at.files.find(is_it) else {
        let why = "the mount does not know the file as open: open it again";
        return Err(Answer::refusal(libc::ESTALE, why));
    };
    let appends = flags.contains(OFlags::APPEND);
    // rustix means O_SYNC by its DSYNC, of which this is one of two bits.
    let syncs = flags.bits() & libc::O_DSYNC.cast_unsigned() != 0;
    Ok(RingFile { file, handle, may_read, may_write, appends, syncs })
}
