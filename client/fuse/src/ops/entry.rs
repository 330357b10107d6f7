//! Entries and attributes: lookup, getattr, setattr, readlink, access, statfs.

use ff2_client::{Caller, Code, InodeId, ROOT_INODE, Result, Status, pb};
use fuser::FileAttr;
use tokio::time::timeout;

use crate::{
    attr::{Change, file_attr},
    limits,
    mounted::Mounted,
};

/// An entry for the kernel; it takes a reference. `None`: there is no such name.
pub(crate) async fn lookup(
    at: &Mounted,
    caller: &Caller,
    parent: u64,
    name: &[u8],
) -> Result<Option<pb::Attr>> {
    match caller.lookup(InodeId(parent), name).await {
        Ok(attr) => {
            at.known.looked_up(attr.inode);
            Ok(Some(attr))
        }
        Err(failure) if failure.code == Code::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

pub(crate) async fn getattr(at: &Mounted, caller: &Caller, inode: u64) -> Result<FileAttr> {
    let ask = caller.get_attr(InodeId(inode));
    if inode != ROOT_INODE.0 {
        return Ok(at.tell(&ask.await?));
    }
    let mut ask = std::pin::pin!(ask);
    let answer = match timeout(limits::ROOT_PATIENCE, &mut ask).await {
        Ok(answer) => answer?,
        Err(_) => match at.last.lock().root {
            // The kernel asks again after the cache time.
            Some(known) => return Ok(file_attr(&known)),
            None => return Err(silent()),
        },
    };
    at.last.lock().root = Some(answer);
    Ok(at.tell(&answer))
}

fn silent() -> Status {
    Status::new(Code::Timeout, "the namespace does not answer")
}

pub(crate) async fn setattr(
    at: &Mounted,
    caller: &Caller,
    inode: u64,
    change: Change,
    handle: Option<u64>,
) -> Result<FileAttr> {
    let file = handle.and_then(|handle| at.files.get(handle));
    let by_handle = change.size.is_some()
        && file.is_some_and(|file| file.how().write && file.inode().0 == inode);
    if change.size.is_some() {
        at.known.written(inode);
    }
    let attr = caller.set_attr(InodeId(inode), change.into_change(by_handle)).await?;
    Ok(at.tell(&attr))
}

/// What statvfs shows, in blocks of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
    pub(crate) free_files: u64,
}

pub(crate) const SPACE_BLOCK: u32 = 4096;

pub(crate) async fn statfs(at: &Mounted, caller: &Caller) -> Result<Space> {
    let Ok(answer) = timeout(limits::ROOT_PATIENCE, caller.stat_fs()).await else {
        return at.last.lock().space.ok_or_else(silent);
    };
    let stat = answer?;
    let block = u64::from(SPACE_BLOCK);
    let free = stat.available_bytes / block;
    let space = Space {
        blocks: stat.capacity_bytes / block,
        free,
        files: stat.inodes_used.saturating_add(free),
        // Inodes are made as needed: there is room for as many as there are blocks.
        free_files: free,
    };
    at.last.lock().space = Some(space);
    Ok(space)
}
