//! Callbacks: which session was promised to be told before an inode is changed, and who was told.
//!
//! The memory of a namespace leader's term for one volume, pure and never logged (docs/design/0004). A
//! session *enrols*, having dropped what it cached before, and from then on renews its cache lease with
//! each question for invalidations. An answer of the namespace may come with a callback for an inode: of
//! a directory it covers the entries, those that are not there as well. A change *begins* before it is
//! logged: sessions that hold callbacks of what it touches lose them and are owed an invalidation each.
//! It may be logged once all those were handled, or the cache leases of their sessions have ended, and
//! *ends* when it is applied. Between, nobody gets a callback for what is changing. So a cached answer is
//! what the namespace would answer, at every moment.
//!
//! A session that is alone with what it changed may hold its callback *sole*: then nobody else is answered
//! of it either before the session was told, so it may change it first and tell later (docs/design/0006).
//! Whoever wants to know *looks*, which breaks the callback and waits as a change does.

mod recent;
#[cfg(test)]
mod soles;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;
use recent::Recent;

use crate::namespace::Shown;

/// Milliseconds of the leader's monotonic clock.
pub type Millis = u64;

/// The bounds of one volume's callbacks.
#[derive(Clone, Copy, Debug)]
pub struct CallbackLimits {
    /// For how long a session may go by what it caches after it sent its last question.
    pub lease_ms: Millis,
    /// Callbacks of one session; beyond it the oldest of a file is given up, with an invalidation; if there is
    /// none, of a folder.
    pub held_max: usize,
    /// Invalidations that a session has not handled; beyond it no callback is given up or made.
    pub owed_max: usize,
    /// For so long nobody gets a callback for what was changed under another's: two mounts that change
    /// one directory in turns would else wait for each other each time.
    pub contended_ms: Millis,
}

/// One volume's callbacks in one term.
#[derive(Debug)]
pub struct Callbacks {
    limits: CallbackLimits,
    sessions: BTreeMap<u64, Session>,
    /// The last enrolment of each session in this term: a message that is late must not begin it anew.
    enrollments: BTreeMap<u64, u64>,
    /// By inode, the sessions that hold its callback.
    holders: BTreeMap<u64, BTreeSet<u64>>,
    /// By inode, the session that holds its callback sole.
    soles: BTreeMap<u64, u64>,
    /// By inode, the invalidations that were not handled: session and number.
    owed: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    /// Changes that began and did not end: by inode, whose they are.
    changing: BTreeMap<u64, Vec<u64>>,
    recent: Recent,
    contended: BTreeMap<u64, Millis>,
    /// Sessions that an earlier leader may have given callbacks, and until when.
    earlier: BTreeSet<u64>,
    earlier_until: Millis,
    last_number: u64,
    lapsed_at: Millis,
    counts: CallbackCounts,
}

/// What happened in this term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackCounts {
    /// Callbacks that are held now.
    pub held: u64,
    pub invalidations: u64,
    /// Of them, those of callbacks that were given up for newer ones.
    pub evictions: u64,
    /// Sessions whose cache lease ended while they held callbacks.
    pub lapses: u64,
    /// Sole callbacks that were broken because somebody looked.
    pub looks: u64,
}

#[derive(Debug, Default)]
struct Session {
    enrollment: u64,
    lease_until: Millis,
    /// What it holds, and the other way round: what is given up first is the first.
    held: BTreeMap<u64, Age>,
    by_age: BTreeMap<Age, u64>,
    owed: BTreeMap<u64, Owed>,
}

/// How late a callback is given up for newer ones: files before folders, since with a folder goes all that is known
/// of its names, in the session and in its kernel; then by number, the oldest first.
type Age = (bool, u64);

/// An invalidation on its way.
#[derive(Clone, Copy, Debug)]
struct Owed {
    inode: u64,
    /// The callback was sole: the session may know more of the inode than the namespace, until it handled it.
    sole: bool,
    /// A session that has not handled it by then caches nothing any more, whether it speaks or not: it
    /// counts no renewal whose answer it handled after its lease had ended.
    deadline: Millis,
}

/// Invalidations on their way to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of the last one.
    pub last: u64,
    pub inodes: Vec<u64>,
    /// Others follow. As long as they do the session's lease does not go on: the deadline of those that it
    /// has not heard of is that of its lease before.
    pub more: bool,
}

/// The session is not enrolled: it must drop what it caches, and enrol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEnrolled;

/// A change in progress. Give it back to [`Callbacks::end`] when it is applied, or certain never to be.
#[derive(Debug)]
#[must_use = "what is changing gets no callbacks until the change ends"]
pub struct Change {
    by: u64,
    inodes: Vec<u64>,
    /// Must be handled first: sessions and numbers.
    owed: Vec<(u64, u64)>,
    /// It waits for those that an earlier leader made promises to.
    waits_for_earlier: bool,
}

