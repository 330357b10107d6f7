//! Which inodes this client may cache: the callbacks that came with answers of the namespace, as long as
//! their lease goes on.
//!
//! An invalidation may overtake the answer that it makes void. So whoever asks notes the position before,
//! and an answer counts only if nothing of it was invalidated since. What is cached is bounded by the
//! leader, which takes old callbacks back.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use ff2_proto::{InodeId, pb};

/// Invalidations that are remembered for answers on their way; one that takes longer is not cached.
const REMEMBERED: usize = 4_096;

#[derive(Debug, Default)]
pub struct HeldCallbacks {
    /// Of the leader that made the promises; 0: none.
    term: u64,
    /// On the caller's monotonic clock; nothing is held without.
    lease_until: Option<Duration>,
    /// With the version that the answer showed.
    held: BTreeMap<InodeId, u64>,
    /// Of these, those that nobody else is answered of before this client was told.
    soles: BTreeSet<InodeId>,
    dropped: VecDeque<InodeId>,
    /// Invalidations that were forgotten; all answers that began before it are refused.
    before: u64,
}

impl HeldCallbacks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Where an answer begins.
    pub fn position(&self) -> u64 {
        self.before + self.dropped.len() as u64
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes in the callback of an answer that began at `since`. False: the answer may be old.
    pub fn take(&mut self, term: u64, since: u64, callback: &pb::Callback) -> bool {
        let (inode, version) = (InodeId(callback.inode), callback.version);
        if term != self.term || self.lease_until.is_none() {
            return false;
        }
        let Some(skipped) = since.checked_sub(self.before) else { return false };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        if self.dropped.iter().skip(skipped).any(|dropped| *dropped == inode) {
            return false;
        }
        if callback.sole {
            self.soles.insert(inode);
        }
        let held = self.held.entry(inode).or_insert(version);
        // An answer that was overtaken by one after an own change.
        let is_newest = version >= *held;
        *held = version.max(*held);
        is_newest
    }

    /// The namespace will have the inode in this version, which this client made: it holds the callback
    /// sole, or the inode is new and nobody else can have heard of it.
    pub fn foresee(&mut self, inode: InodeId, version: u64) {
        self.held.insert(inode, version);
        self.soles.insert(inode);
    }

    /// The answer to an own change showed this version. It breaks no callback of its own, whether the answer
    /// came with one or not.
    pub fn changed(&mut self, inode: InodeId, version: u64) {
        if let Some(held) = self.held.get_mut(&inode) {
            *held = version.max(*held);
        }
    }

    /// What an own change did to these is not known.
    pub fn let_go(&mut self, inodes: &[InodeId]) {
        for inode in inodes {
            self.held.remove(inode);
            self.soles.remove(inode);
        }
    }

    /// Whether nobody else is answered of the inode, nor changes it, for at least so long.
    pub fn is_sole(&self, now: Duration, inode: InodeId, for_at_least: Duration) -> bool {
        self.soles.contains(&inode) && self.lasts(now, inode) >= for_at_least
    }

    /// These are about to change, or to be looked at. Those of which this client may know more than the
    /// namespace.
    #[must_use = "of these the namespace must hear first"]
    pub fn invalidate(&mut self, inodes: &[InodeId]) -> Vec<InodeId> {
        let mut soles = Vec::new();
        for &inode in inodes {
            self.held.remove(&inode);
            if self.soles.remove(&inode) {
                soles.push(inode);
            }
            if self.dropped.len() == REMEMBERED {
                self.dropped.pop_front();
                self.before += 1;
            }
            self.dropped.push_back(inode);
        }
        soles
    }

    /// Drops everything, and begins anew with the leader of this term. Answers on their way do not count.
    pub fn begin(&mut self, term: u64) {
        self.refuse_begun();
        self.held.clear();
        self.soles.clear();
        self.lease_until = None;
        self.term = term;
    }

    /// Answers that began before do not count.
    fn refuse_begun(&mut self) {
        self.before = self.position() + 1;
        self.dropped.clear();
    }

    /// All invalidations of the answer to a question were handled; what it renewed lasts until then. The
    /// first time it is the answer to the beginning: what the leader promised before, it may have
    /// forgotten. False: the lease had ended by now. The leader may have given this client up, with
    /// invalidations that it has not heard of, so it must begin anew.
    #[must_use]
    pub fn renewed(&mut self, now: Duration, until: Duration) -> bool {
        match self.lease_until {
            None => self.refuse_begun(),
            Some(before) if before <= now => return false,
            Some(_) => {}
        }
        self.lease_until = self.lease_until.max(Some(until));
        true
    }

    /// Whether nothing may be shown without asking: there is no lease, or it has ended.
    pub fn is_over(&self, now: Duration) -> bool {
        self.lease_until.is_none_or(|until| until <= now)
    }

    /// Whether the namespace has the inode still in this version.
    pub fn is_current(&self, now: Duration, inode: InodeId, version: u64) -> bool {
        self.lasts(now, inode) > Duration::ZERO && self.held.get(&inode) == Some(&version)
    }

    /// For how long what is known of an inode may be shown without asking; zero: not at all.
    pub fn lasts(&self, now: Duration, inode: InodeId) -> Duration {
        let until = self.lease_until.filter(|_| self.held.contains_key(&inode));
        until.map_or(Duration::ZERO, |until| until.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(7);
    const SECOND: Duration = Duration::from_secs(1);

    fn take(held: &mut HeldCallbacks, term: u64, since: u64, inode: InodeId, version: u64) -> bool {
        held.take(term, since, &pb::Callback { inode: inode.0, version, sole: false })
    }

    fn take_now(held: &mut HeldCallbacks, term: u64, inode: InodeId, version: u64) -> bool {
        let since = held.position();
        take(held, term, since, inode, version)
    }

    fn held() -> HeldCallbacks {
        let mut held = HeldCallbacks::new();
        held.begin(3);
        assert!(held.renewed(SECOND, 5 * SECOND));
        held
    }

    #[test]
    fn what_is_held_lasts_as_long_as_the_lease() {
        let mut held = held();
        assert!(take_now(&mut held, 3, FILE, 1));
        assert_eq!(held.lasts(SECOND, FILE), 4 * SECOND);
        assert!(held.is_current(SECOND, FILE, 1) && !held.is_current(SECOND, FILE, 2));
        assert_eq!(held.lasts(5 * SECOND, FILE), Duration::ZERO);
        assert!(held.is_over(5 * SECOND) && !held.is_over(SECOND));
        assert!(held.renewed(SECOND, 4 * SECOND));
        assert_eq!(held.lasts(SECOND, FILE), 4 * SECOND, "a late answer takes nothing away");
        assert!(!held.renewed(5 * SECOND, 9 * SECOND), "handled when the lease was over");
        assert_eq!(held.lasts(5 * SECOND, FILE), Duration::ZERO);
        assert_eq!(held.lasts(SECOND, InodeId(8)), Duration::ZERO);
    }

    #[test]
    fn an_invalidation_that_overtook_an_answer_makes_it_void() {
        let mut held = held();
        let since = held.position();
        assert!(held.invalidate(&[FILE]).is_empty());
        assert!(!take(&mut held, 3, since, FILE, 1));
        assert!(take(&mut held, 3, since, InodeId(8), 1));
        assert!(take_now(&mut held, 3, FILE, 2));
        assert!(held.invalidate(&[FILE]).is_empty());
        assert_eq!(held.lasts(SECOND, FILE), Duration::ZERO);
        for inode in 0..REMEMBERED as u64 {
            let _ = held.invalidate(&[InodeId(100 + inode)]);
        }
        assert!(!take(&mut held, 3, since, InodeId(9), 1), "what happened since is forgotten");
    }

    #[test]
    fn promises_of_another_leader_do_not_count() {
        let mut held = held();
        let since = held.position();
        assert!(!take(&mut held, 2, since, FILE, 1) && !take(&mut held, 0, since, FILE, 1));
        assert!(take(&mut held, 3, since, FILE, 1));
        held.begin(4);
        assert_eq!((held.len(), held.lasts(SECOND, FILE)), (0, Duration::ZERO));
        assert!(!take(&mut held, 4, since, FILE, 1), "it began before");
        let since = held.position();
        assert!(
            !take(&mut held, 4, since, FILE, 1),
            "the leader has not said that it enrolled this client"
        );
        assert!(held.renewed(SECOND, 5 * SECOND));
        assert!(!take(&mut held, 4, since, FILE, 1), "it began before that");
        assert!(take_now(&mut held, 4, FILE, 1));
        assert_eq!(held.lasts(SECOND, FILE), 4 * SECOND);
    }

    #[test]
    fn of_two_answers_the_newer_counts() {
        let mut held = held();
        let since = held.position();
        assert!(take(&mut held, 3, since, FILE, 6));
        assert!(!take(&mut held, 3, since, FILE, 5));
        assert!(held.is_current(SECOND, FILE, 6));
    }

    #[test]
    fn what_is_foreseen_is_held_until_somebody_looks() {
        let mut held = held();
        let sole = pb::Callback { inode: FILE.0, version: 1, sole: true };
        assert!(held.take(3, held.position(), &sole));
        assert!(held.is_sole(SECOND, FILE, 4 * SECOND));
        assert!(!held.is_sole(2 * SECOND, FILE, 4 * SECOND), "the lease ends before");
        held.foresee(FILE, 2);
        assert!(held.is_current(SECOND, FILE, 2));
        assert_eq!(held.invalidate(&[FILE, InodeId(8)]), [FILE]);
        assert!(!held.is_sole(SECOND, FILE, Duration::ZERO));
        held.foresee(FILE, 3);
        held.begin(4);
        assert!(!held.is_sole(SECOND, FILE, Duration::ZERO));
    }
}
