//! Attributes: getattr, setattr, readlink, access, statfs.

use std::future::Future;

use ff2_client::{Caller, InodeId, Result, pb};
use tokio::time::timeout;

use crate::{attr::Change, limits, mounted::Mounted};

pub(crate) async fn getattr(at: &Mounted, caller: &Caller, inode: u64) -> Result<pb::Attr> {
    let ask = caller.get_attr(InodeId(inode));
    if inode != at.root.0 {
        return ask.await;
    }
    let known = at.last.lock().root;
    let attr = unless_silent(ask, known).await?;
    at.last.lock().root = Some(attr);
    Ok(attr)
}

/// The namespace's answer, or, if it does not come soon, what it said before. If it said nothing yet
/// there is nothing but to wait.
async fn unless_silent<T>(ask: impl Future<Output = Result<T>>, known: Option<T>) -> Result<T> {
    let mut ask = std::pin::pin!(ask);
    match (timeout(limits::ROOT_PATIENCE, &mut ask).await, known) {
        (Ok(answer), _) => answer,
        (Err(_), Some(known)) => Ok(known),
        (Err(_), None) => ask.await,
    }
}

pub(crate) async fn setattr(
    at: &Mounted,
    caller: &Caller,
    inode: u64,
    change: Change,
    handle: Option<u64>,
) -> Result<pb::Attr> {
    let file = handle.and_then(|handle| at.files.get(handle));
    let by_handle = change.size.is_some()
        && file.is_some_and(|file| file.how().write && file.inode().0 == inode);
    if change.size.is_some() {
        at.known.written(inode);
    }
    caller.set_attr(InodeId(inode), change.into_change(by_handle)).await
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
    let known = at.last.lock().space;
    let space = unless_silent(ask_space(caller), known).await?;
    at.last.lock().space = Some(space);
    Ok(space)
}

async fn ask_space(caller: &Caller) -> Result<Space> {
    let stat = caller.stat_fs().await?;
    let block = u64::from(SPACE_BLOCK);
    let free = stat.available_bytes / block;
    Ok(Space {
        blocks: stat.capacity_bytes / block,
        free,
        files: stat.inodes_used.saturating_add(free),
        // Inodes are made as needed: there is room for as many as there are blocks.
        free_files: free,
    })
}
