//! The session with the namespace: exactly-once mutations, keepalive, reports of lengths.

mod many;
mod renewal;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ff2_client_core::{Mutations, limits as core_limits};
use ff2_fabric::{Call, NamespaceClient, leader::LeaderFinder};
use ff2_proto::{Code, InodeId, Retry, Status, VolumeId, pb, pb::ns_request::Op, status::check};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

use crate::{Result, client::Shared, inodes::OpenInode, journal::Foresight, limits};

#[derive(Debug)]
pub(crate) struct Session {
    volume: VolumeId,
    finder: LeaderFinder,
    description: String,
    /// It asks for callbacks.
    caches: bool,
    state: Mutex<State>,
    /// Held while a new session is opened: whoever finds the old one expired waits here.
    renewing: tokio::sync::Mutex<()>,
    /// A permit per mutation in flight.
    slots: Semaphore,
    /// The client says goodbye: an expired session is not replaced any more.
    closing: AtomicBool,
}

#[derive(Debug)]
struct State {
    id: u64,
    lease: Duration,
    mutations: Mutations,
    /// When the last renewal that was answered was sent.
    renewed: Instant,
    orphans_before: u64,
}

/// A mutation's number; ended when dropped.
struct Numbered<'a> {
    session: &'a Session,
    id: u64,
    seq: u64,
}

impl Drop for Numbered<'_> {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        if state.id == self.id {
            state.mutations.end(self.seq);
        }
    }
}

impl Session {
    pub(crate) async fn open(
        finder: LeaderFinder,
        volume: VolumeId,
        description: &str,
        caches: bool,
        cred: &pb::Credentials,
        deadline: Instant,
    ) -> Result<Self> {
        let state = State {
            id: 0,
            lease: Duration::ZERO,
            mutations: Mutations::new(),
            renewed: Instant::now(),
            orphans_before: 0,
        };
        let session = Self {
            volume,
            finder,
            description: description.to_owned(),
            caches,
            state: Mutex::new(state),
            renewing: tokio::sync::Mutex::new(()),
            slots: Semaphore::new(core_limits::MUTATIONS_MAX),
            closing: AtomicBool::new(false),
        };
        session.register(cred, deadline).await?;
        Ok(session)
    }

    pub(crate) fn id(&self) -> u64 {
        self.state.lock().id
    }

    /// Number of the newest orphan from before the session. Whether anybody has those open may have been
    /// judged without it.
    pub(crate) fn orphans_before(&self) -> u64 {
        self.state.lock().orphans_before
    }

    fn lease(&self) -> Duration {
        self.state.lock().lease
    }

    /// Whether the namespace cannot have ended the session by now: it counts from when it hears a
    /// renewal, which is not before it was sent, by a clock that may be faster than this one.
    fn is_certain(&self) -> bool {
        let state = self.state.lock();
        state.renewed.elapsed() < state.lease - state.lease / limits::LEASE_MARGIN
    }

    fn renewed(&self, id: u64, sent: Instant) {
        let mut state = self.state.lock();
        if state.id == id {
            state.renewed = state.renewed.max(sent);
        }
    }

