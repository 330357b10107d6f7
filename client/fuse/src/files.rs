//! Open handles: the numbers that the kernel holds for files and directories.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ff2_client::{File, Trust, pb};
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

    /// The first one that is so.
    pub(crate) fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<(u64, Arc<T>)> {
        let open = self.open.read();
        let found = open.iter().find(|(_, handle)| is_it(handle));
        found.map(|(number, handle)| (*number, handle.clone()))
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
    /// Of the request that fetched them.
    pub(crate) trust: Trust,
}

impl Directory {
    pub(crate) fn new(inode: u64, trust: Trust) -> Self {
        let page = Page {
            after: 0,
            plus: false,
            entries: VecDeque::new(),
            end: false,
            fetched: Instant::now(),
            trust,
        };
        Self { inode, page: tokio::sync::Mutex::new(page) }
    }
}
