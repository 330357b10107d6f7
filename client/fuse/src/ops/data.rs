//! Data: read, write and allocate.

use std::sync::Arc;

use ff2_client::{AttrChange, BufPool, Caller, Code, File, Result, SharedBuf, Status, extras};
use ff2_fuse_kernel::{Read, Write, write};

use super::open::file;
use crate::mounted::Mounted;

/// `room`: where the kernel wants the bytes to be, if it minds.
pub(crate) async fn read(
    at: &Mounted,
    asked: Read,
    room: Option<&Arc<BufPool>>,
) -> Result<Vec<SharedBuf>> {
    at.lock_owners.check(&at.client, asked.handle).await?;
    let file = file(at, asked.handle)?;
    let pieces = file.read_pieces_into(room, asked.offset, u64::from(asked.size)).await?;
    at.traffic.read_bytes.inc_by(pieces.iter().map(|piece| piece.len() as u64).sum());
    Ok(pieces)
}

/// Whether the program may go on before its bytes are on the chains: not if it said that it wants to wait
/// for them, and not if only the chains know where they go.
fn may_be_behind(asked: &Write) -> bool {
    let waits = libc::O_DIRECT | libc::O_SYNC | libc::O_DSYNC | libc::O_APPEND;
    is_pages(asked) || asked.flags & waits == 0
}

/// Pages of a mapping have their place also in a file that is open to append.
fn is_pages(asked: &Write) -> bool {
    asked.how & write::CACHE != 0
}

/// Takes a write in where it was received, if that needs nobody; then it is done, as far as the program
/// sees.
pub(crate) fn write_behind(at: &Mounted, asked: &Write) -> Option<u32> {
    let asks_first = asked.how & write::KILL_SUIDGID != 0 || at.lock_owners.are_of(asked.handle);
    if asks_first || !may_be_behind(asked) {
        return None;
    }
    let file = file(at, asked.handle).ok()?;
    let bytes = &asked.payload.bytes;
    if !file.write_behind(asked.offset, bytes) {
        return None;
    }
    at.known.written(file.inode().0);
    at.traffic.written_bytes.inc_by(bytes.len() as u64);
    u32::try_from(bytes.len()).ok()
}

/// Returns how many bytes were written. All of them, if the kernel gave no more than the library
/// takes at once (it asked for less at mount) and no chunk failed.
pub(crate) async fn write(at: Arc<Mounted>, caller: &Caller, asked: Write) -> Result<u32> {
    let file = file(&at, asked.handle)?;
    at.lock_owners.check(&at.client, asked.handle).await?;
    if asked.how & write::KILL_SUIDGID != 0 {
        drop_privileges(&at, caller, &file).await?;
    }
    at.known.written(file.inode().0);
    // How many bytes of pages were written is nothing that the kernel looks at: it is all of them, or an
    // error.
    let is_pages = is_pages(&asked);
    let is_append = asked.flags & libc::O_APPEND != 0 && !is_pages;
    let bytes = &asked.payload.bytes;
    let mut written = 0;
    if may_be_behind(&asked) && file.write_behind_soon(asked.offset, bytes).await {
        written = bytes.len();
    }
    while written < bytes.len() {
        let rest = bytes.slice(written..);
        written += if is_append {
            file.append_buf(rest).await?
        } else {
            file.write_buf_exact(asked.offset + written as u64, rest).await?
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
pub(crate) async fn drop_privileges(at: &Mounted, caller: &Caller, file: &File) -> Result<()> {
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