impl Callbacks {
    /// A new term. Changes wait for the sessions of `earlier`, to which other leaders may have made
    /// promises, until each has enrolled or its lease must have ended.
    pub fn new(
        limits: CallbackLimits,
        now: Millis,
        earlier: impl IntoIterator<Item = u64>,
    ) -> Self {
        Self {
            limits,
            sessions: BTreeMap::new(),
            enrollments: BTreeMap::new(),
            holders: BTreeMap::new(),
            soles: BTreeMap::new(),
            owed: BTreeMap::new(),
            changing: BTreeMap::new(),
            recent: Recent::default(),
            contended: BTreeMap::new(),
            earlier: earlier.into_iter().collect(),
            earlier_until: now + limits.lease_ms,
            last_number: 0,
            lapsed_at: now,
            counts: CallbackCounts::default(),
        }
    }

    pub fn counts(&self) -> CallbackCounts {
        self.counts
    }

    /// Callbacks that a session holds.
    pub fn held_by(&self, session: u64) -> u64 {
        self.sessions.get(&session).map_or(0, |session| session.held.len() as u64)
    }

    // ---- sessions ----

    /// The session caches nothing, and may from now on. Its enrolments are numbered from 1.
    pub fn enroll(
        &mut self,
        now: Millis,
        session: u64,
        enrollment: u64,
    ) -> Result<(), NotEnrolled> {
        self.lapse(now);
        let last = self.enrollments.entry(session).or_default();
        if enrollment > *last {
            *last = enrollment;
            self.leave(session);
            let lease_until = now + self.limits.lease_ms;
            let enrolled = Session { enrollment, lease_until, ..Session::default() };
            self.sessions.insert(session, enrolled);
        }
        let is_enrolled = |known: &Session| known.enrollment == enrollment;
        if self.sessions.get(&session).is_some_and(is_enrolled) { Ok(()) } else { Err(NotEnrolled) }
    }

    /// The session handled all invalidations up to the number `handled`, and its lease goes on.
    pub fn renew(
        &mut self,
        now: Millis,
        session: u64,
        enrollment: u64,
        handled: u64,
    ) -> Result<(), NotEnrolled> {
        self.lapse(now);
        let known = self.sessions.get_mut(&session).filter(|s| s.enrollment == enrollment);
        let known = known.ok_or(NotEnrolled)?;
        known.lease_until = known.lease_until.max(now + self.limits.lease_ms);
        let rest = known.owed.split_off(&(handled + 1));
        for (number, owed) in std::mem::replace(&mut known.owed, rest) {
            forget(&mut self.owed, owed.inode, &(session, number));
        }
        Ok(())
    }

    /// The session is gone, or has dropped all.
    pub fn leave(&mut self, session: u64) {
        self.earlier.remove(&session);
        let Some(gone) = self.sessions.remove(&session) else { return };
        self.counts.held -= gone.held.len() as u64;
        for inode in gone.held.keys() {
            forget(&mut self.holders, *inode, &session);
            self.lose_sole(session, *inode);
        }
        for (number, owed) in &gone.owed {
            forget(&mut self.owed, owed.inode, &(session, *number));
        }
    }

    /// The oldest invalidations that the session has not handled.
    pub fn owed_to(&self, session: u64, at_most: usize) -> Batch {
        let Some(session) = self.sessions.get(&session) else { return Batch::default() };
        let owed = session.owed.iter().take(at_most);
        let mut batch = Batch { more: session.owed.len() > at_most, ..Batch::default() };
        for (number, owed) in owed {
            batch.last = *number;
            batch.inodes.push(owed.inode);
        }
        batch
    }

    /// Sessions whose time is over hold nothing any more.
    fn lapse(&mut self, now: Millis) {
        if now == std::mem::replace(&mut self.lapsed_at, now) {
            // All that could end by now was looked at, and what began since lasts longer.
            return;
        }
        let is_over = |session: &Session| {
            let first = session.owed.values().next();
            session.lease_until <= now || first.is_some_and(|owed| owed.deadline <= now)
        };
        let over: Vec<u64> =
            self.sessions.iter().filter(|(_, s)| is_over(s)).map(|(id, _)| *id).collect();
        for session in over {
            let held = self.sessions.get(&session).is_some_and(|s| !s.held.is_empty());
            self.counts.lapses += u64::from(held);
            self.leave(session);
        }
        if self.earlier_until <= now {
            self.earlier.clear();
        }
        self.contended.retain(|_, until| *until > now);
    }

    // ---- promises ----

