//! Data: read and write.

use ff2_client::{Result, SharedBuf};
use fuser::{OpenFlags, WriteFlags};

use super::open::file;
use crate::mounted::Mounted;

pub(crate) async fn read(at: &Mounted, handle: u64, offset: u64, size: u32) -> Result<SharedBuf> {
    let bytes = file(at, handle)?.read_at(offset, u64::from(size)).await?;
    at.traffic.read_bytes.inc_by(bytes.len() as u64);
    Ok(bytes)
}

/// Returns how many bytes were written. All of them, if the kernel gave no more than the library
/// takes at once (it asked for less at mount).
pub(crate) async fn write(
    at: &Mounted,
    handle: u64,
    offset: u64,
    bytes: SharedBuf,
    how: WriteFlags,
    flags: OpenFlags,
) -> Result<u32> {
    let file = file(at, handle)?;
    at.known.written(file.inode().0);
    // Mapped pages have their place also in a file that is open to append.
    let append = flags.0 & libc::O_APPEND != 0 && !how.contains(WriteFlags::FUSE_WRITE_CACHE);
    let written = if append {
        file.append_buf(bytes).await?
    } else {
        file.write_buf_exact(offset, bytes).await?
    };
    at.traffic.written_bytes.inc_by(written as u64);
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}
