//! Which inodes the kernel knows, and at which version its cached attributes and pages of each are.

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
    /// The version whose attributes the kernel was told last.
    attr_of: Option<u64>,
}

/// What the kernel must drop when an inode is opened at some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Its pages are of this version.
    pub(crate) keep_pages: bool,
    /// Its attributes are of another one: who opens a file after its writer closed it must see its
    /// length now, not after the cache time.
    pub(crate) drop_attr: bool,
}

impl Known {
    /// Beside what it looks up the kernel knows the root.
    pub(crate) fn new(root: u64) -> Self {
        let known = Self::default();
        known.looked_up(root);
        known
    }

    /// The kernel is told the attributes of this version.
    pub(crate) fn told(&self, inode: u64, version: u64) {
        if let Some(known) = self.inodes.lock().get_mut(&inode) {
            known.attr_of = Some(version);
        }
    }

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

    /// Somebody opens the inode at this version.
    pub(crate) fn opened(&self, inode: u64, version: u64, to_write: bool) -> Opened {
        let mut inodes = self.inodes.lock();
        let Some(known) = inodes.get_mut(&inode) else {
            return Opened { keep_pages: false, drop_attr: false };
        };
        let keep_pages = !to_write && known.pages_of == Some(version);
        let drop_attr = known.attr_of.is_some_and(|told| told != version);
        // While it is written here, beside what others may write, its version says nothing.
        known.pages_of = Some(version).filter(|_| !to_write);
        if drop_attr {
            known.attr_of = None;
        }
        Opened { keep_pages, drop_attr }
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
        let keeps = |version| known.opened(5, version, false).keep_pages;
        assert!(!keeps(1), "an unknown inode has no pages");
        known.looked_up(5);
        assert!(!keeps(1));
        assert!(keeps(1));
        assert!(!keeps(2), "it changed");
        assert!(keeps(2));
        known.written(5);
        assert!(!keeps(2));
        assert!(!known.opened(5, 2, true).keep_pages);
        assert!(!keeps(2), "a writer had it");
    }

    #[test]
    fn attributes_go_when_the_version_is_another() {
        let known = Known::new(1);
        let drops = |version| known.opened(1, version, false).drop_attr;
        assert!(!drops(3), "the kernel has none");
        known.told(1, 3);
        assert!(!drops(3));
        assert!(drops(4));
        assert!(!drops(4), "they are gone");
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
