//! What this client may show without asking: callbacks of the namespace's leader, kept by a question that
//! is always on its way (docs/design/0004).
//!
//! The question's answer brings invalidations. They take effect here first, then with the listener (a
//! mount drops what its kernel caches), and only then the next question acknowledges them. Whoever cannot
//! ask has nothing to cache when the lease ends, by this client's own clock.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use ff2_client_core::HeldCallbacks;
use ff2_proto::{Code, InodeId, pb, pb::ns_request::Op};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{client::Shared, limits};

/// What a listener must drop; the namespace waits until it said so.
#[derive(Debug)]
pub struct Invalidation {
    /// `None`: everything.
    pub inodes: Option<Vec<InodeId>>,
    done: oneshot::Sender<()>,
}

impl Invalidation {
    /// Nothing of it is cached any more.
    pub fn done(self) {
        // Nobody waits if the client was closed.
        let _ = self.done.send(());
    }
}

/// The invalidations of one client, in their order. Dropped, they count as done.
#[derive(Debug)]
pub struct Invalidations(mpsc::Receiver<Invalidation>);

impl Invalidations {
    /// `None` when the client was closed.
    pub async fn next(&mut self) -> Option<Invalidation> {
        self.0.recv().await
    }
}

#[derive(Debug)]
pub(crate) struct Coherence {
    started: Instant,
    state: Mutex<State>,
    /// To the listener.
    listener: Mutex<Option<mpsc::Sender<Invalidation>>>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    held: HeldCallbacks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// What is known counts for [`crate::ClientOptions::cache`], as nobody says when it changes.
    ByAge,
    ByCallbacks,
}

impl Coherence {
    pub(crate) fn new() -> Self {
        let state = State { mode: Mode::ByAge, held: HeldCallbacks::new() };
        Self { started: Instant::now(), state: Mutex::new(state), listener: Mutex::default() }
    }

    pub(crate) fn position(&self) -> u64 {
        self.state.lock().held.position()
    }

    /// Takes in the promises of an answer that began at `since`, and leaves those that count.
    pub(crate) fn take(&self, since: u64, reply: &mut pb::NsReply) {
        if reply.callbacks.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let term = reply.callback_term;
        reply.callbacks.retain(|callback| {
            // An answer that is older than what was foreseen shows nothing, and may be cached as that.
            state.held.take(term, since, callback)
        });
    }

    /// Whether nobody else is answered of an inode in this version, or changes it, for long enough to bring
    /// a change to the namespace.
    pub(crate) fn is_sole(&self, inode: InodeId, version: u64) -> bool {
        let (state, now) = (self.state.lock(), self.now());
        state.mode == Mode::ByCallbacks
            && state.held.is_sole(now, inode, limits::SOLE_MARGIN)
            && state.held.is_current(now, inode, version)
    }

    pub(crate) fn is_current(&self, inode: InodeId, version: u64) -> bool {
        let state = self.state.lock();
        state.mode == Mode::ByCallbacks && state.held.is_current(self.now(), inode, version)
    }

    /// This client makes this version of an inode that is sole or new.
    pub(crate) fn foresee(&self, inode: InodeId, version: u64) {
        self.state.lock().held.foresee(inode, version);
    }

    /// An own change was answered.
    pub(crate) fn changed(&self, reply: &pb::NsReply) {
        let mut state = self.state.lock();
        let shown = [&reply.attr, &reply.parent_attr, &reply.replaced_attr];
        for attr in shown.into_iter().flatten() {
            state.held.changed(InodeId(attr.inode), attr.version);
        }
    }

    pub(crate) fn let_go(&self, inodes: &[InodeId]) {
        self.state.lock().held.let_go(inodes);
    }

    /// Those of which this client may know more than the namespace.
    #[must_use = "of these the namespace must hear first"]
    pub(crate) fn invalidate(&self, inodes: &[InodeId]) -> Vec<InodeId> {
        self.state.lock().held.invalidate(inodes)
    }

    /// The listener hears no more.
    pub(crate) fn stop(&self) {
        *self.listener.lock() = None;
    }

    /// Has the listener drop what it caches of these; `None`: there is none.
    pub(crate) fn tell(
        &self,
        inodes: Option<Vec<InodeId>>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let listener = self.listener.lock().clone()?;
        Some(async move {
            let (done, is_done) = oneshot::channel();
            // Without a listener nothing is cached but here.
            if listener.send(Invalidation { inodes, done }).await.is_ok() {
                let _ = is_done.await;
            }
        })
    }

