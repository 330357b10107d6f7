//! A cluster inside the test: one metad around the real namespace machine, two storage nodes around
//! one store in memory, real connections between them and the client. Faults are switched on by hand.

#[path = "fake/cluster.rs"]
mod cluster;
#[path = "fake/lead.rs"]
mod lead;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use ff2_fabric::{
    Answer, Buf, BufPool, ClusterKey, ClusterServer, Context, Namespace, NamespaceServer, Peer,
    Router, RoutingCache, Server, ServerConfig, SharedBuf, Storage, StorageServer, UserToken,
};
use ff2_meta_core::{
    MemKv, StateMachine,
    callbacks::{Batch, CallbackLimits, Callbacks},
    namespace::{self, Class},
};
use ff2_proto::{Code, ROOT_INODE, Status, limits, pb, pb::ns_request::Op};
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;

pub(crate) const CLUSTER_ID: &str = "in-process";
pub(crate) const CHUNK_SIZE: u32 = limits::CHUNK_SIZE_MIN;
const CHAINS: u32 = 4;
const STRIPE: u32 = 3;
const LEASE_MS: u32 = 600;
const CALLBACKS: CallbackLimits =
    CallbackLimits { lease_ms: 3_000, held_max: 10_000, owed_max: 1_000, contended_ms: 20 };
/// Of the leader that the metad is for ever.
const TERM: u64 = 1;

pub(crate) struct Fake {
    pub(crate) state: Arc<State>,
    stop: CancellationToken,
    addresses: Vec<String>,
}

/// Everything that the servers share.
pub(crate) struct State {
    key: ClusterKey,
    names: Mutex<Names>,
    /// What a metad's leader keeps in its memory, in its only term.
    callbacks: Mutex<Callbacks>,
    callbacks_moved: tokio::sync::Notify,
    began: Instant,
    routing: Mutex<pb::RoutingDelta>,
    routing_changed: tokio::sync::Notify,
    chunks: Mutex<BTreeMap<(u64, u32), Chunk>>,
    /// What keepalives said, the newest last.
    pub(crate) keepalives: Mutex<Vec<pb::KeepaliveOp>>,
    /// The next answers of mutations that are lost after they took effect.
    pub(crate) lose_mutations: AtomicU32,
    /// The session of such a mutation expires before it can be asked for again.
    pub(crate) lose_sessions: AtomicBool,
    /// The same as `lose_mutations` for updates of chunks.
    pub(crate) lose_updates: AtomicU32,
    /// Nodes (bits) that refuse everything.
    pub(crate) down: AtomicU32,
    /// The index of chunks for which there is no space; `u32::MAX`: none.
    pub(crate) full_chunk: AtomicU32,
    /// The chain that serves no reads for a while; 0: none.
    pub(crate) stuck_chain: AtomicU32,
    /// The metad answers nothing about names.
    pub(crate) silent: AtomicBool,
    /// The next writing opens that are held as long as `holding`.
    pub(crate) hold_opens: AtomicU32,
    pub(crate) holding: AtomicBool,
    /// Of grants from now on, seconds; 0 expires at once.
    pub(crate) grant_s: AtomicU64,
    /// Questions for names and attributes.
    pub(crate) questions: AtomicU32,
    /// Requests with changes that were foreseen.
    pub(crate) batches: AtomicU32,
    /// Questions for extended attributes.
    pub(crate) xattr_reads: AtomicU32,
    pub(crate) reads: AtomicU32,
    pub(crate) updates: AtomicU32,
}

struct Names {
    kv: MemKv,
    index: u64,
    machine: namespace::Namespace,
}

