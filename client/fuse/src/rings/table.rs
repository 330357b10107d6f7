//! What a program registered with its ring, by number.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Numbers are not used again, so that one that was removed names nothing else.
#[derive(Debug)]
pub(super) struct Table<T> {
    inner: Mutex<Inner<T>>,
    most: usize,
}

#[derive(Debug)]
struct Inner<T> {
    next: u32,
    entries: BTreeMap<u32, Arc<T>>,
}

impl<T> Table<T> {
    /// Of at most so many entries.
    pub(super) fn new(most: usize) -> Self {
        let inner = Mutex::new(Inner { next: 1, entries: BTreeMap::new() });
        Self { inner, most }
    }

    /// `None`: it is full.
    pub(super) fn insert(&self, entry: T) -> Option<u32> {
        let mut inner = self.inner.lock();
        let number = inner.next;
        let next = number.checked_add(1).filter(|_| inner.entries.len() < self.most)?;
        inner.next = next;
        inner.entries.insert(number, Arc::new(entry));
        Some(number)
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<T>> {
        self.inner.lock().entries.get(&number).cloned()
    }

    /// False: there is none.
    pub(super) fn remove(&self, number: u32) -> bool {
        // Dropped after the lock.
        let gone = self.inner.lock().entries.remove(&number);
        gone.is_some()
    }

    /// Takes all out, and lets nothing in any more.
    pub(super) fn close(&self) {
        let entries = {
            let mut inner = self.inner.lock();
            inner.next = u32::MAX;
            std::mem::take(&mut inner.entries)
        };
        drop(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_one_thing_for_ever() {
        let table = Table::new(2);
        assert_eq!(
            (table.insert('a'), table.insert('b'), table.insert('c')),
            (Some(1), Some(2), None)
        );
        assert!(table.remove(1) && !table.remove(1) && table.get(1).is_none());
        assert_eq!(table.insert('d'), Some(3));
        assert_eq!(table.get(3).as_deref(), Some(&'d'));
        table.close();
        assert!(table.get(3).is_none() && table.insert('e').is_none());
    }
}