    /// Whether the inode's callback is held, and its lease goes on.
    pub(crate) fn holds(&self, inode: InodeId) -> bool {
        let state = self.state.lock();
        state.mode == Mode::ByCallbacks && state.held.lasts(self.now(), inode) > Duration::ZERO
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().held.len()
    }

    fn renewed(&self, until: Duration) -> bool {
        let now = self.now();
        self.state.lock().held.renewed(now, until)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn begin(&self, mode: Mode, term: u64) {
        let mut state = self.state.lock();
        state.mode = mode;
        state.held.begin(term);
    }
}

impl Shared {
    /// Whether attributes of an open inode are those of the namespace, without asking it.
    pub(crate) fn is_fresh(&self, (attr, age): &(pb::Attr, Duration)) -> bool {
        let state = self.coherence.state.lock();
        match state.mode {
            Mode::ByAge => *age < self.options.cache,
            Mode::ByCallbacks => {
                let inode = InodeId(attr.inode);
                state.held.is_current(self.coherence.now(), inode, attr.version)
            }
        }
    }

    /// Whether it is known by now when the namespace changes, and not only what it was.
    pub(crate) fn has_callbacks(&self) -> bool {
        self.coherence.state.lock().mode == Mode::ByCallbacks
    }
}

/// What the answers to one request may be trusted for. Clones are of the same request.
#[derive(Clone)]
pub struct Trust {
    shared: Arc<Shared>,
    promised: Arc<Mutex<BTreeSet<InodeId>>>,
}

impl Trust {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, promised: Arc::default() }
    }

    pub(crate) fn note(&self, reply: &pb::NsReply) {
        if !reply.callbacks.is_empty() {
            let inodes = reply.callbacks.iter().map(|callback| InodeId(callback.inode));
            self.promised.lock().extend(inodes);
        }
    }

    /// For how long from now nobody else changes what was answered of an inode: of a directory also its
    /// entries, and which are not there.
    pub fn lasts(&self, inode: InodeId) -> Duration {
        let coherence = &self.shared.coherence;
        let state = coherence.state.lock();
        match state.mode {
            Mode::ByAge => self.shared.options.cache,
            Mode::ByCallbacks if self.promised.lock().contains(&inode) => {
                state.held.lasts(coherence.now(), inode)
            }
            Mode::ByCallbacks => Duration::ZERO,
        }
    }

    /// The same for all attributes. Those of a file that is written here change whenever its length and
    /// times are reported.
    pub fn attr_of(&self, inode: InodeId) -> Duration {
        if self.shared.has_callbacks() && self.shared.inodes.is_written(inode) {
            return Duration::ZERO;
        }
        self.lasts(inode)
    }

    /// Whether the time of what was trusted is over for all, as after a pause of this process.
    pub fn is_over(&self) -> bool {
        let coherence = &self.shared.coherence;
        let state = coherence.state.lock();
        state.mode == Mode::ByCallbacks && state.held.is_over(coherence.now())
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("promised", &*self.promised.lock()).finish_non_exhaustive()
    }
}

/// Starts to ask for invalidations.
pub(crate) fn listen(shared: &Arc<Shared>) -> (Invalidations, JoinHandle<()>) {
    // Until it is known that the namespace has callbacks, nothing is shown without asking.
    shared.coherence.begin(Mode::ByCallbacks, 0);
    let (sender, receiver) = mpsc::channel(1);
    *shared.coherence.listener.lock() = Some(sender);
    let asking = Asking { shared: Arc::downgrade(shared), at: At::default() };
    (Invalidations(receiver), tokio::spawn(asking.run()))
}

struct Asking {
    /// No reference between two rounds: the last clone of the client ends them.
    shared: Weak<Shared>,
    at: At,
}

/// Where the conversation with the leader is.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    session: u64,
    term: u64,
    /// Everything from before was dropped, and the leader does not know it yet.
    enroll: bool,
    /// Counts the beginnings, in the client's whole life.
    enrollment: u64,
    handled: u64,
}

impl At {
    fn begin_anew(&mut self, term: u64) {
        *self = Self {
            term,
            // Without a leader the question only finds out which one there is.
            enroll: term != 0,
            enrollment: self.enrollment + 1,
            handled: 0,
            ..*self
        };
    }
}

