//! The leader's callbacks, performed: who is told before a change is logged, and which answers may be
//! cached. The rules are in [`ff2_meta_core::callbacks`], the story in docs/design/0004.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_fabric::{Call, NamespaceClient};
use ff2_meta_core::{
    callbacks::{Batch, CallbackLimits, Callbacks, Change},
    namespace::Cacheable,
};
use ff2_proto::{Code, Status, VolumeId, pb, status::check};
use parking_lot::Mutex;
use pb::ns_request::Op;
use tokio::sync::Notify;

use super::{NamespaceGroup, leader::NamespaceLead, own_request, questions::Questions};
use crate::{limits, metrics::CallbackMetrics};

/// The callbacks of one term.
#[derive(Debug)]
pub(super) struct CallbackBook {
    limits: CallbackLimits,
    volumes: Mutex<BTreeMap<VolumeId, Callbacks>>,
    /// Somebody handled an invalidation, enrolled, or left.
    progress: Notify,
    /// Sessions that wait for invalidations.
    pub(super) questions: Questions,
    metrics: CallbackMetrics,
}

impl CallbackBook {
    pub(super) fn new(metrics: CallbackMetrics) -> Self {
        let limits = CallbackLimits {
            lease_ms: millis(limits::CACHE_LEASE),
            held_max: limits::CALLBACKS_PER_SESSION_MAX,
            owed_max: limits::INVALIDATIONS_OWED_MAX,
            contended_ms: millis(limits::CONTENDED),
        };
        Self {
            limits,
            volumes: Mutex::default(),
            progress: Notify::new(),
            questions: Questions::default(),
            metrics,
        }
    }

    fn on<T>(&self, volume: VolumeId, act: impl FnOnce(&mut Callbacks) -> T) -> Option<T> {
        let mut volumes = self.volumes.lock();
        let callbacks = volumes.get_mut(&volume)?;
        let before = callbacks.counts();
        let outcome = act(callbacks);
        self.metrics.counted(before, callbacks.counts());
        Some(outcome)
    }

    /// Inodes of which a session may know more than the namespace.
    pub(super) fn soles(&self, volume: VolumeId) -> Vec<u64> {
        self.on(volume, |callbacks| callbacks.soles().collect()).unwrap_or_default()
    }

    /// Callbacks that each session of a volume holds; those that hold none are left out.
    fn held(&self, volume: VolumeId, sessions: &[pb::SessionRecord]) -> Held {
        let held = |callbacks: &mut Callbacks| {
            let by = sessions.iter().map(|session| (session.id, callbacks.held_by(session.id)));
            by.filter(|(_, held)| *held > 0).collect()
        };
        self.on(volume, held).unwrap_or_default()
    }
}

