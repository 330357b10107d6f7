//! Which names the kernel was told to keep, by directory: what it must drop when the directory changes.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::limits;

#[derive(Debug, Default)]
pub(crate) struct Told {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    directories: BTreeMap<u64, Names>,
    count: usize,
}

/// Names in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Files, or that there is no such name.
    Each(BTreeSet<Vec<u8>>),
    /// So many that all entries of the mount are dropped with less work; or one is a directory, which
    /// programs may have as their working directory: to drop it by its name would unhang it for a while,
    /// and `getcwd` fail.
    All,
}

impl Told {
    /// The kernel is about to be told of a name. Call it before it is decided for how long.
    pub(crate) fn note(&self, directory: u64, name: &[u8], is_directory: bool) {
        let mut inner = self.inner.lock();
        let Inner { directories, count } = &mut *inner;
        let names = directories.entry(directory).or_insert_with(|| Names::Each(BTreeSet::new()));
        let Names::Each(each) = names else { return };
        let is_full = each.len() >= limits::NAMES_PER_DIRECTORY_MAX || *count >= limits::NAMES_MAX;
        if is_directory || is_full {
            *count -= each.len();
            *names = Names::All;
        } else if each.insert(name.to_vec()) {
            *count += 1;
        }
    }

    /// The directory changes: what is to be dropped.
    pub(crate) fn take(&self, directory: u64) -> Option<Names> {
        let mut inner = self.inner.lock();
        let names = inner.directories.remove(&directory)?;
        if let Names::Each(each) = &names {
            inner.count -= each.len();
        }
        Some(names)
    }

    pub(crate) fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.lock().count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Option<Names> {
        Some(Names::Each(names.iter().map(|name| name.as_bytes().to_vec()).collect()))
    }

    #[test]
    fn names_are_dropped_one_by_one_while_they_are_few_files() {
        let told = Told::default();
        told.note(1, b"a", false);
        told.note(1, b"b", false);
        told.note(1, b"a", false);
        told.note(2, b"c", false);
        assert_eq!(told.count(), 3);
        assert_eq!(told.take(1), names(&["a", "b"]));
        assert_eq!((told.take(1), told.count()), (None, 1));
        told.note(2, b"d", true);
        assert_eq!(told.count(), 0);
        assert_eq!(told.take(2), Some(Names::All));
        for number in 0..=limits::NAMES_PER_DIRECTORY_MAX {
            told.note(3, number.to_string().as_bytes(), false);
        }
        assert_eq!((told.count(), told.take(3)), (0, Some(Names::All)));
    }
}
