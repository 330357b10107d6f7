//! The service `Namespace`: file system operations of the volumes whose group this metad holds.
//!
//! Reads of sessions are the leader's, which knows what a session may know alone; others are linearizable
//! on any replica. Mutations are stamped by the leader, proposed, and answered when they are applied; the
//! machine makes them exactly-once. What an answer owes to storage (a
//! truncation's chunks, a length that only the chains know) is paid before the answer leaves.
//! Keepalives live in the leader's memory ([`namespace::SessionBook`]); the leader's background work is in
//! [`leader`].

mod batch;
mod callbacks;
mod check;
mod chunks;
mod doubt;
mod exports;
mod guard;
mod invalidations;
pub(crate) mod leader;
mod locks;
mod mend;
mod orphans;
mod plan;
mod questions;
mod quotas;
mod snapshots;
mod space;
mod stamp;
mod trash;
mod truncation;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use ff2_daemon::{Operation, Operations};
use ff2_fabric::{
    Answer, Buf, Call, ClusterKey, Context, Namespace as NamespaceRpc, Peer, RaftClient,
    check_rules,
};
use ff2_group::Group;
use ff2_meta_core::namespace::{self, Namespace};
use ff2_proto::{Code, Routing, Status, VolumeId, pb, status::check};
use pb::ns_request::Op;
use prost::Message;
use tokio::sync::Notify;

use crate::{
    NAMESPACE_GROUP, cluster::ClusterGroup, cluster::within, limits, metrics::CallbackMetrics,
};
pub(crate) use chunks::Chunks;
use exports::Ruled;
use guard::Asker;
use leader::NamespaceLead;
pub(crate) use mend::Checked;
use questions::Questions;
use space::SpaceCache;
use stamp::Stamps;
pub(crate) use trash::now_ns as trash_now_ns;

/// The namespace group with what its leader needs.
#[derive(Debug)]
pub(crate) struct NamespaceGroup {
    pub(crate) group: Group<Namespace>,
    pub(crate) cluster: ClusterGroup,
    pub(crate) key: ClusterKey,
    pub(crate) chunks: Chunks,
    pub(crate) lead: leader::Lead,
    pub(crate) session_ms: u32,
    /// How long a new leader expects steps of earlier leaders' truncations to take effect.
    inherited_steps: Duration,
    stamps: Stamps,
    space: SpaceCache,
    lock_questions: Questions,
    callback_metrics: CallbackMetrics,
    /// A snapshot is to be made or removed.
    snapshot_ordered: Notify,
}

impl NamespaceGroup {
    pub(crate) fn new(
        group: Group<Namespace>,
        cluster: ClusterGroup,
        key: ClusterKey,
        chunks: Chunks,
        election_timeout: Duration,
        callback_metrics: CallbackMetrics,
    ) -> Arc<Self> {
        let session_ms = cluster.lease.session_ms;
        let space = SpaceCache::new(chunks.clone());
        Arc::new(Self {
            group,
            cluster,
            key,
            chunks,
            lead: leader::Lead::default(),
            session_ms,
            // A call, and twice what the election may have hidden of its predecessor's last reads.
            inherited_steps: limits::CHUNK_CALL + 2 * election_timeout,
            stamps: Stamps::new(),
            space,
            lock_questions: Questions::default(),
            callback_metrics,
            snapshot_ordered: Notify::new(),
        })
    }

    /// Asks the machine of a replica that is up to date.
    async fn query(&self, request: pb::NsRequest, asker: Asker) -> Result<pb::NsReply, Status> {
        let Asker { owner, subtree } = asker;
        self.group.query(move |kv| namespace::query_within(kv, &request, owner, subtree)).await
    }

    /// As [`NamespaceGroup::query`], with what other sessions alone know. Only the leader knows which; in no
    /// session it is the state as the log has it, of any replica.
    async fn query_shared(
        &self,
        volume: VolumeId,
        request: pb::NsRequest,
        asker: Asker,
    ) -> Result<pb::NsReply, Status> {
        let session = request.session;
        if session == 0 {
            return self.query(request, asker).await;
        }
        loop {
            let lead = self.lead.get().ok_or_else(|| self.not_leading())?;
            let mut reply = self.query(request.clone(), asker).await?;
            let looked = self.looked_at(&request, &mut reply)?;
            if !self.look(&lead, volume, session, &looked).await? {
                return Ok(reply);
            }
        }
    }