    /// Opens a session and makes it the current one.
    async fn register(&self, cred: &pb::Credentials, deadline: Instant) -> Result<()> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)
            .map_err(|error| Status::new(Code::Internal, format!("no randomness: {error}")))?;
        let op = pb::OpenSessionOp {
            description: self.description.clone(),
            // 0 would be no nonce.
            nonce: u64::from_le_bytes(nonce) | 1,
            caches: self.caches,
        };
        let request = self.request(0, 0, 0, cred, Op::OpenSession(op));
        let renewed = Instant::now();
        let reply = self.send(request, deadline, &AtomicBool::new(false)).await?;
        if reply.session == 0 {
            return Err(Status::new(Code::Internal, "the namespace opened session 0"));
        }
        let lease = Duration::from_millis(u64::from(reply.session_lease_ms).max(100));
        let mutations = Mutations::new();
        let orphans_before = reply.orphan_seq;
        *self.state.lock() = State { id: reply.session, lease, mutations, renewed, orphans_before };
        tracing::info!(session = reply.session, ?lease, "session opened");
        Ok(())
    }

    pub(crate) async fn close(&self, cred: &pb::Credentials, deadline: Instant) {
        self.closing.store(true, Ordering::Release);
        let op = Op::CloseSession(pb::CloseSessionOp {});
        if let Err(failure) = self.mutate_once(cred, op, deadline).await {
            tracing::debug!(%failure, "the session was not closed; it will expire");
        }
    }

    pub(crate) fn volume(&self) -> VolumeId {
        self.volume
    }

    fn request(
        &self,
        session: u64,
        seq: u64,
        ack_below: u64,
        cred: &pb::Credentials,
        op: Op,
    ) -> pb::NsRequest {
        pb::NsRequest {
            volume: self.volume.0,
            session,
            seq,
            ack_below,
            cred: Some(cred.clone()),
            at_ns: 0,
            op: Some(op),
        }
    }

    /// To the leader of the volume's group, until it answers. `unanswered` becomes true when a try
    /// may have been carried out without an answer.
    async fn send(
        &self,
        request: pb::NsRequest,
        deadline: Instant,
        unanswered: &AtomicBool,
    ) -> Result<pb::NsReply> {
        let request = Arc::new(request);
        let ask = |channel, limit| {
            let request = request.clone();
            async move {
                let call = Call { timeout: limit, ..Call::default() };
                let answer = NamespaceClient::new(channel).execute(&request, call).await;
                let (reply, _) = answer.inspect_err(|failure| {
                    let is_lost = matches!(failure.code, Code::Timeout | Code::UnknownOutcome);
                    unanswered.fetch_or(is_lost, Ordering::Relaxed);
                })?;
                check(reply.status.clone())?;
                Ok(reply)
            }
        };
        self.finder.call(deadline, ask).await
    }

    pub(crate) async fn read_once(
        &self,
        cred: &pb::Credentials,
        op: Op,
        deadline: Instant,
    ) -> Result<pb::NsReply> {
        let request = self.request(self.id(), 0, 0, cred, op);
        self.send(request, deadline, &AtomicBool::new(false)).await
    }

    /// `None` only for a moment, when a permit is free before its number is.
    fn begin_mutation(&self) -> Option<(Numbered<'_>, u64)> {
        let mut state = self.state.lock();
        let seq = state.mutations.begin()?;
        let number = Numbered { session: self, id: state.id, seq };
        Some((number, state.mutations.ack_below()))
    }

    /// One mutation under the current session, which is told; the same number through all its retries.
    pub(crate) async fn mutate_once(
        &self,
        cred: &pb::Credentials,
        op: Op,
        deadline: Instant,
    ) -> Result<(pb::NsReply, u64)> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let (number, ack_below) = loop {
            if let Some(begun) = self.begin_mutation() {
                break begun;
            }
            tokio::task::yield_now().await;
        };
        let is_repeatable = is_repeatable(&op);
        let request = self.request(number.id, number.seq, ack_below, cred, op);
        let unanswered = AtomicBool::new(false);
        match self.send(request, deadline, &unanswered).await {
            // The answer went with the session, and another try could meet its own effect.
            Err(failure)
                if failure.code == Code::SessionExpired
                    && unanswered.load(Ordering::Relaxed)
                    && !is_repeatable =>
            {
                let detail = "the session expired before the answer came: look whether it was done";
                Err(Status::new(Code::UnknownOutcome, detail))
            }
            answer => Ok((answer?, number.id)),
        }
    }
}

