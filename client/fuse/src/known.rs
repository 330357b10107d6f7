//! Which inodes the kernel knows, and at which version its cached pages of each are current.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Inodes with a kernel reference. As bounded as the kernel's own cache: it forgets, we forget.
#[derive(Debug, Default)]
pub(crate) struct Known {
    inodes: Mutex<BTreeMap<u64, Inode>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Inode {
    lookups: u64,
    /// The inode's version when a reader last opened it: the pages are not older, and as long as the
    /// version stands they are not newer.
    pages_of: Option<u64>,
}

impl Known {
    /// The kernel takes a reference by the entry that is being answered.
    pub(crate) fn looked_up(&self, inode: u64) {
        self.inodes.lock().entry(inode).or_default().lookups += 1;
    }

    pub(crate) fn forget(&self, inode: u64, lookups: u64) {
        let mut inodes = self.inodes.lock();
        let Some(known) = inodes.get_mut(&inode) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0 {
            inodes.remove(&inode);
        }
    }

    /// Somebody opens the inode at this version: may the kernel's pages stay?
    pub(crate) fn opened(&self, inode: u64, version: u64) -> bool {
        let mut inodes = self.inodes.lock();
        let Some(known) = inodes.get_mut(&inode) else { return false };
        let keep = known.pages_of == Some(version);
        known.pages_of = Some(version);
        keep
    }

    /// The inode is written here, beside whatever others write: its version says nothing any more.
    pub(crate) fn written(&self, inode: u64) {
        if let Some(known) = self.inodes.lock().get_mut(&inode) {
            known.pages_of = None;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.inodes.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_only_while_the_version_stands() {
        let known = Known::default();
        assert!(!known.opened(5, 1), "an unknown inode has no pages");
        known.looked_up(5);
        assert!(!known.opened(5, 1));
        assert!(known.opened(5, 1));
        assert!(!known.opened(5, 2), "it changed");
        assert!(known.opened(5, 2));
        known.written(5);
        assert!(!known.opened(5, 2));
    }

    #[test]
    fn what_the_kernel_forgets_is_forgotten() {
        let known = Known::default();
        known.looked_up(5);
        known.looked_up(5);
        known.forget(5, 1);
        assert_eq!(known.count(), 1);
        known.forget(5, 9);
        assert_eq!(known.count(), 0);
        known.forget(6, 1);
    }
}