    /// All that an answer depends on.
    fn looked_at(
        &self,
        request: &pb::NsRequest,
        reply: &mut pb::NsReply,
    ) -> Result<Vec<u64>, Status> {
        let (_, mut looked) = self.meant(request)?;
        let shown = namespace::Cacheable::All.shown(reply);
        looked.extend(shown.iter().map(|shown| shown.inode));
        looked.append(&mut reply.walked);
        let is_lost = matches!(request.op, Some(Op::Resolve(_))) && looked.len() <= 1;
        if is_lost && let Some(lead) = self.lead.get() {
            // How far it came it does not say.
            looked.extend(lead.callbacks.soles(VolumeId(request.volume)));
        }
        Ok(looked)
    }

    /// As [`NamespaceGroup::query`], for an operation of metad itself; a refusal is an error.
    pub(crate) async fn ask(&self, volume: VolumeId, op: Op) -> Result<pb::NsReply, Status> {
        let reply = self.query(own_request(volume, op), Asker::DAEMON).await?;
        check(reply.status.clone())?;
        Ok(reply)
    }

    /// Logs an operation of the leader itself; a refusal is an error.
    pub(crate) async fn command(&self, volume: VolumeId, op: Op) -> Result<pb::NsReply, Status> {
        let reply =
            within(limits::OWN_COMMAND, self.propose(own_request(volume, op), Asker::DAEMON))
                .await?;
        check(reply.status.clone())?;
        Ok(reply)
    }

    pub(crate) fn not_leader(&self) -> Status {
        let leader = self.group.leadership().borrow().leader.clone();
        Status::not_leader(leader.map(|leader| leader.address))
    }

    /// Adds the space that files can use.
    pub(crate) async fn fill_space(&self, statfs: &mut pb::StatFs) {
        self.space.fill(statfs, &self.cluster.routing()).await;
    }

    /// Removes a metad from this group, wherever its leader is.
    pub(crate) async fn remove_node(&self, node: u32) -> Result<(), Status> {
        match self.group.remove(node).await {
            Err(Status { code: Code::NotLeader, leader_address: Some(leader), .. }) => {
                let client = RaftClient::new(self.chunks.peers.channel(&leader));
                let request = pb::LeaveGroupRequest { group: NAMESPACE_GROUP.0, node };
                let call = Call::within(limits::OWN_COMMAND);
                let (reply, _) = client.leave_group(&request, call).await?;
                check(reply.status)
            }
            outcome => outcome,
        }
    }

    pub(crate) fn volumes(&self) -> Vec<VolumeId> {
        let routing = self.cluster.routing();
        let mine = routing.volumes.values().filter(|volume| volume.group == NAMESPACE_GROUP.0);
        mine.map(|volume| VolumeId(volume.id)).collect()
    }

    /// Logs a request, once nobody caches what it changes.
    async fn propose(&self, request: pb::NsRequest, asker: Asker) -> Result<pb::NsReply, Status> {
        let volume = VolumeId(request.volume);
        let mut reply = self.tell_and_propose(request.clone(), asker).await?;
        for _ in 1..limits::TELL_TRIES {
            let is_busy = reply.status.as_ref().is_some_and(|status| status.code() == Code::Busy);
            if !is_busy {
                break;
            }
            // Mostly because the file is being cut. If a name came to mean another inode the next try
            // tells who caches that.
            reply = self.tell_and_propose(request.clone(), asker).await?;
        }
        // Whose they are is nobody else's business.
        let granted = std::mem::take(&mut reply.lock_grants);
        self.lock_questions.wake(volume, granted.iter().map(|grant| grant.session));
        if matches!(request.op, Some(Op::CloseSession(_) | Op::ExpireSessions(_))) {
            self.lock_questions.wake_all(volume);
        }
        Ok(reply)
    }

