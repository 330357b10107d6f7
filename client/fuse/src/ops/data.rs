//! Data: read and write.

use std::sync::Arc;

use ff2_client::{Result, SharedBuf};
use fuser::{OpenFlags, WriteFlags};

use super::open::file;
use crate::{copies::Copied, mounted::Mounted};

pub(crate) async fn read(at: &Mounted, handle: u64, offset: u64, size: u32) -> Result<SharedBuf> {
    let bytes = file(at, handle)?.read_at(offset, u64::from(size)).await?;
    at.traffic.read_bytes.inc_by(bytes.len() as u64);
    Ok(bytes)
}

/// Returns how many bytes were written. All of them, if the kernel gave no more than the library
/// takes at once (it asked for less at mount) and no chunk failed.
pub(crate) async fn write(
    at: Arc<Mounted>,
    handle: u64,
    offset: u64,
    copied: Copied,
    how: WriteFlags,
    flags: OpenFlags,
) -> Result<u32> {
    let file = file(&at, handle)?;
    at.known.written(file.inode().0);
    // Pages of a mapping have their place also in a file that is open to append. How many of their
    // bytes were written is nothing that the kernel looks at: it is all of them, or an error.
    let is_pages = how.contains(WriteFlags::FUSE_WRITE_CACHE);
    let is_append = flags.0 & libc::O_APPEND != 0 && !is_pages;
    let mut written = 0;
    loop {
        let rest = copied.bytes.slice(written..);
        written += if is_append {
            file.append_buf(rest).await?
        } else {
            file.write_buf_exact(offset + written as u64, rest).await?
        };
        if !is_pages || written == copied.bytes.len() {
            break;
        }
    }
    at.traffic.written_bytes.inc_by(written as u64);
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}
