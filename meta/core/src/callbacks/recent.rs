//! The changes that ended last, by whom: whether an answer that was read a moment ago is still true.

use std::collections::VecDeque;

/// Changes that are remembered. An answer that takes longer than this many gets no callback.
const REMEMBERED: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Changes that were forgotten.
    before: u64,
    /// Inode, and the session that changed it.
    changes: VecDeque<(u64, u64)>,
}

impl Recent {
    /// How many changes ended so far.
    pub(super) fn position(&self) -> u64 {
        self.before + self.changes.len() as u64
    }

    pub(super) fn changed(&mut self, inode: u64, by: u64) {
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
            self.before += 1;
        }
        self.changes.push_back((inode, by));
    }

    /// Whether somebody else than `except` may have changed the inode since that position. What a session
    /// changed itself it knows.
    pub(super) fn has_changed(&self, inode: u64, since: u64, except: u64) -> bool {
        let Some(skipped) = since.checked_sub(self.before) else { return true };
        let after = self.changes.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        after.into_iter().any(|&(changed, by)| changed == inode && by != except)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_may_have_changed() {
        let mut recent = Recent::default();
        let start = recent.position();
        recent.changed(7, 1);
        assert!(recent.has_changed(7, start, 2));
        assert!(!recent.has_changed(7, start, 1), "by itself");
        assert!(!recent.has_changed(8, start, 2));
        assert!(!recent.has_changed(7, recent.position(), 2));
        for _ in 0..REMEMBERED {
            recent.changed(9, 1);
        }
        assert!(recent.has_changed(8, start, 2), "nobody knows");
        assert!(!recent.has_changed(8, recent.position() - 5, 2));
    }
}
