//! What a client remembers of its locks: which owners may hold some, so that their end is told; and who
//! waits for one to come.
//!
//! The namespace has the truth. An owner counts as holding from before it asks to after it freed all:
//! better one needless message than a lock that nobody frees.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ff2_proto::{Code, InodeId, pb, pb::ns_request::Op};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{client::Shared, limits};

/// Whose locks, of which kind, on which inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) inode: InodeId,
    pub(crate) flock: bool,
    pub(crate) owner: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Locks {
    inner: Mutex<Inner>,
    losses: AtomicU64,
    /// Somebody began to wait.
    more: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    last_ticket: u64,
    /// How many requests of the owner are on their way, and whether one before was granted.
    owners: BTreeMap<Owner, Holds>,
    waiting: BTreeMap<u64, Waiting>,
    /// Sessions up to this are over; their numbers grow.
    ended: u64,
    /// A task asks for those that wait.
    is_asking: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holds {
    asking: u32,
    holds: bool,
}

#[derive(Debug)]
struct Waiting {
    owner: u64,
    /// In which it waits; `None` before the namespace said that it does.
    session: Option<u64>,
    wake: oneshot::Sender<Came>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Granted,
    SessionOver,
    GivenUp,
}

/// A request on its way. Dropped without [`Claim::keep`], it held nothing.
pub(crate) struct Claim<'a> {
    locks: &'a Locks,
    owner: Owner,
    granted_in: Option<u64>,
}

impl Claim<'_> {
    /// It was granted in this session, or may have been.
    pub(crate) fn keep(mut self, session: u64) {
        self.granted_in = Some(session);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.locks.inner.lock();
        let ended = inner.ended;
        let holds = inner.owners.entry(self.owner).or_default();
        holds.asking = holds.asking.saturating_sub(1);
        match self.granted_in {
            // The session ended meanwhile, and with it what was granted.
            Some(session) if session <= ended => {
                self.locks.losses.fetch_add(1, Ordering::AcqRel);
            }
            Some(_) => holds.holds = true,
            None => {}
        }
        let holds = *holds;
        if holds.asking == 0 && !holds.holds {
            inner.owners.remove(&self.owner);
        }
    }
}

/// A place among those that wait; left when dropped.
pub(crate) struct Wait<'a> {
    locks: &'a Locks,
    ticket: u64,
    came: oneshot::Receiver<Came>,
}

impl Wait<'_> {
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    pub(crate) async fn came(&mut self) -> Came {
        (&mut self.came).await.unwrap_or(Came::SessionOver)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.locks.inner.lock().waiting.remove(&self.ticket);
    }
}

impl Locks {
    pub(crate) fn claim(&self, owner: Owner) -> Claim<'_> {
        self.inner.lock().owners.entry(owner).or_default().asking += 1;
        Claim { locks: self, owner, granted_in: None }
    }

    pub(crate) fn may_hold(&self, owner: Owner) -> bool {
        self.inner.lock().owners.contains_key(&owner)
    }

    /// The owner freed all. What it asks for at this moment may come yet.
    pub(crate) fn freed(&self, owner: Owner) {
        let mut inner = self.inner.lock();
        if let Some(holds) = inner.owners.get_mut(&owner) {
            holds.holds = false;
            if holds.asking == 0 {
                inner.owners.remove(&owner);
            }
        }
    }

    pub(crate) fn wait(&self, owner: u64) -> Wait<'_> {
        let (wake, came) = oneshot::channel();
        let mut inner = self.inner.lock();
        inner.last_ticket += 1;
        let ticket = inner.last_ticket;
        inner.waiting.insert(ticket, Waiting { owner, session: None, wake });
        Wait { locks: self, ticket, came }
    }

    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// All locks are gone with their session; whether there were any.
    pub(crate) fn session_over(&self, session: u64) -> bool {
        let mut inner = self.inner.lock();
        inner.ended = inner.ended.max(session);
        let had_any = inner.owners.values().any(|holds| holds.holds);
        inner.owners.retain(|_, holds| {
            holds.holds = false;
            holds.asking > 0
        });
        if had_any {
            self.losses.fetch_add(1, Ordering::AcqRel);
        }
        let over: Vec<u64> = inner
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.session == Some(session))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in over {
            inner.end(ticket, Came::SessionOver);
        }
        had_any
    }

    /// The tickets to ask for in this session; `None`: nobody waits, and the asker ends.
    fn tickets(&self, session: u64) -> Option<Vec<pb::LockTicket>> {
        let mut inner = self.inner.lock();
        let other = |waiting: &Waiting| waiting.session.is_some_and(|of| of != session);
        let over: Vec<u64> =
            inner.waiting.iter().filter(|(_, w)| other(w)).map(|(ticket, _)| *ticket).collect();
        for ticket in over {
            inner.end(ticket, Came::SessionOver);
        }
        let in_line = inner.waiting.iter().filter(|(_, waiting)| waiting.session.is_some());
        let tickets: Vec<_> = in_line
            .map(|(ticket, waiting)| pb::LockTicket { owner: waiting.owner, ticket: *ticket })
            .collect();
        if tickets.is_empty() {
            inner.is_asking = false;
            return None;
        }
        Some(tickets)
    }

    fn granted(&self, session: u64, tickets: &[u64]) {
        let mut inner = self.inner.lock();
        for &ticket in tickets {
            if inner.waiting.get(&ticket).is_some_and(|w| w.session == Some(session)) {
                inner.end(ticket, Came::Granted);
            }
        }
    }
}

