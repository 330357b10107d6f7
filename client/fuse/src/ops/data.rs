//! Data: read and write.

use std::sync::Arc;

use ff2_client::{Code, Result, SharedBuf, Status};
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
///
/// In a task of its own: a write that its process no longer waits for goes on to its end, so that
/// no chunk has bytes which the length of the file does not know.
pub(crate) async fn write(
    at: Arc<Mounted>,
    handle: u64,
    offset: u64,
    bytes: SharedBuf,
    how: WriteFlags,
    flags: OpenFlags,
) -> Result<u32> {
    let file = file(&at, handle)?;
    let (requests, runtime) = (at.requests.clone(), at.runtime.clone());
    let task = async move {
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
    };
    let ended = requests.spawn_on(task, &runtime).await;
    ended.unwrap_or_else(|error| Err(Status::new(Code::Internal, error.to_string())))
}