impl Shared {
    /// A question to the namespace.
    pub(crate) async fn read(
        self: &Arc<Self>,
        cred: &pb::Credentials,
        op: Op,
    ) -> Result<pb::NsReply> {
        let deadline = self.deadline();
        if let Some(known) = self.known(cred, &op) {
            return Ok(known);
        }
        if let Some(inode) = self.lacks_only(&op) {
            match self.by_number(cred, inode, deadline).await {
                Err(failure) if failure.code != Code::StaleInode => return Err(failure),
                _ => {}
            }
            if let Some(known) = self.known(cred, &op) {
                return Ok(known);
            }
        }
        self.ask(cred, op, deadline).await
    }

    /// Changes of the folder that are on their way need not be waited for.
    async fn by_number(
        self: &Arc<Self>,
        cred: &pb::Credentials,
        inode: InodeId,
        deadline: Instant,
    ) -> Result<pb::NsReply> {
        // On the heap: most questions never come here.
        Box::pin(self.ask(cred, Op::GetAttr(pb::GetAttrOp { inode: inode.0 }), deadline)).await
    }

    async fn ask(
        self: &Arc<Self>,
        cred: &pb::Credentials,
        op: Op,
        deadline: Instant,
    ) -> Result<pb::NsReply> {
        for _ in 0..limits::RENEWALS_MAX {
            self.settle_named(&op, deadline).await?;
            let id = self.session.id();
            let since = self.coherence.position();
            match self.session.read_once(cred, op.clone(), deadline).await {
                Err(failure) if failure.code == Code::SessionExpired => {
                    self.renew(id, deadline).await?;
                }
                Ok(mut reply) => {
                    self.coherence.take(since, &mut reply);
                    self.learn(cred, &op, &reply);
                    return Ok(reply);
                }
                failure => return failure,
            }
        }
        Err(Status::new(Code::SessionExpired, "each new session expired at once"))
    }

    /// A change of the namespace, once, and the session that it was made in. If it is foreseen its answer
    /// comes before the namespace knows of it: [`Self::settle_journal`] waits for that.
    pub(crate) async fn mutate_in(
        self: &Arc<Self>,
        cred: &pb::Credentials,
        op: Op,
    ) -> Result<(pb::NsReply, u64)> {
        let deadline = self.deadline();
        let mut asked = 0;
        loop {
            match self.foresee(cred, &op) {
                Foresight::Answer(reply, session) => return Ok((*reply, session)),
                Foresight::Soon if Instant::now() < deadline => self.journal.moves().await,
                Foresight::Soon => break,
                Foresight::No => {
                    let lacks = self.lacks_only(&op).filter(|_| asked < limits::BY_NUMBER_MAX);
                    let Some(inode) = lacks else { break };
                    // It may be known then, and if not the namespace is asked for all of it.
                    asked += 1;
                    drop(self.by_number(cred, inode, deadline).await);
                }
            }
        }
        // What was foreseen comes before what is not.
        self.settle_journal(deadline).await?;
        let mut unforeseen = self.unforeseen(&op);
        // What was foreseen meanwhile may be of the same.
        self.settle_named(&op, deadline).await?;
        for _ in 0..limits::RENEWALS_MAX {
            let id = self.session.id();
            let since = self.coherence.position();
            match self.session.mutate_once(cred, op.clone(), deadline).await {
                Err(failure) if failure.code == Code::SessionExpired => {
                    self.renew(id, deadline).await?;
                }
                Ok((mut reply, session)) => {
                    self.learn_room(&reply);
                    self.coherence.changed(&reply);
                    self.coherence.take(since, &mut reply);
                    self.learn(cred, &op, &reply);
                    unforeseen.is_known = !matches!(op, Op::Rename(_) | Op::Link(_));
                    return Ok((reply, session));
                }
                Err(failure) => {
                    unforeseen.is_known =
                        failure.retry() == Retry::Never && failure.code != Code::UnknownOutcome;
                    return Err(failure);
                }
            }
        }
        Err(Status::new(Code::SessionExpired, "each new session expired at once"))
    }