impl Drop for CallbackBook {
    fn drop(&mut self) {
        // Whoever leads next begins at nothing.
        let held = self.volumes.lock().values().map(|callbacks| callbacks.counts().held).sum();
        self.metrics.term_ended(held);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A change of the namespace that began; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ongoing {
    lead: Arc<NamespaceLead>,
    volume: VolumeId,
    change: Option<Change>,
}

impl Ongoing {
    /// Begins a change, and tells all who must handle it first. `None`: there is nothing to wait for.
    fn begin(
        lead: &Arc<NamespaceLead>,
        volume: VolumeId,
        begin: impl FnOnce(&mut Callbacks, u64) -> Option<Change>,
    ) -> Option<Self> {
        let book = &lead.callbacks;
        let now = lead.term.now_ms();
        let begun = book.on(volume, |callbacks| {
            let change = begin(callbacks, now)?;
            let told: BTreeSet<u64> = callbacks.waits_for(&change).collect();
            Some((change, told))
        });
        let (change, told) = begun.flatten()?;
        book.questions.wake(volume, told);
        Some(Self { lead: lead.clone(), volume, change: Some(change) })
    }

    /// Returns when nobody caches what is to be changed, or when the term is over.
    async fn clear(&self) -> Result<(), Status> {
        let Some(change) = &self.change else { return Ok(()) };
        let (lead, book) = (&self.lead, &self.lead.callbacks);
        let begun = Instant::now();
        let mut waited = false;
        loop {
            let progress = book.progress.notified();
            let now = lead.term.now_ms();
            let look = |callbacks: &mut Callbacks| {
                let is_clear = callbacks.is_clear(now, change);
                (is_clear, callbacks.clear_at(change).unwrap_or(now))
            };
            let (is_clear, at) = book.on(self.volume, look).unwrap_or((true, now));
            if is_clear {
                break;
            }
            waited = true;
            // A millisecond more: the clock counts whole ones.
            let left = Duration::from_millis(at.saturating_sub(now) + 1);
            let _ = tokio::time::timeout(left, progress).await;
            lead.check()?;
        }
        if waited {
            book.metrics.waited(begun.elapsed());
        }
        Ok(())
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if let Some(change) = self.change.take() {
            self.lead.callbacks.on(self.volume, |callbacks| callbacks.end(change));
        }
    }
}

impl NamespaceGroup {
    /// The term's callbacks of a volume, made at its first use: a new leader has to know which sessions
    /// may go by promises of its predecessors.
    pub(super) async fn callbacks_of(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
    ) -> Result<(), Status> {
        if lead.callbacks.volumes.lock().contains_key(&volume) {
            return Ok(());
        }
        let on_record = match self.sessions(volume).await {
            // A volume that was never used.
            Err(status) if status.code == Code::NotServing => Vec::new(),
            on_record => on_record?,
        };
        // Those that end may still serve their programs from what they cache.
        let earlier = on_record.iter().filter(|record| record.caches).map(|record| record.id);
        // Promises of earlier leaders were made before this term began, which is time 0 of its clock.
        let callbacks = || Callbacks::new(lead.callbacks.limits, 0, earlier);
        lead.callbacks.volumes.lock().entry(volume).or_insert_with(callbacks);
        Ok(())
    }

    /// Begins a change by a session, and returns when it may be logged. `behind`: its programs were told.
    pub(super) async fn begin_change(
        &self,
        lead: &Arc<NamespaceLead>,
        volume: VolumeId,
        (by, behind): (u64, bool),
        inodes: Vec<u64>,
    ) -> Result<Option<Ongoing>, Status> {
        self.callbacks_of(lead, volume).await?;
        let ongoing = Ongoing::begin(lead, volume, |callbacks, now| {
            Some(if behind {
                callbacks.begin_behind(now, by, inodes)
            } else {
                callbacks.begin(now, by, inodes)
            })
        });
        if let Some(ongoing) = &ongoing {
            ongoing.clear().await?;
        }
        Ok(ongoing)
    }

    /// Returns when no other session knows more of these inodes than the namespace. True: one did, so what
    /// was read before may be old.
    pub(super) async fn look(
        &self,
        lead: &Arc<NamespaceLead>,
        volume: VolumeId,
        by: u64,
        inodes: &[u64],
    ) -> Result<bool, Status> {
        self.callbacks_of(lead, volume).await?;
        let look = Ongoing::begin(lead, volume, |callbacks, now| callbacks.look(now, by, inodes));
        let Some(look) = look else { return Ok(false) };
        look.clear().await?;
        Ok(true)
    }

    /// What an answer that begins now must be given to [`NamespaceGroup::promise`] with.
    pub(super) fn position(&self, volume: VolumeId) -> Option<Position> {
        let lead = self.lead.get()?;
        let since = lead.callbacks.on(volume, |callbacks| callbacks.position())?;
        Some(Position { lead, volume, since })
    }

    /// Callbacks held by each session of a volume, as its leader knows: for people.
    pub(crate) async fn held_callbacks(&self, volume: VolumeId) -> Result<Held, Status> {
        let list = own_request(volume, Op::ListSessions(pb::ListSessionsOp {}));
        let leader = self.group.leadership().borrow().leader.clone();
        let Some(leader) = leader.filter(|_| self.lead.get().is_none()) else {
            let sessions = self.sessions(volume).await?;
            return Ok(self.held_here(volume, &sessions));
        };
        let client = NamespaceClient::new(self.chunks.peers.channel(&leader.address));
        let (reply, _) = client.execute(&list, Call::within(limits::OWN_COMMAND)).await?;
        check(reply.status)?;
        Ok(reply.held_callbacks)
    }

    /// As [`NamespaceGroup::held_callbacks`], if this metad leads.
    pub(super) fn held_here(&self, volume: VolumeId, sessions: &[pb::SessionRecord]) -> Held {
        let lead = self.lead.get();
        lead.map(|lead| lead.callbacks.held(volume, sessions)).unwrap_or_default()
    }
}

/// By session, how many callbacks it holds.
type Held = BTreeMap<u64, u64>;

/// When an answer began.
#[derive(Debug)]
pub(super) struct Position {
    lead: Arc<NamespaceLead>,
    volume: VolumeId,
    since: u64,
}

impl Position {
    /// Adds to an answer what its session may cache of it. `changed`: it is the answer to a change.
    pub(super) fn promise(
        &self,
        session: u64,
        (cacheable, changed): (Cacheable, bool),
        reply: &mut pb::NsReply,
    ) {
        let now = self.lead.term.now_ms();
        let shown = cacheable.shown(reply);
        reply.within = 0;
        let promised = self.lead.callbacks.on(self.volume, |callbacks| {
            callbacks.promise_shown(now, session, self.since, &shown, changed)
        });
        reply.callbacks = promised.unwrap_or_default();
        if !reply.callbacks.is_empty() {
            reply.callback_term = self.lead.term.number();
        }
        // Callbacks that were given up for these.
        let owes = |callbacks: &mut Callbacks| callbacks.owed_to(session, 1).last > 0;
        if self.lead.callbacks.on(self.volume, owes).unwrap_or(false) {
            self.lead.callbacks.questions.wake(self.volume, [session]);
        }
    }

    /// The session says that nothing is cached any more.
    pub(super) fn left(&self, session: u64) {
        self.lead.callbacks.on(self.volume, |callbacks| callbacks.leave(session));
        self.lead.callbacks.progress.notify_waiters();
    }
}

impl NamespaceLead {
    /// What a session that waits for invalidations said; the answer if it is to begin anew.
    pub(super) fn heard(
        &self,
        volume: VolumeId,
        session: u64,
        op: &pb::AwaitInvalidationsOp,
    ) -> Option<pb::Invalidations> {
        let now = self.term.now_ms();
        let is_here = op.term == self.term.number();
        let goes_on = self.callbacks.on(volume, |callbacks| {
            let begins = is_here && op.enroll;
            let enrolled = !begins || callbacks.enroll(now, session, op.enrollment).is_ok();
            let renew = |callbacks: &mut Callbacks| {
                callbacks.renew(now, session, op.enrollment, op.handled).is_ok()
            };
            is_here && enrolled && renew(callbacks)
        });
        self.callbacks.progress.notify_waiters();
        (!goes_on.unwrap_or(false)).then(pb::Invalidations::default)
    }

    /// What the session is owed.
    pub(super) fn owed(&self, volume: VolumeId, session: u64) -> pb::Invalidations {
        let at_most = limits::INVALIDATIONS_MAX;
        let owed = self.callbacks.on(volume, |callbacks| callbacks.owed_to(session, at_most));
        let Batch { last, inodes, more } = owed.unwrap_or_default();
        let lease_ms = u32::try_from(self.callbacks.limits.lease_ms).unwrap_or(u32::MAX);
        pb::Invalidations { lease_ms, last, inodes, more }
    }
}
