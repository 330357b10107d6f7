//! Handles of files: open, create, flush, release, fsync.

use std::sync::Arc;

use ff2_client::{Caller, Code, File, InodeId, OpenHow, Result, Status, pb};
use ff2_fuse_kernel::open as fopen;

use crate::{known::Pages, mounted::Mounted, requests::Place};

/// The kernel's own flag of an open that is to run the file (`FMODE_EXEC`).
const OPEN_TO_EXECUTE: i32 = 0x20;

/// How the kernel's flags ask for a file.
pub(crate) fn open_how(flags: i32) -> OpenHow {
    let (read, write) = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => (true, false),
        libc::O_WRONLY => (false, true),
        _ => (true, true),
    };
    let execute = flags & OPEN_TO_EXECUTE != 0;
    OpenHow {
        // Execute permission is enough to run a file, and the kernel then reads it for us.
        read: read && !execute,
        write,
        truncate: flags & libc::O_TRUNC != 0,
        append: flags & libc::O_APPEND != 0,
        create: None,
        exclusive: flags & libc::O_EXCL != 0,
        execute,
    }
}

/// Bypasses the page cache where the kernel's idea of an offset or of the data may not be ours. Readers
/// are flushed too: that is how the kernel tells that the locks of a process end.
fn fopen_flags(flags: i32, keep_cache: bool) -> u32 {
    let mut told = 0;
    // An append goes where the file ends, which only we know: the kernel must not put its bytes
    // into pages at the end that it knows.
    if flags & (libc::O_DIRECT | libc::O_APPEND) != 0 {
        told |= fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES;
    }
    if keep_cache {
        told |= fopen::KEEP_CACHE;
    }
    told
}

/// A file that was opened. It gets its handle when the kernel hears of it: who was killed meanwhile
/// would leave one behind that nobody closes. Dropped, the file is closed.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) flags: u32,
    /// What the kernel's pages are of once it has the answer.
    pub(crate) pages: Option<Pages>,
}

pub(crate) async fn open(at: &Mounted, caller: &Caller, inode: u64, flags: i32) -> Result<Opened> {
    let how = open_how(flags);
    let file = caller.open(InodeId(inode), how).await?;
    let told = at.known.opened(inode, file.known_attr().version, how.write || how.truncate);
    // What the kernel has it reads without us.
    let is_read = told.keep_pages && (how.read || how.execute) && file.accessed();
    if told.drop_attr || is_read {
        at.drop_attr(inode);
    }
    Ok(Opened { file, flags: fopen_flags(flags, told.keep_pages), pages: told.pages })
}

/// A file that was made and opened. It has no handle yet, as [`Opened`].
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) attr: pb::Attr,
    pub(crate) file: File,
    pub(crate) flags: u32,
}

pub(crate) async fn create(
    caller: &Caller,
    place: &Place,
    mode: u32,
    flags: i32,
) -> Result<Created> {
    let how = OpenHow { create: Some(mode & 0o7777), ..open_how(flags) };
    let (file, attr, _) = caller.create(InodeId(place.parent), &place.name, how).await?;
    Ok(Created { attr, file, flags: fopen_flags(flags, false) })
}

/// O_TMPFILE.
pub(crate) async fn create_unnamed(
    caller: &Caller,
    parent: u64,
    mode: u32,
    flags: i32,
) -> Result<Created> {
    let how = OpenHow { create: Some(mode & 0o7777), ..open_how(flags) };
    let (file, attr) = caller.create_unnamed(InodeId(parent), how).await?;
    Ok(Created { attr, file, flags: fopen_flags(flags, false) })
}

pub(crate) fn file(at: &Mounted, handle: u64) -> Result<Arc<File>> {
    at.files
        .get(handle)
        .ok_or_else(|| Status::new(Code::BadHandle, format!("there is no handle {handle}")))
}

/// Lets a handle go. Requests that still use it end first; the last of them closes the file.
pub(crate) async fn release(at: &Mounted, handle: u64) -> Result<()> {
    let Some(file) = at.files.remove(handle) else { return Ok(()) };
    if file.how().write {
        at.known.written(file.inode().0);
    }
    match Arc::try_unwrap(file) {
        Ok(file) => file.close().await,
        Err(shared) => {
            drop(shared);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_ask_for_what_they_say() {
        let how = open_how;
        assert_eq!(how(libc::O_RDONLY), OpenHow::read());
        assert_eq!(how(libc::O_WRONLY | libc::O_TRUNC), OpenHow::write().truncate());
        assert_eq!(how(libc::O_RDWR | libc::O_APPEND), OpenHow::read_write().append());
        let execute = how(libc::O_RDONLY | OPEN_TO_EXECUTE);
        assert!(execute.execute && !execute.read);
    }

    #[test]
    fn appends_and_direct_io_bypass_the_page_cache() {
        let direct = |flags| fopen_flags(flags, false) & fopen::DIRECT_IO != 0;
        assert!(direct(libc::O_WRONLY | libc::O_APPEND));
        assert!(direct(libc::O_RDONLY | libc::O_DIRECT));
        assert!(!direct(libc::O_RDWR));
    }
}