#[derive(Clone, Default)]
struct Chunk {
    bytes: Vec<u8>,
    version: u64,
    tags: BTreeMap<(u64, u32), (u64, u64)>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let key = ClusterKey::generate().unwrap();
        let state = Arc::new(State {
            key: key.clone(),
            names: Mutex::new(Names { kv: MemKv::new(), index: 0, machine: namespace::Namespace }),
            callbacks: Mutex::new(Callbacks::new(CALLBACKS, 0, [])),
            callbacks_moved: tokio::sync::Notify::new(),
            began: Instant::now(),
            routing: Mutex::default(),
            routing_changed: tokio::sync::Notify::new(),
            chunks: Mutex::default(),
            keepalives: Mutex::default(),
            lose_mutations: AtomicU32::new(0),
            lose_sessions: AtomicBool::new(false),
            lose_updates: AtomicU32::new(0),
            down: AtomicU32::new(0),
            full_chunk: AtomicU32::new(u32::MAX),
            stuck_chain: AtomicU32::new(0),
            silent: AtomicBool::new(false),
            hold_opens: AtomicU32::new(0),
            holding: AtomicBool::new(false),
            grant_s: AtomicU64::new(3600),
            questions: AtomicU32::new(0),
            batches: AtomicU32::new(0),
            xattr_reads: AtomicU32::new(0),
            reads: AtomicU32::new(0),
            updates: AtomicU32::new(0),
        });
        let stop = CancellationToken::new();
        let mut addresses = Vec::new();
        for node in 0..3 {
            let pool = BufPool::new(256 << 20);
            let config = ServerConfig::new(CLUSTER_ID, key.clone(), pool, RoutingCache::new());
            let server = Server::bind("127.0.0.1:0", config).await.unwrap();
            addresses.push(server.local_addr().to_string());
            let router = if node == 0 {
                let metad = Arc::new(Metad(state.clone()));
                Router::new()
                    .add(ClusterServer::new(metad.clone()))
                    .add(NamespaceServer::new(metad))
            } else {
                Router::new().add(StorageServer::new(Arc::new(Node(state.clone(), node))))
            };
            tokio::spawn(server.serve(router, stop.clone()));
        }
        *state.routing.lock() = routing(&addresses);
        Self { state, stop, addresses }
    }

    pub(crate) fn metads(&self) -> Vec<String> {
        vec![self.addresses[0].clone()]
    }

    pub(crate) fn token(&self, uid: u32, root: bool) -> UserToken {
        let claims = pb::UserClaims {
            uid,
            gid: uid,
            name: format!("user-{uid}"),
            token_id: u64::from(uid) + 1,
            root,
            ..Default::default()
        };
        self.issue(claims)
    }

    pub(crate) fn issue(&self, claims: pb::UserClaims) -> UserToken {
        self.state.key.issue(claims)
    }

    /// The cluster found out that a node is dead: its targets leave their chains.
    pub(crate) fn remove_from_chains(&self, node: u32) {
        let mut routing = self.state.routing.lock();
        routing.version += 1;
        let version = routing.version;
        for chain in &mut routing.chains {
            chain.version += 1;
            chain.changed_at = version;
            for member in chain.members.iter_mut().filter(|member| member.node == node + 10) {
                member.state = pb::PublicState::Offline.into();
            }
        }
        drop(routing);
        self.state.routing_changed.notify_waiters();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn routing(addresses: &[String]) -> pb::RoutingDelta {
    let nodes = [1u32, 2].map(|node| pb::Node {
        id: node + 10,
        role: pb::NodeRole::Storaged.into(),
        address: addresses[node as usize].clone(),
        alive: true,
        ..Default::default()
    });
    let chains = (1..=CHAINS).map(|id| {
        let member = |node: u32| pb::ChainMember {
            target: u64::from(id * 100 + node),
            state: pb::PublicState::Serving.into(),
            node: node + 10,
        };
        // Heads alternate.
        let members = if id % 2 == 0 { [1, 2] } else { [2, 1] }.map(member).to_vec();
        pb::Chain { id, version: 1, members, changed_at: 1, ..Default::default() }
    });
    pb::RoutingDelta {
        version: 5,
        nodes: nodes.to_vec(),
        chains: chains.collect(),
        tables: vec![pb::ChainTable {
            id: 1,
            version: 1,
            chains: (1..=CHAINS).collect(),
            replicas: 2,
            ..Default::default()
        }],
        volumes: vec![pb::Volume {
            id: 1,
            name: "default".into(),
            group: 1,
            root_inode: ROOT_INODE.0,
            changed_at: 1,
            ..Default::default()
        }],
        cluster_id: CLUSTER_ID.into(),
        ..Default::default()
    }
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// Takes one from a counter of faults.
fn strike(faults: &AtomicU32) -> bool {
    faults.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl State {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn log(&self, request: pb::NsRequest) -> Result<pb::NsReply, Status> {
        self.log_within(request, 0)
    }

    fn log_within(&self, request: pb::NsRequest, subtree: u64) -> Result<pb::NsReply, Status> {
        let layout = pb::Layout {
            table: 1,
            table_version: 1,
            chunk_size: CHUNK_SIZE,
            stripe: STRIPE,
            seed: 0,
        };
        let command = namespace::stamp(request, now_ns(), 7, Some(layout));
        let command = pb::NsCommand { subtree, level: ff2_proto::LEVEL, ..command };
        let mut names = self.names.lock();
        names.index += 1;
        let Names { kv, index, machine } = &mut *names;
        let answer = machine.apply(*index, &command.encode_to_vec(), kv);
        let reply = pb::NsReply::decode(answer).unwrap();
        ff2_proto::status::check(reply.status.clone())?;
        Ok(reply)
    }

    /// What the leader's driver does with the notes that the machine leaves.
    fn finish(&self, reply: &pb::NsReply) {
        let Some(cut) = &reply.truncation else { return };
        if cut.spill.is_empty() {
            self.cut(cut.inode, cut.size);
        } else {
            self.chunks.lock().entry((cut.inode, 0)).or_default().bytes = cut.spill.to_vec();
        }
        let op = pb::FinishTruncateOp { inode: cut.inode, truncate_version: cut.truncate_version };
        let op = Some(Op::FinishTruncate(op));
        self.log(pb::NsRequest { volume: 1, op, ..Default::default() }).unwrap();
    }

    fn cut(&self, inode: u64, size: u64) {
        self.chunks.lock().retain(|(of, index), chunk| {
            let start = u64::from(*index) * u64::from(CHUNK_SIZE);
            if *of == inode {
                chunk.bytes.truncate(size.saturating_sub(start) as usize);
            }
            *of != inode || start < size
        });
    }

    fn expire(&self, session: u64) {
        let op = Op::ExpireSessions(pb::ExpireSessionsOp { sessions: vec![session] });
        let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
        self.log(request).unwrap();
    }

    /// How many lengths the leader's driver would ask the chains about.
    pub(crate) fn doubts(&self) -> usize {
        let op = Some(Op::ListLengthDoubts(pb::ListLengthDoubtsOp::default()));
        let request = pb::NsRequest { volume: 1, op, ..Default::default() };
        namespace::query(&self.names.lock().kv, &request).length_doubts.len()
    }

    /// Names that the namespace knows of a folder.
    pub(crate) fn names_in(&self, inode: u64) -> Vec<String> {
        let op = Op::ReadDir(pb::ReadDirOp { inode, limit: 1_000, ..Default::default() });
        let cred = Some(pb::Credentials::default());
        let request = pb::NsRequest { volume: 1, cred, op: Some(op), ..Default::default() };
        let reply = namespace::query(&self.names.lock().kv, &request);
        let name = |entry: &pb::Entry| String::from_utf8_lossy(&entry.name).into_owned();
        reply.entries.iter().map(name).collect()
    }

    fn orphans(&self) -> Vec<pb::OrphanNotice> {
        let op = Some(Op::ListOrphans(pb::ListOrphansOp { after: 0, limit: 100 }));
        let request = pb::NsRequest { volume: 1, op, ..Default::default() };
        let reply = namespace::query(&self.names.lock().kv, &request);
        let notice =
            |orphan: &pb::Orphan| pb::OrphanNotice { seq: orphan.seq, inode: orphan.inode };
        reply.orphan_inodes.iter().map(notice).collect()
    }
}

struct Metad(Arc<State>);

impl Namespace for Metad {
    async fn execute(
        &self,
        cx: Context,
        request: pb::NsRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        let subtree = match &cx.peer {
            Peer::User(claims) => claims.subtree,
            Peer::Daemon => 0,
        };
        while self.0.silent.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let class = namespace::class(&request).ok_or(Code::InvalidArgument)?;
        let since = self.0.callbacks.lock().position();
        let granted = namespace::granted(&request);
        let mut reply = match class {
            Class::Leader => return Err(Code::Forbidden.into()),
            Class::Read => {
                if let Some(Op::ReadInline(op)) = &request.op {
                    let now_s = now_ns() as u64 / 1_000_000_000;
                    let grant = self.0.key.check_grant(&op.grant, now_s)?;
                    assert!(grant.inode == op.inode && grant.read, "{grant:?}");
                }
                if matches!(request.op, Some(Op::Lookup(_) | Op::GetAttr(_))) {
                    self.0.questions.fetch_add(1, SeqCst);
                }
                if matches!(request.op, Some(Op::GetXattr(_))) {
                    self.0.xattr_reads.fetch_add(1, SeqCst);
                }
                let reply = self.look_and_query(&request, subtree).await;
                ff2_proto::status::check(reply.status.clone())?;
                reply
            }
            Class::Keepalive => {
                return match &request.op {
                    Some(Op::AwaitInvalidations(op)) => {
                        self.await_invalidations(&request, op).await
                    }
                    _ => self.keepalive(&request),
                }
                .map(Answer::from);
            }
            Class::Mutation if matches!(request.op, Some(Op::Batch(_))) => {
                return self.batch(request, subtree).await.map(Answer::from);
            }
            Class::Session | Class::Mutation => {
                let is_open = matches!(request.op, Some(Op::Open(_)));
                if is_open && strike(&self.0.hold_opens) {
                    while self.0.holding.load(SeqCst) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                let reply = self.change(&request, subtree).await?;
                if class == Class::Mutation && strike(&self.0.lose_mutations) {
                    if self.0.lose_sessions.load(SeqCst) {
                        self.0.expire(request.session);
                    }
                    return Err(Code::UnknownOutcome.into());
                }
                reply
            }
        };
        if matches!(request.op, Some(Op::OpenSession(_))) {
            reply.session_lease_ms = LEASE_MS;
        }
        self.grant_and_promise(&request, granted, since, &mut reply);
        Ok(reply.into())
    }
}

impl Metad {
    fn grant_and_promise(
        &self,
        request: &pb::NsRequest,
        granted: Option<(bool, bool)>,
        since: u64,
        reply: &mut pb::NsReply,
    ) {
        if let Some((read, write)) = granted {
            let inode = reply.attr.as_ref().map_or(0, |attr| attr.inode);
            let now_s = now_ns() as u64 / 1_000_000_000;
            let expires_s = now_s + self.0.grant_s.load(SeqCst);
            let session = request.session;
            let grant = pb::Grant { inode, session, read, write, expires_s, ..Default::default() };
            reply.grant = self.0.key.grant(grant);
        }
        let shown = namespace::cacheable(request).shown(reply);
        let (now, session) = (self.0.now_ms(), request.session);
        let changed = namespace::class(request) == Some(Class::Mutation);
        let mut callbacks = self.0.callbacks.lock();
        reply.callbacks = callbacks.promise_shown(now, session, since, &shown, changed);
        reply.callback_term = TERM;
        self.0.callbacks_moved.notify_waiters();
    }

    /// Waits until no other session knows more of what the answer depends on.
    async fn look_and_query(&self, request: &pb::NsRequest, subtree: u64) -> pb::NsReply {
        let state = &self.0;
        loop {
            let (reply, mut looked) = {
                let names = state.names.lock();
                let reply = namespace::query_within(&names.kv, request, None, subtree);
                (reply, namespace::looked(&names.kv, request))
            };
            let shown = namespace::Cacheable::All.shown(&reply);
            looked.extend(shown.iter().map(|shown| shown.inode).chain(reply.walked.clone()));
            if !self.look(request.session, &looked).await {
                return reply;
            }
        }
    }

    async fn look(&self, session: u64, looked: &[u64]) -> bool {
        let state = &self.0;
        let look = state.callbacks.lock().look(state.now_ms(), session, looked);
        let Some(look) = look else { return false };
        state.callbacks_moved.notify_waiters();
        while !state.callbacks.lock().is_clear(state.now_ms(), &look) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        state.callbacks.lock().end(look);
        true
    }

    /// One after the other. An answer that is lost is lost as a whole.
    async fn batch(&self, whole: pb::NsRequest, subtree: u64) -> Result<pb::NsReply, Status> {
        let Some(Op::Batch(batch)) = whole.op else { unreachable!("the caller looked") };
        self.0.batches.fetch_add(1, SeqCst);
        let mut replies = Vec::new();
        for part in batch.requests {
            let (session, ack_below) = (whole.session, whole.ack_below);
            let part = pb::NsRequest { volume: 1, session, ack_below, ..part };
            let since = self.0.callbacks.lock().position();
            let reply = match self.change(&part, subtree).await {
                Ok(mut reply) => {
                    self.grant_and_promise(&part, namespace::granted(&part), since, &mut reply);
                    reply
                }
                Err(status) => pb::NsReply { status: Some(status.into()), ..Default::default() },
            };
            replies.push(reply);
        }
        if strike(&self.0.lose_mutations) {
            if self.0.lose_sessions.load(SeqCst) {
                self.0.expire(whole.session);
            }
            return Err(Code::UnknownOutcome.into());
        }
        Ok(pb::NsReply { batch: replies, ..Default::default() })
    }

    /// Logs a change once nobody caches what it touches.
    async fn change(&self, request: &pb::NsRequest, subtree: u64) -> Result<pb::NsReply, Status> {
        let state = &self.0;
        let looked = namespace::looked(&state.names.lock().kv, request);
        while self.look(request.session, &looked).await {}
        let touched = namespace::touched(&state.names.lock().kv, request);
        let change = state.callbacks.lock().begin(state.now_ms(), request.session, touched);
        state.callbacks_moved.notify_waiters();
        while !state.callbacks.lock().is_clear(state.now_ms(), &change) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let outcome = state.log_within(request.clone(), subtree);
        if let Ok(reply) = &outcome {
            state.finish(reply);
        }
        state.callbacks.lock().end(change);
        outcome
    }

    async fn await_invalidations(
        &self,
        request: &pb::NsRequest,
        op: &pb::AwaitInvalidationsOp,
    ) -> Result<pb::NsReply, Status> {
        let (state, session) = (&self.0, request.session);
        let answer = |invalidations| pb::NsReply {
            session,
            callback_term: TERM,
            invalidations: Some(invalidations),
            ..Default::default()
        };
        let goes_on = {
            let (mut callbacks, now) = (state.callbacks.lock(), state.now_ms());
            let is_in = !op.enroll || callbacks.enroll(now, session, op.enrollment).is_ok();
            let renewed = callbacks.renew(now, session, op.enrollment, op.handled);
            op.term == TERM && is_in && renewed.is_ok()
        };
        if !goes_on {
            return Ok(answer(pb::Invalidations::default()));
        }
        let until = Instant::now() + Duration::from_millis(op.wait_ms.into());
        loop {
            let moved = state.callbacks_moved.notified();
            let Batch { last, inodes, more } = state.callbacks.lock().owed_to(session, 100);
            let left = until.saturating_duration_since(Instant::now());
            if !inodes.is_empty() || op.enroll || left.is_zero() {
                let lease_ms = CALLBACKS.lease_ms as u32;
                return Ok(answer(pb::Invalidations { lease_ms, last, inodes, more }));
            }
            let _ = tokio::time::timeout(left, moved).await;
        }
    }

    fn keepalive(&self, request: &pb::NsRequest) -> Result<pb::NsReply, Status> {
        let Some(Op::Keepalive(op)) = &request.op else { unreachable!() };
        let probe = Op::ListSessions(pb::ListSessionsOp {});
        let ask = pb::NsRequest { volume: 1, op: Some(probe), ..Default::default() };
        let known = namespace::query(&self.0.names.lock().kv, &ask).sessions;
        if known.iter().all(|session| session.id != request.session) {
            return Err(Code::SessionExpired.into());
        }
        self.0.keepalives.lock().push(op.clone());
        let mut orphans = self.0.orphans();
        orphans.retain(|notice| notice.seq > op.seen_orphan_seq);
        Ok(pb::NsReply { orphans, ..Default::default() })
    }
}

struct Node(Arc<State>, u32);

impl Node {
    fn check(&self, chain: u32, version: u64, grant: &[u8]) -> Result<pb::Grant, Status> {
        if self.0.down.load(SeqCst) & (1 << self.1) != 0 {
            return Err(Code::Fenced.into());
        }
        let routing = self.0.routing.lock();
        let known = routing.chains.iter().find(|known| known.id == chain);
        let known = known.ok_or(Code::NoSuchTarget)?;
        if known.version > version {
            return Err(Status::stale_routing(Some(known.clone()), "the chain moved on"));
        }
        let now_s = now_ns() as u64 / 1_000_000_000;
        self.0.key.check_grant(grant, now_s)
    }

    fn read_part(
        &self,
        part: &pb::ReadPart,
        grant: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<pb::ReadPartReply, Status> {
        if part.chain == self.0.stuck_chain.load(SeqCst) {
            return Err(Code::Fenced.into());
        }
        let grant = self.check(part.chain, part.chain_version, grant)?;
        let key = part.chunk.ok_or(Code::InvalidArgument)?;
        if grant.inode != key.inode || !(grant.read || grant.write) {
            return Err(Code::Forbidden.into());
        }
        let chunk = self.0.chunks.lock().get(&(key.inode, key.index)).cloned().unwrap_or_default();
        let mut bytes = vec![0; part.length as usize];
        let from = chunk.bytes.len().min(part.offset as usize);
        let until = chunk.bytes.len().min((part.offset + part.length) as usize);
        bytes[..until - from].copy_from_slice(&chunk.bytes[from..until]);
        let reply = pb::ReadPartReply {
            status: None,
            version: chunk.version,
            chunk_length: chunk.bytes.len() as u32,
            length: (until - from) as u32,
            crc32c: crc32c(&bytes),
        };
        out.extend_from_slice(&bytes);
        Ok(reply)
    }

    fn apply(
        &self,
        request: &pb::UpdateRequest,
        payload: &[u8],
    ) -> Result<pb::UpdateReply, Status> {
        let grant = self.check(request.chain, request.chain_version, &request.grant)?;
        let key = request.chunk.ok_or(Code::InvalidArgument)?;
        if grant.inode != key.inode || !grant.write {
            return Err(Code::Forbidden.into());
        }
        if crc32c(payload) != request.crc32c {
            return Err(Code::ChecksumMismatch.into());
        }
        let head = {
            let routing = self.0.routing.lock();
            let chain = routing.chains.iter().find(|chain| chain.id == request.chain);
            let head = chain.and_then(|chain| ff2_proto::routing::ChainExt::head(chain));
            head.map(|member| member.node)
        };
        if head != Some(self.1 + 10) {
            return Err(Status::new(Code::NotServing, "not the head"));
        }
        if key.index == self.0.full_chunk.load(SeqCst) {
            return Err(Code::NoSpace.into());
        }
        let tag = request.tag.ok_or(Code::InvalidArgument)?;
        let mut chunks = self.0.chunks.lock();
        let chunk = chunks.entry((key.inode, key.index)).or_default();
        let before = chunk.tags.get(&(tag.session, tag.channel)).copied();
        match before {
            Some((seq, version)) if seq == tag.seq => {
                let chunk_length = chunk.bytes.len() as u32;
                return Ok(pb::UpdateReply { version, chunk_length, ..Default::default() });
            }
            Some((seq, _)) if seq > tag.seq => return Err(Code::StaleUpdate.into()),
            _ => {}
        }
        let (from, until) = (request.offset as usize, request.offset as usize + payload.len());
        if chunk.bytes.len() < until {
            chunk.bytes.resize(until, 0);
        }
        chunk.bytes[from..until].copy_from_slice(payload);
        chunk.version += 1;
        chunk.tags.insert((tag.session, tag.channel), (tag.seq, chunk.version));
        let chunk_length = chunk.bytes.len() as u32;
        Ok(pb::UpdateReply { version: chunk.version, chunk_length, ..Default::default() })
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

impl Storage for Node {
    async fn read(
        &self,
        _cx: Context,
        request: pb::ReadRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        self.0.reads.fetch_add(1, SeqCst);
        let mut out = Vec::new();
        let parts = request.parts.iter().map(|part| {
            self.read_part(part, &request.grant, &mut out).unwrap_or_else(|status| {
                out.resize(out.len() + part.length as usize, 0);
                pb::ReadPartReply { status: Some(status.into()), ..Default::default() }
            })
        });
        let reply = pb::ReadReply { parts: parts.collect() };
        Ok(Answer::with_bulk(reply, vec![SharedBuf::from(out)]))
    }

    async fn update(
        &self,
        _cx: Context,
        request: pb::UpdateRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        let reply = self.apply(&request, &bulk)?;
        self.0.updates.fetch_add(1, SeqCst);
        if strike(&self.0.lose_updates) {
            return Err(Code::UnknownOutcome.into());
        }
        Ok(reply.into())
    }

    async fn list_chunks(
        &self,
        _cx: Context,
        request: pb::ListChunksRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ListChunksReply>, Status> {
        let chunks = self.0.chunks.lock();
        let from = (request.inode, request.from_index);
        let of_inode = chunks.range(from..).take_while(|(key, _)| key.0 == request.inode);
        let chunks = of_inode.map(|((inode, index), chunk)| pb::ChunkInfo {
            chunk: Some(pb::ChunkKey { inode: *inode, index: *index, snapshot: 0 }),
            length: chunk.bytes.len() as u32,
            version: chunk.version,
            since: 0,
        });
        Ok(pb::ListChunksReply { status: None, chunks: chunks.collect(), end: true }.into())
    }

    async fn space(
        &self,
        _cx: Context,
        _request: pb::SpaceRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SpaceReply>, Status> {
        Ok(pb::SpaceReply { capacity_bytes: 100, used_bytes: 1 }.into())
    }

    async fn forward(
        &self,
        _cx: Context,
        _request: pb::ForwardRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn settle(
        &self,
        _cx: Context,
        _request: pb::SettleRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SettleReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn query_version(
        &self,
        _cx: Context,
        _request: pb::QueryVersionRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::QueryVersionReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn sync_page(
        &self,
        _cx: Context,
        _request: pb::SyncPageRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncPageReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn sync_done(
        &self,
        _cx: Context,
        _request: pb::SyncDoneRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncDoneReply>, Status> {
        Err(Code::Unsupported.into())
    }
}
