//! The handle of a group: what the rest of metad calls. Everything that changes state goes through the
//! group's thread; reads under the leader's lease run on the caller's.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    sync::atomic::AtomicU64,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ff2_meta_core::{KvRead, StateMachine};
use ff2_proto::{Code, GroupId, Status, pb};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    clock,
    driver::Driver,
    error::GroupError,
    inbox::{Inbox, Reply, Request},
    limits,
    link::PeerLink,
    metrics::GroupMetrics,
    published::Published,
    replica::{Leadership, ReplicaConfig},
    store::{LogStore as _, Pins, RocksStore, StateReader},
};

/// What a group is opened with.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group: GroupId,
    pub node: u32,
    /// Where peers reach this node's data plane.
    pub address: String,
    /// The group's database lies in `group-<id>` below.
    pub data_dir: PathBuf,
    /// Asked for a place in the group if the folder is new. May name this node too.
    pub peers: Vec<String>,
    pub tick: Duration,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    pub log_keep_entries: u64,
    /// Followers hear of each commit at once: for groups whose followers show what they know.
    pub broadcast_commits: bool,
    /// RocksDB's block cache.
    pub cache_bytes: usize,
    pub metrics: GroupMetrics,
}

impl GroupConfig {
    /// A group with the defaults of `metad.toml`.
    pub fn new(group: GroupId, node: u32, address: &str, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            group,
            node,
            address: address.into(),
            data_dir: data_dir.into(),
            peers: Vec::new(),
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            log_keep_entries: 10_000,
            broadcast_commits: true,
            cache_bytes: 64 << 20,
            metrics: GroupMetrics::default(),
        }
    }

    /// The shortest time without a leader before an election.
    pub fn election_timeout(&self) -> Duration {
        self.tick * self.election_ticks as u32
    }

    pub(crate) fn replica(&self, raft_id: u64, seed: u64) -> ReplicaConfig {
        ReplicaConfig {
            group: self.group,
            node: self.node,
            raft_id,
            address: self.address.clone(),
            tick: self.tick,
            election_ticks: self.election_ticks,
            heartbeat_ticks: self.heartbeat_ticks,
            calm_heartbeat_ticks: self.heartbeat_ticks.max(self.election_ticks * 2 / 5),
            first_tick: clock::ticks(clock::now(), self.tick),
            log_keep_entries: self.log_keep_entries,
            broadcast_commits: self.broadcast_commits,
            seed,
        }
    }
}

/// One replicated state machine, on this node. Clones share it. Call [`Group::shutdown`] in the end:
/// dropping all clones does not stop the thread.
pub struct Group<S: StateMachine> {
    shared: Arc<Shared<S>>,
}

/// What the thread and the handles share.
pub(crate) struct Shared<S: StateMachine> {
    pub(crate) inbox: Inbox,
    group: GroupId,
    address: String,
    reader: StateReader,
    pins: Pins,
    metrics: GroupMetrics,
    published: Published<AtomicU64>,
    leadership: watch::Sender<Leadership>,
    view: watch::Sender<S::View>,
    pub(crate) status: Mutex<pb::GroupStatus>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: StateMachine> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} at {})", self.shared.group, self.shared.address)
    }
}