    /// Where an answer begins; [`Callbacks::promise`] wants it.
    pub fn position(&self) -> u64 {
        self.recent.position()
    }

    /// Makes the promise for an inode that an answer shows as it was at some moment since `since`.
    /// False: the answer may be out of date by the time it arrives, and must not be cached.
    pub fn promise(
        &mut self,
        now: Millis,
        session: u64,
        (inode, is_folder): (u64, bool),
        since: u64,
    ) -> bool {
        self.lapse(now);
        let is_moving = self.changing.contains_key(&inode)
            || self.contended.contains_key(&inode)
            || self.soles.get(&inode).is_some_and(|sole| *sole != session)
            || self.recent.has_changed(inode, since, session);
        let Some(known) = self.sessions.get_mut(&session).filter(|_| !is_moving) else {
            return false;
        };
        if !known.held.contains_key(&inode) && known.held.len() >= self.limits.held_max {
            if known.owed.len() >= self.limits.owed_max {
                return false;
            }
            let oldest = known.by_age.first_key_value().map(|(_, inode)| *inode);
            let oldest = oldest.expect("a session that holds many holds an oldest one");
            self.counts.evictions += 1;
            self.break_one(session, oldest);
        }
        self.last_number += 1;
        let age = (is_folder, self.last_number);
        let known = self.sessions.get_mut(&session);
        let known = known.expect("it was there above");
        match known.held.insert(inode, age) {
            Some(older) => drop(known.by_age.remove(&older)),
            None => self.counts.held += 1,
        }
        known.by_age.insert(age, inode);
        self.holders.entry(inode).or_default().insert(session);
        true
    }

    /// Makes the promises for what an answer shows, as far as they can be made. `changed`: it is the answer
    /// to a change by the session, which may be alone with it. Who is alone with a folder, having changed it,
    /// may also be alone with what it finds there: it will likely change that next.
    pub fn promise_shown(
        &mut self,
        now: Millis,
        session: u64,
        since: u64,
        shown: &[Shown],
        changed: bool,
    ) -> Vec<pb::Callback> {
        let mut promised = Vec::new();
        for &Shown { inode, version, is_folder, anew, within } in shown {
            let may = anew || self.holds(session, inode);
            let is_promised = may && self.promise(now, session, (inode, is_folder), since);
            let is_own = changed || self.soles.get(&within) == Some(&session);
            let sole = is_own && (changed || is_promised) && self.make_sole(session, inode);
            if is_promised || sole {
                promised.push(pb::Callback { inode, version, sole });
            }
        }
        promised
    }

    /// Makes the callback that a session holds sole, if nobody else has to do with the inode.
    fn make_sole(&mut self, session: u64, inode: u64) -> bool {
        let only = |holders: &BTreeSet<u64>| holders.iter().all(|holder| *holder == session);
        let is_alone = self.holds(session, inode)
            && self.holders.get(&inode).is_some_and(only)
            && !self.contended.contains_key(&inode)
            && self.owed.get(&inode).is_none_or(|owed| owed.iter().all(|(by, _)| *by == session))
            && self.changing.get(&inode).is_none_or(|by| by.iter().all(|by| *by == session));
        if is_alone {
            self.soles.insert(inode, session);
        }
        is_alone
    }

    fn lose_sole(&mut self, session: u64, inode: u64) -> bool {
        let was_sole = self.soles.get(&inode) == Some(&session);
        if was_sole {
            self.soles.remove(&inode);
        }
        was_sole
    }

