//! What the leader of a namespace group keeps in memory and does in its term: sessions that fall
//! silent expire, truncations and doubtful lengths that were left are settled; work with a file of its own begins here.
//!
//! Each kind of work is a loop of rounds; a round reads the state, does what it finds, and logs what
//! it did. A failed round is repeated, so rounds must be safe to repeat, and are.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use ff2_fabric::pace;
use ff2_group::Term;
use ff2_meta_core::namespace::{self, Owner, SessionBook};
use ff2_proto::{Code, Status, VolumeId, pb};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use pb::ns_request::Op;

use super::{NamespaceGroup, callbacks::CallbackBook, orphans::Gone, truncation::Truncations};
use crate::limits;

/// The present term's memory, if this metad leads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lead {
    now: Arc<Mutex<Option<Arc<NamespaceLead>>>>,
}

impl Lead {
    pub(crate) fn get(&self) -> Option<Arc<NamespaceLead>> {
        self.now.lock().clone().filter(|lead| lead.term.check().is_ok())
    }
}

/// As long as the term's work is not dropped.
struct Reign(Lead);

impl Drop for Reign {
    fn drop(&mut self) {
        *self.0.now.lock() = None;
    }
}

/// A leader's memory of one term.
#[derive(Debug)]
pub(crate) struct NamespaceLead {
    pub(super) term: Term,
    pub(super) book: Mutex<SessionBook>,
    pub(super) truncations: Truncations,
    /// Truncations, by inode and version, that were begun before this term: earlier leaders may know them.
    pub(super) inherited: BTreeSet<(u64, u64)>,
    pub(super) callbacks: CallbackBook,
    pub(super) gone: Mutex<BTreeMap<VolumeId, Gone>>,
}

impl NamespaceLead {
    pub(super) fn check(&self) -> Result<(), Status> {
        self.term.check()
    }

    pub(super) fn knows(&self, volume: VolumeId, session: u64) -> bool {
        self.book.lock().knows(volume, session)
    }

    pub(super) fn learn(&self, volume: VolumeId, on_record: &[pb::SessionRecord]) {
        self.book.lock().learn(self.term.now_ms(), volume, on_record);
    }

    pub(super) fn begin(&self, volume: VolumeId, session: &pb::SessionRecord) {
        self.book.lock().begin(self.term.now_ms(), volume, session);
    }

    pub(super) fn keepalive(
        &self,
        volume: VolumeId,
        session: u64,
        owner: Owner,
        said: pb::KeepaliveOp,
    ) -> Result<(), Status> {
        let mut book = self.book.lock();
        book.keepalive(self.term.now_ms(), volume, session, owner, said)
    }
}

impl NamespaceGroup {
    /// The work of one term; the caller drops it when the term ends.
    pub(crate) async fn lead_term(self: Arc<Self>, term: Term) {
        tracing::info!(term = term.number(), "leads the namespace group");
        let inherited = self.unfinished().await;
        let book = Mutex::new(SessionBook::new(self.session_ms.into()));
        let lead = Arc::new(NamespaceLead {
            term,
            book,
            truncations: Truncations::default(),
            inherited,
            callbacks: CallbackBook::new(self.callback_metrics.clone()),
            gone: Mutex::default(),
        });
        *self.lead.now.lock() = Some(lead.clone());
        let _reign = Reign(self.lead.clone());
        let (group, lead) = (&self, &lead);
        futures::join!(
            rounds("expire sessions", limits::SESSIONS_ROUND, || group.expire_sessions(lead)),
            rounds("collect orphans", limits::ORPHANS_ROUND, || group.collect_orphans(lead)),
            rounds("settle truncations", limits::LEFTOVERS_ROUND, || {
                group.settle_leftovers(lead)
            }),
            rounds("recover lengths", limits::LEFTOVERS_ROUND, || group.recover_lengths(lead)),
            rounds("count quotas", limits::QUOTAS_ROUND, || group.count_quotas(lead)),
            rounds("empty the trash", limits::TRASH_ROUND, || group.expire_trash(lead)),
            rounds_after(
                "make snapshots",
                || group.await_snapshot(),
                || group.step_snapshots(lead),
            ),
        );
    }

    /// Before this metad takes any command of its term.
    async fn unfinished(&self) -> BTreeSet<(u64, u64)> {
        loop {
            match self.group.query(|kv| namespace::unfinished(kv)).await.flatten() {
                Ok(unfinished) => return unfinished,
                Err(status) => tracing::debug!(%status, "what is unfinished is not known yet"),
            }
            tokio::time::sleep(limits::UNFINISHED_PAUSE).await;
        }
    }