impl<S: StateMachine> Group<S> {
    /// Opens this node's replica and starts its thread. Must be called inside a tokio runtime, which
    /// then runs the calls to peers. A folder that was never formatted joins through the peers.
    pub fn open(
        config: GroupConfig,
        mut machine: S,
        link: Arc<dyn PeerLink>,
    ) -> Result<Self, GroupError> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| GroupError::Config("a group needs a tokio runtime".into()))?;
        // Faults of the configuration are found here, not on the thread.
        config.replica(1, 0).validate()?;
        let store = RocksStore::open(
            &config.data_dir,
            config.group,
            config.node,
            &config.address,
            config.cache_bytes,
            config.metrics.clone(),
        )?;
        store.with_state(|kv| machine.restore(kv));
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            group: config.group,
            address: config.address.clone(),
            reader: store.reader(),
            pins: store.pins(),
            metrics: config.metrics.clone(),
            published: Published::new(store.hard().commit, store.applied()),
            leadership: watch::channel(Leadership::default()).0,
            view: watch::channel(machine.view()).0,
            status: Mutex::new(pb::GroupStatus { group: config.group.0, ..Default::default() }),
            thread: Mutex::new(None),
        });
        let group = config.group;
        let driver = Driver { config, shared: Arc::clone(&shared), link, runtime };
        let thread = std::thread::Builder::new().name(format!("ff2-group-{group}"));
        let thread = thread.spawn(move || driver.run(store, machine));
        let thread = thread.map_err(|source| GroupError::Thread { group, source })?;
        *shared.thread.lock() = Some(thread);
        Ok(Self { shared })
    }

    pub fn id(&self) -> GroupId {
        self.shared.group
    }

    /// Logs a command and returns the machine's answer once it is applied here. Commands that wait at
    /// the same time share an entry and a sync. NOT_LEADER and BUSY mean that nothing happened;
    /// UNKNOWN_OUTCOME that it may still be applied.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, Status> {
        let mut answers = self.propose_all(vec![command]).await?;
        answers.pop().expect("one for each command")
    }

    /// As [`Self::propose`], of commands that follow each other: they are taken in together, or not at all,
    /// so that they do not wait for a sync one after the other. The answers are in the same order.
    pub async fn propose_all(
        &self,
        commands: Vec<Bytes>,
    ) -> Result<Vec<Result<Bytes, Status>>, Status> {
        if let Some(long) = commands.iter().find(|c| c.len() > limits::COMMAND_BYTES_MAX) {
            let what = format!("a command of {} bytes", long.len());
            return Err(Status::new(pb::Code::InvalidArgument, what));
        }
        let begun = Instant::now();
        let ask = |command| {
            let (reply, answer) = oneshot::channel();
            ((command, reply), answer)
        };
        let (proposals, pending): (Vec<_>, Vec<_>) = commands.into_iter().map(ask).unzip();
        self.shared.inbox.propose(proposals)?;
        let lost = || Status::new(pb::Code::UnknownOutcome, "the group stopped");
        let mut answers = Vec::with_capacity(pending.len());
        for answer in pending {
            let answer = answer.await.unwrap_or_else(|_| Err(lost()));
            if answer.is_ok() {
                self.shared.metrics.propose.observe(begun.elapsed().as_secs_f64());
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Reads a state that contains every change acknowledged anywhere before this call. The leader
    /// reads at once while its lease holds; others ask it for its commit index first. `read` runs on
    /// the caller's thread, may touch the disk, and may run a second time if the lease ended meanwhile.
    pub async fn query<R>(&self, mut read: impl FnMut(&dyn KvRead) -> R) -> Result<R, Status> {
        if let Some(answer) = self.shared.read_in_lease(&mut read) {
            return Ok(answer);
        }
        self.read_index().await?;
        self.shared.reader.read(read).ok_or_else(stopped)
    }

    /// Returns once this replica has applied everything acknowledged anywhere before this call.
    pub async fn read_index(&self) -> Result<(), Status> {
        let (reply, may) = oneshot::channel();
        self.shared.inbox.read(reply)?;
        may.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Reads what this replica has applied, which may be old. `None` once the group is stopped.
    pub fn read_stale<R>(&self, read: impl FnOnce(&dyn KvRead) -> R) -> Option<R> {
        self.shared.reader.read(read)
    }

    /// Says in the folder that what is logged may be of this feature level from now on.
    pub fn mark_level(&self, level: u32) -> Result<(), Status> {
        match self.shared.reader.mark(level) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Status::new(Code::DiskFailed, error.to_string())),
            None => Err(stopped()),
        }
    }

    /// Whether a query would be answered under the lease now.
    pub fn has_lease(&self) -> bool {
        self.shared.lease().is_some()
    }

    /// The machine's memory as of the last applied command.
    pub fn view(&self) -> S::View {
        self.shared.view.borrow().clone()
    }

    /// Told after each write that applied commands, before their proposers are answered.
    pub fn watch_view(&self) -> watch::Receiver<S::View> {
        self.shared.view.subscribe()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// As of the last tick.
    pub fn status(&self) -> pb::GroupStatus {
        self.shared.status.lock().clone()
    }

    /// How many snapshots this replica has installed since it was opened.
    pub fn snapshots_installed(&self) -> u64 {
        self.shared.metrics.snapshots.get()
    }

    /// Messages of a peer. Never waits; drops what does not fit.
    pub fn step(&self, batch: pb::RaftBatch) {
        self.shared.inbox.messages(batch);
    }

    /// A page of a snapshot that this replica holds for the asking follower.
    pub async fn serve_snapshot(
        &self,
        request: pb::FetchSnapshotRequest,
    ) -> pb::FetchSnapshotReply {
        let (sender, page) = oneshot::channel();
        self.shared.pins.page(request, Box::new(move |reply| drop(sender.send(reply))));
        page.await.unwrap_or_else(|_| crate::store::no_such_snapshot())
    }

    /// Pins a state that contains every change acknowledged anywhere before this call, and returns its first page. The
    /// group's thread has no part in it. One at a time: another one ends it. It is let go with the last page, or when
    /// no page was asked for in [`limits::BACKUP_IDLE`].
    pub async fn begin_backup(&self) -> Result<BackupPage, Status> {
        self.read_index().await?;
        let index = self.shared.published.applied();
        let pinned = self.shared.reader.pin(&self.shared.pins);
        let (snapshot, keys) = pinned.ok_or_else(|| {
            Status::new(pb::Code::Busy, "too many snapshots are held: retry in a minute")
        })?;
        tokio::spawn(let_go_when_idle(self.shared.pins.clone(), snapshot));
        let page = self.backup_page(snapshot, Bytes::new()).await?;
        Ok(BackupPage { index, keys, ..page })
    }

    /// The page behind this key. NOT_FOUND if the snapshot is not pinned (any more).
    pub async fn backup_page(&self, snapshot: u64, after_key: Bytes) -> Result<BackupPage, Status> {
        let limit_bytes = limits::PAGE_BYTES;
        let request = pb::FetchSnapshotRequest { snapshot, after_key, limit_bytes, group: 0 };
        let pb::FetchSnapshotReply { status, pairs, end, crc32c } =
            self.serve_snapshot(request).await;
        if let Some(status) = status {
            return Err(status.into());
        }
        if end {
            self.shared.pins.release(snapshot);
        }
        Ok(BackupPage { snapshot, index: 0, keys: 0, pairs, end, crc32c })
    }

    /// On the leader: gives a new folder its place. BUSY until the place is committed: ask again.
    pub async fn join(&self, request: pb::JoinGroupRequest) -> Result<pb::JoinGroupReply, Status> {
        self.request(|reply| Request::Join { request, reply }).await
    }

    /// On the leader: removes a node. Done when the removal is applied; also if it was no member.
    pub async fn remove(&self, node: u32) -> Result<(), Status> {
        self.request(|reply| Request::Remove { node, reply }).await
    }

    /// On the leader: begins to hand leadership to a node. Watch [`Self::leadership`] for the end.
    pub async fn transfer(&self, node: u32) -> Result<(), Status> {
        self.request(|reply| Request::Transfer { node, reply }).await
    }

    async fn request<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.request(make(reply))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Stops the replica and closes its database; a leader first hands over. Waits for the thread.
    pub async fn shutdown(&self) {
        self.stop(true).await;
    }

    /// As [`Self::shutdown`], but without handing over: the others notice by their timeout.
    pub async fn shutdown_now(&self) {
        self.stop(false).await;
    }

    async fn stop(&self, hand_over: bool) {
        // Refused if it is stopping already; then only the thread is waited for.
        let _ = self.shared.inbox.request(Request::Stop { hand_over });
        let thread = self.shared.thread.lock().take();
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!(group = %self.shared.group, "the group's thread did not end well");
            }
        }
    }
}

