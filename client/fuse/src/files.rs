//! Open handles: the numbers that the kernel holds for files and directories.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ff2_client::{File, pb};
use parking_lot::RwLock;

/// Handles of one kind. As many as processes have open.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<BTreeMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        // 0 is what the kernel shows for "no handle".
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    pub(crate) fn insert(&self, handle: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, Arc::new(handle));
        number
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<T>> {
        self.open.read().get(&number).cloned()
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open.write().remove(&number)
    }

    pub(crate) fn count(&self) -> usize {
        self.open.read().len()
    }

    /// Takes all out: the mount ends.
    pub(crate) fn drain(&self) -> Vec<Arc<T>> {
        std::mem::take(&mut *self.open.write()).into_values().collect()
    }
}

pub(crate) type Files = Handles<File>;
pub(crate) type Directories = Handles<Directory>;

/// An open directory: the entries that were fetched and not taken yet.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) inode: u64,
    pub(crate) page: tokio::sync::Mutex<Page>,
}

#[derive(Debug)]
pub(crate) struct Page {
    /// The entries follow this cookie.
    pub(crate) after: u64,
    pub(crate) plus: bool,
    pub(crate) entries: VecDeque<pb::Entry>,
    /// Nothing follows them.
    pub(crate) end: bool,
    /// Before it was asked for.
    pub(crate) fetched: Instant,
}

impl Page {
    /// What is left of the time for which the kernel may trust the attributes.
    pub(crate) fn ttl(&self, whole: Duration) -> Duration {
        whole.saturating_sub(self.fetched.elapsed())
    }
}

impl Directory {
    pub(crate) fn new(inode: u64) -> Self {
        let page = Page {
            after: 0,
            plus: false,
            entries: VecDeque::new(),
            end: false,
            fetched: Instant::now(),
        };
        Self { inode, page: tokio::sync::Mutex::new(page) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_trusted_for_the_rest_of_its_time() {
        let directory = Directory::new(1);
        let mut page = directory.page.lock().await;
        page.fetched = Instant::now() - Duration::from_millis(700);
        assert!(page.ttl(Duration::from_secs(1)) <= Duration::from_millis(300));
        assert_eq!(page.ttl(Duration::from_millis(500)), Duration::ZERO);
    }
}
