//! Which inodes the kernel knows, and at which version its cached attributes and pages of each are.

use std::{collections::BTreeMap, time::Instant};

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
    /// Times that it was written here, or opened for it.
    writes: u64,
    /// The version whose attributes the kernel was told last.
    attr_of: Option<u64>,
    /// Until when it may go by what it was told of extended attributes and ACLs, and which there are.
    extras: Option<(Instant, u32)>,
    /// Somebody opened it here.
    was_open: bool,
}

/// What a reader's pages are of, if nothing is written meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    version: u64,
    writes: u64,
}

/// What the kernel must drop when an inode is opened at some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Its pages are of this version.
    pub(crate) keep_pages: bool,
    /// Its attributes are of another one: who opens a file after its writer closed it must see its
    /// length now, not after the cache time.
    pub(crate) drop_attr: bool,
    /// For [`Known::has_pages`].
    pub(crate) pages: Option<Pages>,
}

impl Known {
    /// Beside what it looks up the kernel knows the root.
    pub(crate) fn new(root: u64) -> Self {
        let known = Self::default();
        known.looked_up(root);
        known
    }

    /// The kernel is told the attributes of this version, to be trusted until then.
    pub(crate) fn told(&self, inode: u64, version: u64, extras: u32, until: Instant) {
        if let Some(known) = self.inodes.lock().get_mut(&inode) {
            known.attr_of = Some(version);
            known.extras = Some((until, extras));
        }
    }

    /// What it was told is to be trusted no longer than that.
    pub(crate) fn trusted_until(&self, inode: u64, at_most: Instant) {
        if let Some(known) = self.inodes.lock().get_mut(&inode)
            && let Some((until, _)) = &mut known.extras
        {
            *until = at_most.min(*until);
        }
    }

    /// What extended attributes and ACLs an inode has, as long as the kernel may trust the mode by which
    /// it judges.
    pub(crate) fn extras(&self, inode: u64) -> Option<u32> {
        let inodes = self.inodes.lock();
        let (until, extras) = inodes.get(&inode)?.extras?;
        (Instant::now() < until).then_some(extras)
    }

    /// Another mount changes it.
    pub(crate) fn invalidated(&self, inode: u64) {
        if let Some(known) = self.inodes.lock().get_mut(&inode) {
            known.attr_of = None;
            known.extras = None;
        }
    }

    pub(crate) fn has(&self, inode: u64) -> bool {
        self.inodes.lock().contains_key(&inode)
    }

    /// All of them.
    pub(crate) fn inodes(&self) -> Vec<u64> {
        self.inodes.lock().keys().copied().collect()
    }

    pub(crate) fn may_have_pages(&self, inode: u64) -> bool {
        self.inodes.lock().get(&inode).is_some_and(|known| known.was_open)
    }

    /// They changed here.
    pub(crate) fn extras_changed(&self, inode: u64) {
        if let Some(known) = self.inodes.lock().get_mut(&inode) {
            known.extras = None;
        }
    }

    /// The kernel takes a reference by the entry that is being answered.
    pub(crate) fn looked_up(&self, inode: u64) {
        self.inodes.lock().entry(inode).or_default().lookups += 1;
    }

    /// The kernel gives references back. True: it knows the inode no more.
    pub(crate) fn forget(&self, inode: u64, lookups: u64) -> bool {
        let mut inodes = self.inodes.lock();
        let Some(known) = inodes.get_mut(&inode) else { return true };
        known.lookups = known.lookups.saturating_sub(lookups);
        let is_gone = known.lookups == 0;
        if is_gone {
            inodes.remove(&inode);
        }
        is_gone
    }

    /// Somebody opens the inode at this version.
    pub(crate) fn opened(&self, inode: u64, version: u64, to_write: bool) -> Opened {
        let mut inodes = self.inodes.lock();
        let Some(known) = inodes.get_mut(&inode) else {
            return Opened { keep_pages: false, drop_attr: false, pages: None };
        };
        known.was_open = true;
        if to_write {
            known.written();
        }
        let keep_pages = known.pages_of == Some(version);
        let drop_attr = known.attr_of.is_some_and(|told| told != version);
        if drop_attr {
            known.attr_of = None;
        }
        let pages = (!to_write).then_some(Pages { version, writes: known.writes });
        Opened { keep_pages, drop_attr, pages }
    }

    /// The kernel has the answer to an open, and has dropped its older pages by it.
    pub(crate) fn has_pages(&self, inode: u64, pages: Option<Pages>) {
        let mut inodes = self.inodes.lock();
        let known = inodes.get_mut(&inode);
        if let (Some(known), Some(pages)) = (known, pages)
            && known.writes == pages.writes
        {
            known.pages_of = Some(pages.version);
        }
    }

    /// The inode is written here.
    pub(crate) fn written(&self, inode: u64) {
        if let Some(known) = self.inodes.lock().get_mut(&inode) {
            known.written();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.inodes.lock().len()
    }
}

impl Inode {
    /// Written here, beside whatever others write: its version says nothing any more.
    fn written(&mut self) {
        self.was_open = true;
        self.writes += 1;
        self.pages_of = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_only_while_the_version_stands() {
        let known = Known::default();
        let keeps = |version| {
            let opened = known.opened(5, version, false);
            known.has_pages(5, opened.pages);
            opened.keep_pages
        };
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
    fn pages_are_dropped_by_the_answer_and_not_before() {
        let known = Known::default();
        known.looked_up(5);
        let first = known.opened(5, 1, false);
        assert!(!known.opened(5, 1, false).keep_pages, "the first was not answered yet");
        known.has_pages(5, first.pages);
        let second = known.opened(5, 1, false);
        assert!(second.keep_pages);
        known.written(5);
        known.has_pages(5, second.pages);
        assert!(!known.opened(5, 1, false).keep_pages, "written between open and answer");
    }

    #[test]
    fn attributes_go_when_the_version_is_another() {
        let known = Known::new(1);
        let drops = |version| known.opened(1, version, false).drop_attr;
        assert!(!drops(3), "the kernel has none");
        known.told(1, 3, 0, Instant::now());
        assert!(!drops(3));
        assert!(drops(4));
        assert!(!drops(4), "they are gone");
    }

    #[test]
    fn extras_are_known_for_a_while() {
        let known = Known::new(1);
        let long = Instant::now() + std::time::Duration::from_secs(60);
        assert_eq!(known.extras(1), None);
        known.told(1, 3, 5, long);
        assert_eq!(known.extras(1), Some(5));
        known.trusted_until(1, Instant::now());
        assert_eq!(known.extras(1), None);
        known.told(1, 3, 5, long);
        known.extras_changed(1);
        assert_eq!(known.extras(1), None);
        known.told(1, 3, 5, long);
        known.invalidated(1);
        assert_eq!(known.extras(1), None);
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
        assert!(known.forget(6, 1));
        assert!(!known.has(5));
    }
}