/// A part of a pinned state.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupPage {
    pub snapshot: u64,
    /// The state holds the log up to here, at least. Of the first page only.
    pub index: u64,
    /// In the whole state, about. Of the first page only.
    pub keys: u64,
    pub pairs: Vec<pb::KeyValue>,
    pub end: bool,
    pub crc32c: u32,
}

impl BackupPage {
    /// Whether the pairs are those that were read from the disk.
    pub fn is_intact(pairs: &[pb::KeyValue], crc32c: u32) -> bool {
        crate::store::checksum(pairs) == crc32c
    }
}

async fn let_go_when_idle(pins: Pins, snapshot: u64) {
    let mut known = None;
    loop {
        let served = pins.served(snapshot);
        if served.is_none() {
            return;
        }
        if served == known {
            tracing::warn!(
                "nobody reads the backup any more that was begun: its snapshot is let go"
            );
            pins.release(snapshot);
            return;
        }
        known = served;
        tokio::time::sleep(limits::BACKUP_IDLE).await;
    }
}

fn stopped() -> Status {
    Status::new(pb::Code::ShuttingDown, "the group stopped")
}

impl<S: StateMachine> Shared<S> {
    fn lease(&self) -> Option<Duration> {
        let until = self.published.lease_until();
        (clock::now() < until).then_some(until)
    }

    fn read_in_lease<R>(&self, read: impl FnMut(&dyn KvRead) -> R) -> Option<R> {
        let until = self.lease()?;
        if !self.published.shows_all() {
            return None;
        }
        let answer = self.reader.read(read)?;
        // This thread may have been stopped for long anywhere above: only now it is known that the
        // lease held while the state was read.
        (clock::now() < until).then_some(answer)
    }

    /// The thread tells readers where it is, before it performs outputs.
    pub(crate) fn publish(&self, commit: u64, applied: u64, lease: Option<Duration>) {
        self.published.publish(commit, applied, lease);
    }

    pub(crate) fn lead(&self, leadership: Leadership) {
        tracing::info!(group = %self.group, term = leadership.term, leads = leadership.is_leader,
            leader = ?leadership.leader.as_ref().map(|member| member.node), "leadership");
        self.leadership.send_replace(leadership);
    }

    pub(crate) fn show(&self, view: S::View) {
        self.view.send_replace(view);
    }

    /// The thread is about to end.
    pub(crate) fn end(&self) {
        self.publish(u64::MAX, 0, None);
        self.inbox.close();
        self.leadership.send_modify(|known| {
            known.is_leader = false;
            known.leader = None;
        });
    }
}