impl Inner {
    fn end(&mut self, ticket: u64, came: Came) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            // Who waited may have given up in this moment.
            let _ = waiting.wake.send(came);
        }
    }
}

impl Shared {
    /// The namespace says that this one waits: it is asked from now on whether it came.
    pub(crate) fn ask_for_locks(self: &Arc<Self>, wait: &Wait<'_>, session: u64) {
        let must_begin = {
            let mut inner = self.locks.inner.lock();
            if let Some(waiting) = inner.waiting.get_mut(&wait.ticket) {
                waiting.session = Some(session);
            }
            !std::mem::replace(&mut inner.is_asking, true)
        };
        self.locks.more.notify_one();
        if must_begin {
            tokio::spawn(asking(Arc::downgrade(self)));
        }
    }
}

/// Asks until nobody waits any more.
async fn asking(shared: Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let session = shared.session.id();
        let Some(tickets) = shared.locks.tickets(session) else { return };
        let wait_ms = u32::try_from(limits::LOCK_QUESTION.as_millis()).unwrap_or(u32::MAX);
        let op = Op::AwaitLocks(pb::AwaitLocksOp { tickets, wait_ms });
        let begun = Instant::now();
        let answer = tokio::select! {
            answer = shared.session.read_once(&shared.own, op, shared.deadline()) => Some(answer),
            // Asked anew, with one more.
            () = shared.locks.more.notified() => None,
        };
        let is_news = match answer {
            Some(Ok(reply)) if reply.session == session => {
                shared.locks.granted(session, &reply.granted_tickets);
                !reply.granted_tickets.is_empty()
            }
            Some(Err(failure)) if failure.code == Code::SessionExpired => {
                if let Err(failure) = shared.renew(session, shared.deadline()).await {
                    tracing::warn!(%failure, "no new session for locks that are waited for");
                }
                false
            }
            Some(Ok(_)) => false,
            Some(Err(failure)) => {
                tracing::debug!(%failure, "the question for locks failed");
                false
            }
            None => true,
        };
        drop(shared);
        if !is_news && begun.elapsed() < limits::LOCK_PAUSE {
            tokio::time::sleep(limits::LOCK_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { inode: InodeId(5), flock: false, owner: 9 };

    #[test]
    fn an_owner_counts_from_its_question_to_its_end() {
        let locks = Locks::default();
        assert!(!locks.may_hold(OWNER));
        let refused = locks.claim(OWNER);
        assert!(locks.may_hold(OWNER));
        drop(refused);
        assert!(!locks.may_hold(OWNER));
        locks.claim(OWNER).keep(1);
        assert!(locks.may_hold(OWNER));
        let other = locks.claim(OWNER);
        locks.freed(OWNER);
        assert!(locks.may_hold(OWNER), "another request is on its way");
        drop(other);
        assert!(!locks.may_hold(OWNER));
    }

    #[test]
    fn a_session_takes_its_locks_along() {
        let locks = Locks::default();
        assert!(!locks.session_over(1));
        assert_eq!(locks.losses(), 0, "nothing was held");
        locks.claim(OWNER).keep(2);
        let mut wait = locks.wait(9);
        locks.inner.lock().waiting.get_mut(&wait.ticket).unwrap().session = Some(2);
        assert!(locks.session_over(2));
        assert_eq!((locks.losses(), locks.may_hold(OWNER)), (1, false));
        assert_eq!(wait.came.try_recv(), Ok(Came::SessionOver));
        locks.claim(OWNER).keep(2);
        assert_eq!((locks.losses(), locks.may_hold(OWNER)), (2, false), "granted too late");
        locks.claim(OWNER).keep(3);
        assert_eq!((locks.losses(), locks.may_hold(OWNER)), (2, true));
    }

    #[test]
    fn only_the_session_of_a_wait_says_that_it_came() {
        let locks = Locks::default();
        let mut wait = locks.wait(9);
        assert!(locks.tickets(1).is_none(), "it is not in line yet");
        locks.inner.lock().waiting.get_mut(&wait.ticket).unwrap().session = Some(1);
        assert_eq!(locks.tickets(1).unwrap().len(), 1);
        locks.granted(2, &[wait.ticket]);
        assert!(wait.came.try_recv().is_err());
        locks.granted(1, &[wait.ticket]);
        assert_eq!(wait.came.try_recv(), Ok(Came::Granted));
    }
}
