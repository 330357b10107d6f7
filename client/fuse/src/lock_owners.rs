//! Which owners took locks through which handle.
//!
//! The kernel tells the end of a process's locks by a flush with the process's number, and that of a
//! `flock` by the release of its open file. Of an open file description's range locks it tells nothing:
//! they end with the handle that they were taken through. A handle whose locks were lost with the
//! session fails from then on: its program believes that others are kept out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use ff2_client::{Client, Code, Result, Status};
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct LockOwners {
    handles: Mutex<BTreeMap<u64, Handle>>,
    /// How many handles there are above, to be looked at with each read and write.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Handle {
    inode: u64,
    /// (flock, owner)
    owners: BTreeSet<(bool, u64)>,
    /// How many losses there were when its first lock was asked for.
    losses: u64,
}

impl LockOwners {
    /// An owner asks for a lock through the handle.
    pub(crate) fn asks(&self, handle: u64, inode: u64, (flock, owner): (bool, u64), losses: u64) {
        let mut handles = self.handles.lock();
        let new = || Handle { inode, losses, owners: BTreeSet::new() };
        let entry = handles.entry(handle).or_insert_with(new);
        entry.owners.insert((flock, owner));
        self.count.store(handles.len(), Ordering::Release);
    }

    /// The owner has no lock of this kind any more, through whichever handle it took them.
    pub(crate) fn ended(&self, inode: u64, flock: bool, owner: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut handles = self.handles.lock();
        handles.retain(|_, handle| {
            let is_it = handle.inode == inode && handle.owners.remove(&(flock, owner));
            !is_it || !handle.owners.is_empty()
        });
        self.count.store(handles.len(), Ordering::Release);
    }

    /// The handle is closed: those who took locks through it.
    pub(crate) fn released(&self, handle: u64) -> BTreeSet<(bool, u64)> {
        let mut handles = self.handles.lock();
        let gone = handles.remove(&handle);
        self.count.store(handles.len(), Ordering::Release);
        gone.map(|handle| handle.owners).unwrap_or_default()
    }

    /// Whether locks were taken through a handle: then each use of it asks whether they hold.
    pub(crate) fn are_of(&self, handle: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.handles.lock().contains_key(&handle)
    }

    /// Fails for a handle whose locks are gone.
    pub(crate) async fn check(&self, client: &Client, handle: u64) -> Result<()> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let Some(before) = self.handles.lock().get(&handle).map(|entry| entry.losses) else {
            return Ok(());
        };
        if client.lock_losses().await? == before {
            return Ok(());
        }
        Err(Status::new(Code::StaleInode, "the locks of this file were lost with the session"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_those_who_locked_through_it() {
        let owners = LockOwners::default();
        owners.asks(1, 50, (false, 7), 0);
        owners.asks(1, 50, (true, 8), 3);
        owners.asks(2, 50, (false, 7), 3);
        owners.asks(3, 51, (false, 7), 3);
        assert_eq!(owners.handles.lock()[&1].losses, 0, "as of the first");
        owners.ended(50, false, 7);
        assert_eq!(owners.handles.lock().len(), 2, "of another inode, or of another kind");
        assert_eq!(owners.released(1), BTreeSet::from([(true, 8)]));
        assert!(owners.released(1).is_empty());
        owners.ended(51, false, 7);
        assert_eq!(owners.count.load(Ordering::Acquire), 0);
    }
}