    /// Whether a session holds the callback of an inode.
    pub fn holds(&self, session: u64, inode: u64) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.held.contains_key(&inode))
    }

    // ---- changes ----

    /// Begins a change of these inodes by a session (0: by nobody who caches). It breaks the callbacks of
    /// all others.
    pub fn begin(&mut self, now: Millis, by: u64, inodes: Vec<u64>) -> Change {
        let waits_for_earlier = !inodes.is_empty();
        self.begin_waiting(now, by, inodes, waits_for_earlier)
    }

    /// As [`Callbacks::begin`], of changes that the session's programs were told of already. It could tell
    /// them because it held the callbacks sole, perhaps by the promise of an earlier leader: as long as it has
    /// not enrolled with this one, nobody else can have been promised anything of them.
    pub fn begin_behind(&mut self, now: Millis, by: u64, inodes: Vec<u64>) -> Change {
        self.lapse(now);
        let waits_for_earlier = !inodes.is_empty() && !self.earlier.contains(&by);
        self.begin_waiting(now, by, inodes, waits_for_earlier)
    }

    /// Before a session is answered of these inodes: what must be over first; `None`: nobody knows more of
    /// them than the namespace.
    pub fn look(&mut self, now: Millis, by: u64, inodes: &[u64]) -> Option<Change> {
        self.lapse(now);
        let (soles, owed, sessions) = (&self.soles, &self.owed, &self.sessions);
        let is_told = |(session, number): &(u64, u64)| {
            let owed = sessions.get(session).and_then(|session| session.owed.get(number));
            *session == by || !owed.is_some_and(|owed| owed.sole)
        };
        let is_hidden = |inode: &u64| {
            soles.get(inode).is_some_and(|sole| *sole != by)
                || owed.get(inode).is_some_and(|owed| !owed.iter().all(is_told))
        };
        let hidden: Vec<u64> = inodes.iter().copied().filter(is_hidden).collect();
        let waits_for_earlier = !self.earlier.is_empty() && !inodes.is_empty();
        if hidden.is_empty() && !waits_for_earlier {
            return None;
        }
        self.counts.looks += hidden.iter().filter(|inode| soles.contains_key(inode)).count() as u64;
        Some(self.begin_waiting(now, by, hidden, waits_for_earlier))
    }

    /// Inodes whose callback is sole.
    pub fn soles(&self) -> impl Iterator<Item = u64> {
        self.soles.keys().copied()
    }

    fn begin_waiting(
        &mut self,
        now: Millis,
        by: u64,
        inodes: Vec<u64>,
        waits_for_earlier: bool,
    ) -> Change {
        self.lapse(now);
        let mut owed = Vec::new();
        for &inode in &inodes {
            self.changing.entry(inode).or_default().push(by);
            let others: Vec<u64> = self.holders.get(&inode).map_or_else(Vec::new, |holders| {
                holders.iter().copied().filter(|holder| *holder != by).collect()
            });
            if !others.is_empty() && self.limits.contended_ms > 0 {
                self.contended.insert(inode, now + self.limits.contended_ms);
            }
            for other in others {
                self.break_one(other, inode);
            }
            // Those of earlier changes too: this one may be the second try of the same.
            let on_their_way = self.owed.get(&inode).into_iter().flatten();
            owed.extend(on_their_way.filter(|(session, _)| *session != by));
        }
        Change { by, inodes, owed, waits_for_earlier }
    }

    /// Whether the change may take place: nobody caches what it touches.
    pub fn is_clear(&mut self, now: Millis, change: &Change) -> bool {
        self.lapse(now);
        let is_owed = |(session, number): &(u64, u64)| {
            self.sessions.get(session).is_some_and(|session| session.owed.contains_key(number))
        };
        let is_open = self.earlier.is_empty() || !change.waits_for_earlier;
        is_open && !change.owed.iter().any(is_owed)
    }

    /// When [`Callbacks::is_clear`] may have another answer without anybody saying a word.
    pub fn clear_at(&self, change: &Change) -> Option<Millis> {
        let deadline = |(session, number): &(u64, u64)| {
            Some(self.sessions.get(session)?.owed.get(number)?.deadline)
        };
        let deadlines = change.owed.iter().filter_map(deadline);
        let earlier = (!self.earlier.is_empty()).then_some(self.earlier_until);
        deadlines.chain(earlier).min()
    }

    /// The sessions that are owed an invalidation by this change.
    pub fn waits_for<'c>(&self, change: &'c Change) -> impl Iterator<Item = u64> + use<'c> {
        change.owed.iter().map(|(session, _)| *session)
    }

    pub fn end(&mut self, change: Change) {
        for inode in change.inodes {
            // An answer that began before may have been read before.
            self.recent.changed(inode, change.by);
            let changing = self.changing.get_mut(&inode).expect("a change ends once");
            let own = changing.iter().position(|by| *by == change.by).expect("it began");
            changing.swap_remove(own);
            if changing.is_empty() {
                self.changing.remove(&inode);
            }
        }
    }

    fn break_one(&mut self, session: u64, inode: u64) {
        let known = self.sessions.get_mut(&session).expect("a holder is a session");
        let age = known.held.remove(&inode).expect("it holds it");
        known.by_age.remove(&age);
        self.last_number += 1;
        let number = self.last_number;
        let deadline = known.lease_until;
        let sole = self.lose_sole(session, inode);
        let known = self.sessions.get_mut(&session).expect("it was there above");
        known.owed.insert(number, Owed { inode, sole, deadline });
        self.owed.entry(inode).or_default().insert((session, number));
        forget(&mut self.holders, inode, &session);
        self.counts.held -= 1;
        self.counts.invalidations += 1;
    }
}

fn forget<T: Ord>(index: &mut BTreeMap<u64, BTreeSet<T>>, inode: u64, item: &T) {
    if let Some(items) = index.get_mut(&inode) {
        items.remove(item);
        if items.is_empty() {
            index.remove(&inode);
        }
    }
}