    /// The sessions of a volume that are on record.
    pub(crate) async fn sessions(
        &self,
        volume: VolumeId,
    ) -> Result<Vec<pb::SessionRecord>, Status> {
        Ok(self.ask(volume, Op::ListSessions(pb::ListSessionsOp {})).await?.sessions)
    }

    async fn expire_sessions(&self, lead: &NamespaceLead) -> Result<(), Status> {
        for volume in self.volumes() {
            self.make_root(lead, volume).await?;
            let on_record = self.sessions(volume).await?;
            lead.learn(volume, &on_record);
            let now = lead.term.now_ms();
            let expired = {
                let mut book = lead.book.lock();
                let expired = book.expired(now, volume);
                book.end(volume, &expired);
                expired
            };
            if !expired.is_empty() {
                tracing::warn!(
                    %volume,
                    sessions = ?expired,
                    "these mounts fell silent, or acknowledge no removal of files: expired"
                );
            }
            let ending =
                on_record.iter().filter(|session| session.ending).map(|session| session.id);
            let over: Vec<u64> = ending.chain(expired).collect();
            for batch in over.chunks(ff2_meta_core::namespace::limits::EXPIRE_BATCH_MAX) {
                lead.term.check()?;
                let sessions = batch.to_vec();
                let op = Op::ExpireSessions(pb::ExpireSessionsOp { sessions });
                self.command(volume, op).await?;
            }
        }
        Ok(())
    }

    /// The first command of a new volume, whatever it says, makes its root.
    async fn make_root(&self, lead: &NamespaceLead, volume: VolumeId) -> Result<(), Status> {
        match self.ask(volume, Op::StatFs(pb::StatFsOp { inode: 0 })).await {
            Err(status) if status.code == Code::NotServing => {
                lead.term.check()?;
                let nothing = Op::ExpireSessions(pb::ExpireSessionsOp::default());
                self.command(volume, nothing).await?;
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Truncations that an earlier leader, or a client that went away, left unfinished.
    async fn settle_leftovers(self: &Arc<Self>, lead: &Arc<NamespaceLead>) -> Result<(), Status> {
        for volume in self.volumes() {
            let (mut after_inode, limit) = (0, limits::LEFTOVERS_PAGE);
            loop {
                let op = Op::ListTruncating(pb::ListTruncatingOp { after_inode, limit });
                let reply = self.ask(volume, op).await?;
                let last = reply.truncations.last().map(|truncation| truncation.inode);
                for truncation in reply.truncations {
                    drop(self.begin_truncation(lead, volume, truncation));
                }
                match last {
                    Some(last) if !reply.end => after_inode = last,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Asks the chains how long files are. Each round goes through all that are in doubt, many at a
    /// time, so that those on a chain that is down do not keep the others.
    async fn recover_lengths(&self, lead: &NamespaceLead) -> Result<(), Status> {
        for volume in self.volumes() {
            let (mut after_inode, limit) = (0, limits::LEFTOVERS_PAGE);
            loop {
                let op = Op::ListLengthDoubts(pb::ListLengthDoubtsOp { after_inode, limit });
                let reply = self.ask(volume, op).await?;
                let last = reply.length_doubts.last().map(|doubt| doubt.inode);
                let recover = |doubt: pb::LengthDoubt| async move {
                    if let Err(status) = self.recover_length(lead, volume, &doubt).await {
                        tracing::info!(%volume, inode = doubt.inode, %status, "length unknown yet");
                    }
                };
                stream::iter(reply.length_doubts.into_iter().map(recover))
                    .buffer_unordered(limits::RECOVERED_TOGETHER)
                    .collect::<()>()
                    .await;
                lead.term.check()?;
                match last {
                    Some(last) if !reply.end => after_inode = last,
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// Repeats a round for ever; the first one begins at once.
async fn rounds<F, Fut>(what: &'static str, every: Duration, round: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), Status>>,
{
    rounds_after(what, || pace::pause(every), round).await;
}

/// As [`rounds`], each after a `pause`.
async fn rounds_after<F, Fut, P>(what: &'static str, mut pause: impl FnMut() -> P, mut round: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), Status>>,
    P: Future<Output = ()>,
{
    let mut failing = false;
    loop {
        match round().await {
            Ok(()) => failing = false,
            Err(status) if !failing => {
                failing = true;
                tracing::info!(what, %status, "a round failed and will be repeated");
            }
            Err(_) => {}
        }
        pause().await;
    }
}
