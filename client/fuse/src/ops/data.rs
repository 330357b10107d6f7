//! Data: read, write and allocate.

use std::sync::Arc;

use ff2_client::{AttrChange, Caller, Code, File, Result, SharedBuf, Status, extras};
use fuser::{OpenFlags, WriteFlags};

use super::open::file;
use crate::{copies::Copied, mounted::Mounted};

pub(crate) async fn read(at: &Mounted, handle: u64, offset: u64, size: u32) -> Result<SharedBuf> {
    at.lock_owners.check(&at.client, handle).await?;
    let bytes = file(at, handle)?.read_at(offset, u64::from(size)).await?;
    at.traffic.read_bytes.inc_by(bytes.len() as u64);
    Ok(bytes)
}

/// Whether the program may go on before its bytes are on the chains: not if it said that it wants to wait
/// for them, and not if only the chains know where they go.
fn may_be_behind(flags: OpenFlags, how: WriteFlags) -> bool {
    let is_pages = how.contains(WriteFlags::FUSE_WRITE_CACHE);
    let waits = libc::O_DIRECT | libc::O_SYNC | libc::O_DSYNC | libc::O_APPEND;
    is_pages || flags.0 & waits == 0
}

/// Takes a write in on the thread that read it, if that needs nobody; then it is done, as far as the
/// program sees.
pub(crate) fn write_behind(
    at: &Mounted,
    handle: u64,
    offset: u64,
    bytes: &[u8],
    how: WriteFlags,
    flags: OpenFlags,
) -> Option<u32> {
    let asks_first =
        how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) || at.lock_owners.are_of(handle);
    if asks_first || !may_be_behind(flags, how) {
        return None;
    }
    let file = file(at, handle).ok()?;
    if !file.write_behind(offset, bytes) {
        return None;
    }
    at.known.written(file.inode().0);
    at.traffic.written_bytes.inc_by(bytes.len() as u64);
    u32::try_from(bytes.len()).ok()
}

/// Returns how many bytes were written. All of them, if the kernel gave no more than the library
/// takes at once (it asked for less at mount) and no chunk failed.
pub(crate) async fn write(
    at: Arc<Mounted>,
    caller: &Caller,
    handle: u64,
    offset: u64,
    copied: Copied,
    how: WriteFlags,
    flags: OpenFlags,
) -> Result<u32> {
    let file = file(&at, handle)?;
    at.lock_owners.check(&at.client, handle).await?;
    if how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
        drop_privileges(&at, caller, &file).await?;
    }
    at.known.written(file.inode().0);
    // Pages of a mapping have their place also in a file that is open to append. How many of their
    // bytes were written is nothing that the kernel looks at: it is all of them, or an error.
    let is_pages = how.contains(WriteFlags::FUSE_WRITE_CACHE);
    let is_append = flags.0 & libc::O_APPEND != 0 && !is_pages;
    let mut written = 0;
    if may_be_behind(flags, how) && file.write_behind_soon(offset, &copied.bytes).await {
        written = copied.bytes.len();
    }
    while written < copied.bytes.len() {
        let rest = copied.bytes.slice(written..);
        written += if is_append {
            file.append_buf(rest).await?
        } else {
            file.write_buf_exact(offset + written as u64, rest).await?
        };
        if !is_pages {
            break;
        }
    }
    at.traffic.written_bytes.inc_by(written as u64);
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}

/// A program that somebody without privileges writes to lends its own to nobody any more. The kernel
/// leaves that to us, and says when.
async fn drop_privileges(at: &Mounted, caller: &Caller, file: &File) -> Result<()> {
    let known = file.known_attr();
    let lends = known.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
    if !lends && known.extras & extras::CAPABILITY == 0 {
        return Ok(());
    }
    let change = AttrChange { drop_privileges: true, ..AttrChange::default() };
    let attr = caller.set_attr(file.inode(), change).await?;
    at.known.extras_changed(attr.inode);
    at.drop_attr(attr.inode);
    Ok(())
}

/// `fallocate`: sizes and zeros. Ranges are never moved, and no space is set aside.
pub(crate) async fn allocate(
    at: &Mounted,
    handle: u64,
    offset: u64,
    length: u64,
    mode: i32,
) -> Result<()> {
    let file = file(at, handle)?;
    at.lock_owners.check(&at.client, handle).await?;
    let end = offset
        .checked_add(length)
        .ok_or_else(|| Status::new(Code::FileTooBig, "the range ends above every file"))?;
    let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    at.known.written(file.inode().0);
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => {}
        libc::FALLOC_FL_PUNCH_HOLE if keeps_size => return file.zero_range(offset, length).await,
        libc::FALLOC_FL_ZERO_RANGE => file.zero_range(offset, length).await?,
        _ => return Err(Status::new(Code::Unsupported, "ranges of a file are not moved")),
    }
    if keeps_size { Ok(()) } else { file.extend_to(end).await }
}
