//! The locks of one inode as a state machine without keys: who holds which ranges, who waits, and who
//! is next.
//!
//! Byte ranges, whole-file locks (`flock`) and the locks of who appends are worlds that do not know of each
//! other. An owner's
//! ranges never overlap: a new one replaces what it covers, cutting or joining the others. Waits are
//! served in the order of their coming; a request that nothing held stands against is granted at once,
//! as on Linux, because an owner that already holds locks elsewhere must not wait for one that waits
//! for it.

use ff2_proto::pb::{Lock, LockGrant, LockTableRecord};

/// The locks of one inode.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::namespace) struct Table {
    held: Vec<Lock>,
    /// In the order of their coming.
    waiting: Vec<Lock>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::namespace) enum Outcome {
    Granted,
    /// This one stands against it.
    Refused(Lock),
}

impl Table {
    pub(in crate::namespace) fn new(record: LockTableRecord) -> Self {
        Self { held: record.held, waiting: record.waiting }
    }

    pub(in crate::namespace) fn record(&self) -> LockTableRecord {
        LockTableRecord { held: self.held.clone(), waiting: self.waiting.clone() }
    }

    pub(in crate::namespace) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    pub(in crate::namespace) fn held(&self) -> &[Lock] {
        &self.held
    }

    pub(in crate::namespace) fn waiting(&self) -> &[Lock] {
        &self.waiting
    }

    /// All locks that are held against this one, the first ones first.
    pub(in crate::namespace) fn conflicts<'t>(
        &'t self,
        want: &'t Lock,
    ) -> impl Iterator<Item = &'t Lock> {
        self.held.iter().filter(|held| stands_against(held, want))
    }

    /// Takes the lock if nothing stands against it.
    pub(in crate::namespace) fn try_set(&mut self, want: &Lock) -> Outcome {
        if let Some(conflict) = self.conflicts(want).next() {
            return Outcome::Refused(*conflict);
        }
        self.insert(want);
        Outcome::Granted
    }

    /// Puts a request behind those that wait.
    pub(in crate::namespace) fn enqueue(&mut self, want: Lock) {
        debug_assert!(want.ticket != 0, "who waits has a ticket");
        self.waiting.push(want);
    }

    /// Frees what an owner holds of a range.
    pub(in crate::namespace) fn unlock(&mut self, range: &Lock) {
        let mut left = Vec::with_capacity(self.held.len() + 1);
        for lock in self.held.drain(..) {
            if is_same_owner(&lock, range) && overlaps(&lock, range) {
                left.extend(without(&lock, range));
            } else {
                left.push(lock);
            }
        }
        self.held = left;
        self.sort();
    }

    /// Ends a wait; whether there was one.
    pub(in crate::namespace) fn cancel(&mut self, session: u64, ticket: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|lock| !(lock.session == session && lock.ticket == ticket));
        self.waiting.len() < before
    }

    /// The session is over: its locks and waits are gone.
    pub(in crate::namespace) fn drop_session(&mut self, session: u64) {
        self.held.retain(|lock| lock.session != session);
        self.waiting.retain(|lock| lock.session != session);
    }

    /// Serves those that wait, in their order: whom nothing held stands against. An owner that is served
    /// twice may hold less afterwards, so those before it are looked at again.
    pub(in crate::namespace) fn grant(&mut self) -> Vec<LockGrant> {
        let mut granted = Vec::new();
        loop {
            let more = self.grant_in_order();
            if more.is_empty() {
                return granted;
            }
            granted.extend(more);
        }
    }

    fn grant_in_order(&mut self) -> Vec<LockGrant> {
        let mut granted = Vec::new();
        let mut left = Vec::with_capacity(self.waiting.len());
        for want in std::mem::take(&mut self.waiting) {
            if self.conflicts(&want).next().is_some() {
                left.push(want);
                continue;
            }
            granted.push(LockGrant { session: want.session, ticket: want.ticket });
            self.insert(&Lock { ticket: 0, ..want });
        }
        self.waiting = left;
        granted
    }

    fn insert(&mut self, want: &Lock) {
        self.unlock(want);
        let mut new = Lock { ticket: 0, ..*want };
        self.held.retain(|lock| {
            let joins =
                is_same_owner(lock, &new) && lock.exclusive == new.exclusive && touches(lock, &new);
            if joins {
                new.start = new.start.min(lock.start);
                new.end = new.end.max(lock.end);
            }
            !joins
        });
        self.held.push(new);
        self.sort();
    }

    /// One order for equal content, whatever led to it.
    fn sort(&mut self) {
        self.held.sort_unstable_by_key(|lock| (kind(lock), lock.start, lock.session, lock.owner));
    }
}

fn kind(lock: &Lock) -> (bool, bool) {
    (lock.flock, lock.append)
}

fn is_same_owner(a: &Lock, b: &Lock) -> bool {
    (a.session, a.owner, kind(a)) == (b.session, b.owner, kind(b))
}

fn overlaps(a: &Lock, b: &Lock) -> bool {
    a.start <= b.end && b.start <= a.end
}

/// Overlap, or lie side by side.
fn touches(a: &Lock, b: &Lock) -> bool {
    a.start <= b.end.saturating_add(1) && b.start <= a.end.saturating_add(1)
}

fn stands_against(held: &Lock, want: &Lock) -> bool {
    kind(held) == kind(want)
        && !is_same_owner(held, want)
        && overlaps(held, want)
        && (held.exclusive || want.exclusive)
}

/// What is left of a lock outside of a range.
fn without(lock: &Lock, range: &Lock) -> impl Iterator<Item = Lock> {
    let below = (lock.start < range.start).then(|| Lock { end: range.start - 1, ..*lock });
    let above = (lock.end > range.end).then(|| Lock { start: range.end + 1, ..*lock });
    below.into_iter().chain(above)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