    async fn tell_and_propose(
        &self,
        request: pb::NsRequest,
        asker: Asker,
    ) -> Result<pb::NsReply, Status> {
        let lead = self.lead.get().ok_or_else(|| self.not_leading())?;
        let (volume, session) = (VolumeId(request.volume), request.session);
        let (mut touched, mut looked) = self.meant(&request)?;
        // What another session knows alone of what is changed here comes first; then a name may mean
        // another inode.
        while session != 0 && self.look(&lead, volume, session, &looked).await? {
            (touched, looked) = self.meant(&request)?;
        }
        let ongoing = self.begin_change(&lead, volume, (session, false), touched.clone()).await?;
        let command = self.stamps.stamp(request, asker, &self.cluster.routing())?;
        let command = pb::NsCommand { told: true, touched, ..command };
        let (group, bytes) = (self.group.clone(), Bytes::from(command.encode_to_vec()));
        // In a task of its own: whoever asked may give up, and the command still be applied. Until that
        // is decided it is changing.
        let applying = tokio::spawn(async move {
            let reply = group.propose(bytes).await;
            drop(ongoing);
            reply
        });
        let lost = |_| Status::new(Code::UnknownOutcome, "the process is stopping");
        let reply = applying.await.map_err(lost)??;
        pb::NsReply::decode(reply).map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    /// What a request would change as the keys are now, and what its answer depends on.
    fn meant(&self, request: &pb::NsRequest) -> Result<(Vec<u64>, Vec<u64>), Status> {
        let meant = |kv: &dyn ff2_meta_core::KvRead| {
            (namespace::touched(kv, request), namespace::looked(kv, request))
        };
        let stopped = || Status::new(Code::ShuttingDown, "the group stopped");
        self.group.read_stale(meant).ok_or_else(stopped)
    }

    /// Whether there is anything to log of these access times, which are left as far as they change something.
    fn keep_due_atimes(&self, op: &mut pb::TouchAtimeOp) -> Result<bool, Status> {
        let level = self.cluster.routing().level;
        let stopped = || Status::new(Code::ShuttingDown, "the group stopped");
        self.group.read_stale(|kv| namespace::keep_due_atimes(kv, op, level)).ok_or_else(stopped)
    }

    /// Why nothing can be logged here. One that was just elected asks for a moment's patience.
    fn not_leading(&self) -> Status {
        if self.group.leadership().borrow().is_leader {
            return Status::new(Code::Busy, "this leader begins its term");
        }
        self.not_leader()
    }
}

fn own_request(volume: VolumeId, op: Op) -> pb::NsRequest {
    pb::NsRequest {
        volume: volume.0,
        cred: Some(pb::Credentials::default()),
        op: Some(op),
        ..Default::default()
    }
}

pub(crate) struct NamespaceService {
    pub(crate) namespace: Arc<NamespaceGroup>,
    pub(crate) operations: Operations,
}

impl NamespaceRpc for NamespaceService {
    async fn execute(
        &self,
        cx: Context,
        mut request: pb::NsRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        guard::admit(&mut request, &cx.peer)?;
        let routing = self.namespace.cluster.routing();
        let ruled = Ruled::of(&routing, VolumeId(request.volume), &cx);
        ruled.obey(&mut request, &cx)?;
        let op = request.op.as_ref().map_or("none", guard::op_name);
        let detail = format!("volume {} session {}", request.volume, request.session);
        let operation = self.operations.begin(op, detail);
        let mut outcome = self.run(&cx, &operation, request, &ruled).await;
        if let Ok(reply) = &mut outcome {
            ruled.temper(reply);
        }
        operation.end(outcome).map(Answer::from)
    }
}

impl NamespaceService {
    async fn run(
        &self,
        cx: &Context,
        operation: &Operation,
        mut request: pb::NsRequest,
        ruled: &Ruled,
    ) -> Result<pb::NsReply, Status> {
        let leads = self.namespace.lead.get().is_some();
        serves(&self.namespace.cluster.routing(), VolumeId(request.volume), leads)
            .map_err(|refusal| refusal.unwrap_or_else(|| self.namespace.not_leader()))?;
        if let Some(Op::Keepalive(keepalive)) = &request.op {
            return self.keepalive(cx, &request, keepalive.clone()).await;
        }
        if let Some(Op::AwaitLocks(awaited)) = &request.op {
            let at_most = Duration::from_millis(awaited.wait_ms.into());
            operation.waits_for("locks that others hold");
            return self.await_locks(cx, request, at_most).await;
        }
        if let Some(Op::AwaitInvalidations(op)) = &request.op {
            operation.waits_for("changes of what the session caches");
            return self.await_invalidations(cx, &request, op).await;
        }
        if let Some(Op::Batch(batch)) = &mut request.op {
            let requests = std::mem::take(&mut batch.requests);
            return self.batch(cx, operation, (&request, ruled), requests).await;
        }
        if let Some(Op::TouchAtime(op)) = &mut request.op
            && !self.namespace.keep_due_atimes(op)?
        {
            return Ok(pb::NsReply::default());
        }
        if namespace::is_mutation(&request) {
            // Apart: it would make reads as large.
            Box::pin(self.mutate(cx, operation, request, ruled)).await
        } else {
            self.read(cx, request, ruled).await
        }
    }

