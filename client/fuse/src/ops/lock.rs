//! Locks: `flock`, and byte ranges of processes and open files.

use std::future::Future;

use ff2_client::{Caller, InodeId, LockRange, LockWait, Result};

use super::open::file;
use crate::mounted::Mounted;

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) inode: u64,
    pub(crate) handle: u64,
    pub(crate) range: LockRange,
}

/// What stands against a lock, if anything does.
pub(crate) async fn get(caller: &Caller, asked: Asked) -> Result<Option<LockRange>> {
    caller.lock_conflict(InodeId(asked.inode), asked.range).await
}

/// Takes a lock at once, or fails.
pub(crate) async fn try_set(at: &Mounted, caller: &Caller, asked: Asked) -> Result<()> {
    note(at, asked).await?;
    let outcome = caller.try_lock(InodeId(asked.inode), asked.range).await;
    forget_unless_held(at, caller, asked);
    see_anew(at, asked, outcome?.version).await;
    Ok(())
}

/// Waits for a lock. `false`: it was given up.
pub(crate) async fn set(
    at: &Mounted,
    caller: &Caller,
    asked: Asked,
    give_up: impl Future<Output = ()>,
) -> Result<bool> {
    note(at, asked).await?;
    let outcome = caller.lock(InodeId(asked.inode), asked.range, give_up).await;
    forget_unless_held(at, caller, asked);
    match outcome? {
        LockWait::Granted => {
            let version = caller.get_attr(InodeId(asked.inode)).await?.version;
            see_anew(at, asked, version).await;
            Ok(true)
        }
        LockWait::GivenUp => Ok(false),
    }
}

/// A handle whose locks were lost takes no new ones.
async fn note(at: &Mounted, asked: Asked) -> Result<()> {
    file(at, asked.handle)?;
    at.lock_owners.check(&at.client, asked.handle).await?;
    let losses = at.client.lock_losses().await?;
    let owner = (asked.range.flock, asked.range.owner);
    at.lock_owners.asks(asked.handle, asked.inode, owner, losses);
    Ok(())
}

fn forget_unless_held(at: &Mounted, caller: &Caller, asked: Asked) {
    let LockRange { flock, owner, .. } = asked.range;
    if !caller.may_hold_lock(InodeId(asked.inode), owner, flock) {
        at.lock_owners.ended(asked.inode, flock, owner);
    }
}

/// Whoever takes a lock wants to see what the one before wrote under it.
async fn see_anew(at: &Mounted, asked: Asked, version: u64) {
    let told = at.known.opened(asked.inode, version, false);
    if !told.keep_pages {
        at.drop_pages(asked.inode).await;
        at.known.has_pages(asked.inode, told.pages);
    } else if told.drop_attr {
        at.drop_attr(asked.inode);
    }
}

pub(crate) async fn unlock(at: &Mounted, caller: &Caller, asked: Asked) -> Result<()> {
    caller.unlock(InodeId(asked.inode), asked.range).await?;
    forget_unless_held(at, caller, asked);
    Ok(())
}

/// The kernel's ranges end at the largest offset at the latest, ours at the largest number.
pub(crate) fn end_from_kernel(end: u64) -> u64 {
    if end >= KERNEL_END { u64::MAX } else { end }
}

pub(crate) fn end_for_kernel(end: u64) -> u64 {
    end.min(KERNEL_END)
}

const KERNEL_END: u64 = i64::MAX as u64;

/// A process closed one of its handles: all its range locks of the file end, as POSIX has it.
pub(crate) async fn flushed(at: &Mounted, caller: &Caller, inode: u64, owner: u64) -> Result<()> {
    at.lock_owners.ended(inode, false, owner);
    caller.unlock_all(InodeId(inode), owner, false).await
}

/// The last one closed a handle: what was locked through it ends.
pub(crate) async fn released(at: &Mounted, caller: &Caller, inode: u64, handle: u64) -> Result<()> {
    let mut outcome = Ok(());
    for (flock, owner) in at.lock_owners.released(handle) {
        outcome = outcome.and(caller.unlock_all(InodeId(inode), owner, flock).await);
    }
    outcome
}