impl Asking {
    async fn run(mut self) {
        loop {
            let Some(shared) = self.shared.upgrade() else { return };
            let begun = Instant::now();
            let useful = self.round(&shared).await;
            drop(shared);
            if !useful {
                let pause = limits::INVALIDATION_PAUSE.saturating_sub(begun.elapsed());
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// One question. False: it was of no use, and the next one should not follow at once.
    async fn round(&mut self, shared: &Arc<Shared>) -> bool {
        let session = shared.session.id();
        if session != self.at.session {
            // Promises were made to the session before.
            self.drop_all(shared, self.at.term).await;
            self.at.session = session;
            self.at.begin_anew(self.at.term);
        }
        let op = Op::AwaitInvalidations(pb::AwaitInvalidationsOp {
            term: self.at.term,
            enroll: self.at.enroll,
            enrollment: self.at.enrollment,
            handled: self.at.handled,
            wait_ms: u32::try_from(limits::INVALIDATION_QUESTION.as_millis()).unwrap_or(u32::MAX),
        });
        let sent = shared.coherence.now();
        let deadline = Instant::now() + limits::INVALIDATION_PATIENCE;
        match shared.session.read_once(&shared.own, op, deadline).await {
            Ok(reply) if reply.session != session => false,
            Ok(reply) => self.heard(shared, sent, reply).await,
            Err(failure) if failure.code == Code::SessionExpired => {
                if let Err(failure) = shared.renew(session, shared.deadline()).await {
                    tracing::warn!(%failure, "no new session to cache in");
                }
                false
            }
            Err(failure) if matches!(failure.code, Code::InvalidArgument | Code::Unsupported) => {
                self.without_callbacks(shared).await;
                true
            }
            Err(failure) => {
                tracing::debug!(%failure, "no invalidations were heard");
                false
            }
        }
    }

    async fn heard(&mut self, shared: &Arc<Shared>, sent: Duration, reply: pb::NsReply) -> bool {
        let Some(invalidations) = reply.invalidations else { return false };
        let term = reply.callback_term;
        if invalidations.lease_ms == 0 {
            // A new leader, or one that has given this session up: it knows of nothing that is cached.
            self.drop_all(shared, term).await;
            let is_news = term != self.at.term;
            self.at.begin_anew(term);
            return is_news;
        }
        self.at.enroll = false;
        let inodes: Vec<InodeId> = invalidations.inodes.iter().copied().map(InodeId).collect();
        if !inodes.is_empty() {
            self.invalidate(shared, inodes).await;
            self.at.handled = self.at.handled.max(invalidations.last);
        }
        let lease = Duration::from_millis(invalidations.lease_ms.into());
        if !invalidations.more && !shared.coherence.renewed(sent + lease) {
            self.drop_all(shared, term).await;
            self.at.begin_anew(term);
        }
        true
    }

    async fn invalidate(&self, shared: &Arc<Shared>, inodes: Vec<InodeId>) {
        let soles = shared.coherence.invalidate(&inodes);
        shared.let_go(&soles).await;
        shared.journal.forget(Some(&inodes));
        for open in shared.inodes.invalidated(Some(&inodes)) {
            shared.let_append_go(open);
        }
        self.tell(shared, Some(inodes)).await;
    }

    async fn drop_all(&self, shared: &Arc<Shared>, term: u64) {
        shared.coherence.begin(Mode::ByCallbacks, term);
        shared.let_all_go().await;
        shared.journal.forget(None);
        for open in shared.inodes.invalidated(None) {
            shared.let_append_go(open);
        }
        self.tell(shared, None).await;
    }

    async fn tell(&self, shared: &Shared, inodes: Option<Vec<InodeId>>) {
        if let Some(telling) = shared.coherence.tell(inodes) {
            telling.await;
        }
    }

    /// A namespace of an earlier release makes no promises.
    async fn without_callbacks(&mut self, shared: &Arc<Shared>) {
        tracing::info!("the namespace has no callbacks: what it said is trusted for a while");
        self.drop_all(shared, 0).await;
        self.at.begin_anew(0);
        shared.coherence.begin(Mode::ByAge, 0);
        tokio::time::sleep(limits::CALLBACKS_RETRY).await;
        self.drop_all(shared, 0).await;
    }
}