    async fn read(
        &self,
        cx: &Context,
        request: pb::NsRequest,
        ruled: &Ruled,
    ) -> Result<pb::NsReply, Status> {
        let patience = cx.remaining();
        if let Some(Op::ReadInline(op)) = &request.op {
            self.check_grant(cx, op)?;
        }
        let wanted = Wanted::of(&request, ruled);
        let is_statfs = matches!(request.op, Some(Op::StatFs(_)));
        let volume = VolumeId(request.volume);
        let position = self.namespace.position(volume);
        let (session, cacheable) = (request.session, namespace::cacheable(&request));
        let query = self.namespace.query_shared(volume, request, guard::asker(&cx.peer));
        let reply = tokio::time::timeout(patience, query).await;
        let mut reply =
            reply.map_err(|_| Status::new(Code::Timeout, "no quorum answered in time"))??;
        if is_statfs && let Some(statfs) = &mut reply.statfs {
            self.namespace.fill_space(statfs).await;
            quotas::narrow(statfs);
        }
        self.add_grant(&mut reply, wanted);
        reply.held_callbacks = self.namespace.held_here(volume, &reply.sessions);
        if let Some(position) = position {
            position.promise(session, (cacheable, false), &mut reply);
        }
        Ok(reply)
    }

    async fn mutate(
        &self,
        cx: &Context,
        operation: &Operation,
        request: pb::NsRequest,
        ruled: &Ruled,
    ) -> Result<pb::NsReply, Status> {
        let volume = VolumeId(request.volume);
        let wanted = Wanted::of(&request, ruled);
        let asker = guard::asker(&cx.peer);
        let is_open_session = matches!(request.op, Some(Op::OpenSession(_)));
        let is_close_session = matches!(request.op, Some(Op::CloseSession(_)));
        let position = self.namespace.position(volume);
        let (session, cacheable) = (request.session, namespace::cacheable(&request));
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN / 2);
        let begun = std::time::Instant::now();
        operation.waits_for("its commit");
        let mut reply = within(patience, self.namespace.propose(request, asker)).await?;
        if let Some(truncation) = reply.truncation.take() {
            operation.waits_for("the truncation's chunks");
            let left = patience.saturating_sub(begun.elapsed());
            let paid = self.namespace.settle_truncation(volume, truncation);
            within(left, paid).await?;
        }
        if std::mem::take(&mut reply.length_in_doubt) {
            operation.waits_for("the chains that know the length");
            let left = patience.saturating_sub(begun.elapsed());
            within(left, self.namespace.settle_length(volume, &mut reply)).await?;
        }
        if is_open_session {
            reply.session_lease_ms = self.namespace.session_ms;
        }
        self.add_grant(&mut reply, wanted);
        if let Some(position) = position {
            if is_close_session && check(reply.status.clone()).is_ok() {
                position.left(session);
            }
            position.promise(session, (cacheable, true), &mut reply);
        }
        Ok(reply)
    }

    /// The bytes of a file are for those that opened it, as with chunks.
    fn check_grant(&self, cx: &Context, op: &pb::ReadInlineOp) -> Result<(), Status> {
        if matches!(cx.peer, Peer::Daemon) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let grant = self.namespace.key.check_grant(&op.grant, now.as_secs())?;
        check_rules(&grant, &self.namespace.cluster.routing())?;
        let granted = if grant.snapshot == 0 { grant.inode } else { grant.shown_as };
        if granted == op.inode && grant.read {
            return Ok(());
        }
        let detail = format!("the grant is not to read inode {}", op.inode);
        Err(Status::new(Code::Forbidden, detail))
    }