    /// Tells the namespace of all lengths that it does not know: a goodbye.
    pub(crate) async fn report_lengths(self: &Arc<Self>) {
        stream::iter(self.inodes.overdue(Duration::ZERO))
            .for_each_concurrent(limits::REPORTS_MAX, |open| async move {
                if let Err(failure) = self.report_length_gated(open.id).await {
                    tracing::warn!(inode = %open.id, %failure, "length not reported");
                }
            })
            .await;
    }

    /// Tells the namespace of a length from time to time. Not while the inode's last report is on its
    /// way, or somebody has it alone: both may wait for a chain that is down.
    async fn report_beside(self: &Arc<Self>, open: &OpenInode) {
        let (Ok(_only), Ok(_with_others)) = (open.reporting.try_lock(), open.gate.try_read())
        else {
            return;
        };
        if let Err(failure) = self.report_length(open.id).await {
            tracing::warn!(inode = %open.id, %failure, "length not reported");
        }
    }

    /// Returns when it is certain that the session lives: it may have ended unnoticed, as during a long
    /// pause of this process. A failure of the servers is a pause here, too.
    pub(crate) async fn make_sure_of_session(self: &Arc<Self>) -> Result<()> {
        let deadline = self.deadline();
        while !self.session.is_certain() {
            if Instant::now() >= deadline || self.session.closing.load(Ordering::Acquire) {
                let detail = "the namespace did not say in time that the session lives";
                return Err(Status::new(Code::Timeout, detail));
            }
            self.keepalive().await;
            if !self.session.is_certain() {
                tokio::time::sleep(limits::LOCK_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn keepalive(self: &Arc<Self>) {
        let lease = self.session.lease();
        loop {
            let id = self.session.id();
            let (seen_orphan_seq, holds) = self.inodes.keepalive();
            let holds = holds.into_iter().map(|inode| inode.0).collect();
            let op = Op::Keepalive(pb::KeepaliveOp { seen_orphan_seq, holds });
            let sent = Instant::now();
            match self.session.read_once(&self.own, op, sent + lease).await {
                Ok(reply) => {
                    self.session.renewed(id, sent);
                    if !self.inodes.noticed(&reply.orphans) {
                        return;
                    }
                    // The notices are acknowledged at once: their chunks wait for it.
                }
                Err(failure) if failure.code == Code::SessionExpired => {
                    if let Err(failure) = self.renew(id, self.deadline()).await {
                        tracing::error!(%failure, "no new session");
                    }
                    return;
                }
                Err(failure) => {
                    tracing::warn!(%failure, "keepalive failed");
                    return;
                }
            }
        }
    }
}

/// Whether a second time has no other answer than the first: all but the changes of names.
fn is_repeatable(op: &Op) -> bool {
    match op {
        Op::MakeNode(_) | Op::Link(_) | Op::Unlink(_) | Op::Rename(_) => false,
        Op::Create(op) => !op.exclusive,
        _ => true,
    }
}

/// The keepalive and the reporter of lengths. They hold no reference between two rounds, so that the
/// last clone of the client ends them.
pub(crate) fn start_tasks(shared: &Arc<Shared>) -> [JoinHandle<()>; 2] {
    let weak = Arc::downgrade(shared);
    let keepalive = tokio::spawn(async move {
        loop {
            let Some(shared) = weak.upgrade() else { return };
            let pause = shared.session.lease() / 3;
            drop(shared);
            tokio::time::sleep(pause).await;
            let Some(shared) = weak.upgrade() else { return };
            shared.keepalive().await;
        }
    });
    let weak = Arc::downgrade(shared);
    let reporter = tokio::spawn(async move {
        let mut tick = tokio::time::interval(limits::REPORT_AGE / 2);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reports = JoinSet::new();
        loop {
            tick.tick().await;
            while reports.try_join_next().is_some() {}
            let Some(shared) = weak.upgrade() else { return };
            for open in shared.inodes.overdue(limits::REPORT_AGE) {
                if reports.len() >= limits::REPORTS_MAX {
                    break;
                }
                let shared = shared.clone();
                reports.spawn(async move { shared.report_beside(&open).await });
            }
        }
    });
    [keepalive, reporter]
}
