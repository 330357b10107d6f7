//! Attributes: getattr, setattr, readlink, access, statfs.

use std::future::Future;

use ff2_client::{Caller, InodeId, Result, pb};
use ff2_fuse_kernel::{SetAttr, Space};
use tokio::time::timeout;

use crate::{attr::attr_change, limits, mounted::Mounted};

pub(crate) async fn getattr(at: &Mounted, caller: &Caller, inode: u64) -> Result<pb::Attr> {
    if inode != at.root.0 {
        return caller.get_attr(InodeId(inode)).await;
    }
    let known = at.last.lock().root;
    // Apart: it is rare, and would make the other as large as both.
    let attr = Box::pin(unless_silent(caller.get_attr(InodeId(inode)), known)).await?;
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
    asked: SetAttr,
) -> Result<pb::Attr> {
    let file = asked.handle.and_then(|handle| at.files.get(handle));
    let by_handle = asked.size.is_some()
        && file.is_some_and(|file| file.how().write && file.inode().0 == inode);
    if asked.size.is_some() {
        at.known.written(inode);
    }
    caller.set_attr(InodeId(inode), attr_change(&asked, by_handle)).await
}

/// What sizes of the whole are told in.
const SPACE_BLOCK: u32 = 4096;

pub(crate) async fn statfs(at: &Mounted, caller: &Caller, inode: InodeId) -> Result<Space> {
    let known = at.last.lock().space;
    let space = Box::pin(unless_silent(ask_space(caller, inode), known)).await?;
    at.last.lock().space = Some(space);
    Ok(space)
}

async fn ask_space(caller: &Caller, inode: InodeId) -> Result<Space> {
    let stat = caller.stat_fs(inode).await?;
    let block = u64::from(SPACE_BLOCK);
    let blocks_free = stat.available_bytes / block;
    // Inodes are made as needed: there is room for as many as there are blocks, unless a quota says less.
    let inodes_left = stat.inodes_max.map(|max| max.saturating_sub(stat.inodes_used));
    let files_free = inodes_left.unwrap_or(blocks_free);
    Ok(Space {
        blocks: stat.capacity_bytes / block,
        blocks_free,
        files: stat.inodes_used.saturating_add(files_free),
        files_free,
        block_bytes: SPACE_BLOCK,
        name_bytes_max: ff2_proto::limits::NAME_BYTES_MAX as u32,
    })
}