    /// Lets the answered session do the I/O that it opened the file for.
    fn add_grant(&self, reply: &mut pb::NsReply, wanted: Option<Wanted>) {
        let (Some(wanted), Some(attr)) = (wanted, &reply.attr) else { return };
        if check(reply.status.clone()).is_err() || attr.kind() != pb::FileKind::Regular {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let is_past = attr.snapshot != 0;
        let grant = pb::Grant {
            inode: if is_past { attr.origin } else { attr.inode },
            snapshot: attr.snapshot,
            shown_as: if is_past { attr.inode } else { 0 },
            session: wanted.session,
            read: wanted.read,
            write: wanted.write,
            expires_s: (now + limits::GRANT).as_secs(),
            volume: wanted.volume,
            ruled_at: wanted.ruled_at,
            mac: Bytes::new(),
        };
        reply.grant = self.namespace.key.grant(grant);
    }

    /// Renews a session from the leader's memory and tells it of new orphans.
    async fn keepalive(
        &self,
        cx: &Context,
        request: &pb::NsRequest,
        keepalive: pb::KeepaliveOp,
    ) -> Result<pb::NsReply, Status> {
        let group = &self.namespace;
        let lead: Arc<NamespaceLead> = group.lead.get().ok_or_else(|| group.not_leader())?;
        if keepalive.holds.len() > limits::HOLDS_MAX {
            return Err(Status::new(Code::InvalidArgument, "too many files are held"));
        }
        let volume = VolumeId(request.volume);
        let after = keepalive.seen_orphan_seq;
        let owner = guard::asker(&cx.peer).owner;
        let session = request.session;
        if !lead.knows(volume, session)
            && let Some(record) =
                group.group.query(move |kv| namespace::session(kv, session)).await??
        {
            lead.begin(volume, &record);
        }
        lead.keepalive(volume, request.session, owner, keepalive)?;
        let op = Op::ListOrphans(pb::ListOrphansOp { after, limit: limits::NOTICES_MAX });
        let patience = cx.remaining().min(Duration::from_secs(5));
        let orphans = within(patience, group.ask(volume, op)).await?.orphan_inodes;
        // After a read that was up to date: a leader that was replaced unnoticed knows it by now.
        lead.check()?;
        let notice = |orphan: pb::Orphan| pb::OrphanNotice { seq: orphan.seq, inode: orphan.inode };
        Ok(pb::NsReply {
            session: request.session,
            session_lease_ms: group.session_ms,
            orphans: orphans.into_iter().map(notice).collect(),
            ..Default::default()
        })
    }
}

/// Whether a volume is this group's, as far as this metad knows. A replica that does not lead may
/// know nothing yet, after its folder was lost for instance: `Err(None)`, ask the leader.
fn serves(routing: &Routing, volume: VolumeId, leads: bool) -> Result<(), Option<Status>> {
    match routing.volumes.get(&volume).map(|volume| volume.group) {
        Some(group) if group == NAMESPACE_GROUP.0 => Ok(()),
        Some(group) => Err(Some(Status::new(Code::NotFound, format!("group {group} is not here")))),
        None if !leads => Err(None),
        None if routing.version.0 == 0 => {
            Err(Some(Status::new(Code::NotServing, "this metad has not learned the routing yet")))
        }
        None => Err(Some(Status::new(Code::NotFound, format!("no volume {volume}")))),
    }
}

/// What an opening operation asks to be granted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    session: u64,
    read: bool,
    write: bool,
    volume: u32,
    ruled_at: u64,
}

impl Wanted {
    fn of(request: &pb::NsRequest, ruled: &Ruled) -> Option<Self> {
        let (read, write) = namespace::granted(request)?;
        let (session, volume) = (request.session, request.volume);
        Some(Self { session, read, write, volume, ruled_at: ruled.at })
    }
}

#[cfg(test)]
mod tests {
    use ff2_proto::RoutingVersion;

    use super::*;

    #[test]
    fn only_a_leader_that_knows_the_routing_says_that_there_is_no_volume() {
        let mut routing = Routing::default();
        let refusal = |routing: &Routing, leads| {
            serves(routing, VolumeId(1), leads).unwrap_err().map(|status| status.code)
        };
        assert_eq!(refusal(&routing, false), None, "it asks to find the leader");
        assert_eq!(refusal(&routing, true), Some(Code::NotServing));
        routing.version = RoutingVersion(3);
        assert_eq!(refusal(&routing, false), None);
        assert_eq!(refusal(&routing, true), Some(Code::NotFound));
        let volume = pb::Volume { id: 1, group: NAMESPACE_GROUP.0, ..Default::default() };
        routing.volumes.insert(VolumeId(1), volume);
        assert_eq!(serves(&routing, VolumeId(1), false), Ok(()));
    }
}
