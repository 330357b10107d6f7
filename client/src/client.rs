//! A connection to one volume: what all its callers and files share, from hello to goodbye.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_client_core::limits::CHANNELS_MAX;
use ff2_fabric::{
    BufPool, Call, ClusterClient, Identity, Peers, PeersConfig, RoutingCache, UserToken,
    chain::{ChainClient, Totals},
    leader::LeaderFinder,
    routing::RoutingWatch,
};
use ff2_proto::{Code, GroupId, InodeId, ROOT_INODE, Retry, RoutingVersion, Status, VolumeId, pb};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    Caller, ClientOptions, Result,
    accesses::{self, AccessTimes},
    coherence::{self, Coherence, Invalidations, Trust},
    inodes::Inodes,
    journal::{self, Journal},
    limits,
    locks::Locks,
    session::{self, Session},
    shares::Shares,
};

/// A connected client. Cheap to clone; all clones share one session.
///
/// Its own methods act for the user of the token, by path. [`Client::caller`] acts for another user,
/// which the servers allow to root tokens only.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: ClientOptions,
    pub(crate) pool: Arc<BufPool>,
    pub(crate) routing: Arc<RoutingCache>,
    pub(crate) chains: Arc<ChainClient>,
    pub(crate) session: Session,
    pub(crate) inodes: Inodes,
    pub(crate) locks: Locks,
    pub(crate) coherence: Coherence,
    pub(crate) journal: Arc<Journal>,
    pub(crate) access_times: Arc<AccessTimes>,
    /// Bytes (in [`BUDGET_UNIT`]) that reads in flight may hold: taken at once, so that no two reads
    /// wait for each other's buffers.
    pub(crate) read_budget: Arc<Semaphore>,
    /// All of the read budget.
    pub(crate) read_units: u32,
    /// Of the read budget.
    pub(crate) read_shares: Shares,
    /// Of the updates in flight.
    pub(crate) update_shares: Shares,
    pub(crate) ahead_budget: Arc<Semaphore>,
    /// Bytes (in [`BUDGET_UNIT`]) that writes behind may hold, and all of that.
    pub(crate) behind_budget: Arc<Semaphore>,
    pub(crate) behind_units: u32,
    /// For work that a thread outside of it begins.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) own: pb::Credentials,
    pub(crate) root: InodeId,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    watch: RoutingWatch,
}

/// Granularity of the byte budgets.
pub(crate) const BUDGET_UNIT: u64 = 4 << 10;

impl Client {
    /// Finds a metad, learns the routing, opens a session.
    pub async fn connect(options: ClientOptions) -> Result<Self> {
        Self::connect_as(options, false).await
    }

    /// As [`Client::connect`], for who caches what this client answers: as long as a [`Trust`] says, and
    /// until an invalidation comes, which must be marked as done. Nothing that another client changed is
    /// seen here as it was before, once that one's call returned.
    pub async fn connect_coherent(options: ClientOptions) -> Result<(Self, Invalidations)> {
        let client = Self::connect_as(options, true).await?;
        let (invalidations, task) = coherence::listen(&client.shared);
        let sender = journal::start(&client.shared);
        client.shared.tasks.lock().extend([task, sender]);
        Ok((client, invalidations))
    }

    async fn connect_as(options: ClientOptions, caches: bool) -> Result<Self> {
        let deadline = Instant::now() + limits::CONNECT;
        let pool = BufPool::new(options.buffer_bytes);
        let routing = RoutingCache::new();
        let peers = Peers::new(PeersConfig {
            cluster_id: options.cluster_id.clone(),
            identity: Identity::User(options.token.clone()),
            pool: pool.clone(),
            routing: routing.clone(),
            tls: options.tls.clone(),
            rdma: options.rdma.clone(),
            zone: options.zone.clone(),
        });
        first_routing(&options, &peers, &routing, deadline).await?;
        let volume = find_volume(&options, &routing)?;
        let watch = RoutingWatch::start(options.metads.clone(), peers.clone(), routing.clone());
        let finder = LeaderFinder::new(
            GroupId(volume.group),
            options.metads.clone(),
            peers.clone(),
            routing.clone(),
        );
        let own = own_credentials(&options.token);
        let root = root_of(&options.token);
        let session = Session::open(
            finder,
            VolumeId(volume.id),
            &options.description,
            caches,
            &own,
            deadline,
        )
        .await?;
        let chains = ChainClient::new(peers.clone(), routing.clone())?;
        let budget = options.buffer_bytes / BUDGET_UNIT;
        let part = |share: u64| u32::try_from((budget / share).max(16)).unwrap_or(u32::MAX);
        let permits = |share| Arc::new(Semaphore::new(part(share) as usize));
        let shared = Arc::new(Shared {
            pool,
            routing,
            chains,
            session,
            inodes: Inodes::new(),
            locks: Locks::default(),
            coherence: Coherence::new(),
            journal: Arc::new(Journal::new()?),
            access_times: Arc::default(),
            // Buffers come in powers of two: a budget may take twice its share of the pool.
            read_budget: permits(4),
            read_units: part(4),
            read_shares: Shares::new(part(4 * limits::CHAIN_SHARE)),
            update_shares: Shares::new(CHANNELS_MAX / limits::CHAIN_SHARE as u32),
            ahead_budget: permits(8),
            behind_budget: permits(4),
            behind_units: part(4),
            runtime: tokio::runtime::Handle::current(),
            own,
            root,
            tasks: parking_lot::Mutex::new(Vec::new()),
            watch,
            options,
        });
        let tasks = session::start_tasks(&shared);
        shared.tasks.lock().extend(tasks);
        shared.tasks.lock().push(accesses::start(&shared));
        Ok(Self { shared })
    }

    /// The folder in which paths begin, and above which nothing exists for this client.
    pub fn root(&self) -> InodeId {
        self.shared.root
    }

    /// Acts for the token's own user.
    pub fn me(&self) -> Caller {
        self.caller(self.shared.own.clone())
    }

    /// Acts for this user.
    pub fn caller(&self, credentials: pb::Credentials) -> Caller {
        Caller { shared: self.shared.clone(), cred: credentials, umask: 0, trust: None }
    }

    /// Learns what the answers of callers with it may be trusted for: one for each request.
    pub fn trust(&self) -> Trust {
        Trust::new(self.shared.clone())
    }

    /// Inodes that this client may cache.
    pub fn callbacks(&self) -> usize {
        self.shared.coherence.count()
    }

    /// The pool that reads fill; writes are free of a copy if their bytes lie in one of its buffers.
    pub fn pool(&self) -> &Arc<BufPool> {
        &self.shared.pool
    }

    pub fn session_id(&self) -> u64 {
        self.shared.session.id()
    }

    /// Version of the routing information that this client acts on.
    pub fn routing_version(&self) -> RoutingVersion {
        self.shared.routing.version()
    }

    /// Bytes and calls since the start.
    pub fn totals(&self) -> Totals {
        self.shared.chains.totals()
    }

    /// Returns when all changes that were answered so far are durable.
    pub async fn sync_names(&self) -> Result<()> {
        self.shared.settle_journal(self.shared.deadline()).await
    }

    /// Changes that were answered and came to nothing, because the session ended before they were synced.
    pub fn lost_changes(&self) -> u64 {
        self.shared.journal.failures()
    }

    /// Inodes that are open here.
    pub fn open_inodes(&self) -> usize {
        self.shared.inodes.count()
    }

    /// How often a session ended here that held locks: whoever took one before the last time has lost
    /// it, and must not go on as if others were kept out. Asks the namespace first, if it is so long
    /// since it was heard that the session may be over by now.
    pub async fn lock_losses(&self) -> Result<u64> {
        self.shared.make_sure_of_session().await?;
        Ok(self.shared.locks.losses())
    }

    /// Reports what was written, and ends the session. Files that are still open fail from now on.
    pub async fn close(&self) {
        let deadline = Instant::now() + limits::GOODBYE;
        let goodbye = async {
            self.shared.report_lengths().await;
            if let Err(failure) = self.shared.settle_journal(deadline).await {
                tracing::warn!(%failure, "the last changes are lost");
            }
            self.shared.tell_accesses().await;
            self.shared.session.close(&self.shared.own, deadline).await;
        };
        if tokio::time::timeout(limits::GOODBYE, goodbye).await.is_err() {
            tracing::warn!("the namespace did not hear the goodbye; the session will expire");
        }
        self.shared.stop();
    }
}

impl Shared {
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.watch.stop();
        self.coherence.stop();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("volume", &self.shared.options.volume)
            .field("session", &self.shared.session.id())
            .finish_non_exhaustive()
    }
}

/// The folder that a token is confined to, else the volume's root.
fn root_of(token: &UserToken) -> InodeId {
    match token.claims().subtree {
        0 => ROOT_INODE,
        subtree => InodeId(subtree),
    }
}

fn own_credentials(token: &UserToken) -> pb::Credentials {
    let claims = token.claims();
    pb::Credentials { uid: claims.uid, gid: claims.gid, groups: claims.groups.clone() }
}

/// Asks the metads in turn until one tells the routing. A refusal (wrong token, wrong cluster) ends
/// it at once, with its reason; silence goes on to the next.
async fn first_routing(
    options: &ClientOptions,
    peers: &Arc<Peers>,
    routing: &RoutingCache,
    deadline: Instant,
) -> Result<()> {
    if options.metads.is_empty() {
        return Err(Status::new(Code::InvalidArgument, "no metad address is given"));
    }
    let mut last = None;
    for metad in options.metads.iter().cycle() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let client = ClusterClient::new(peers.channel(metad));
        let call = Call { timeout: left.min(Duration::from_secs(2)), ..Call::default() };
        let request = pb::WatchRoutingRequest { since: 0, wait_ms: 0 };
        let failure = match client.watch_routing(&request, call).await {
            Ok((delta, _)) if delta.version > 0 => {
                routing.apply(delta);
                return Ok(());
            }
            Ok(_) => Status::new(Code::NotServing, "the cluster has no routing yet"),
            Err(failure) if failure.retry() == Retry::Never => return Err(failure),
            Err(failure) => failure,
        };
        tracing::debug!(%metad, %failure, "no routing from this metad");
        last = Some(failure);
        tokio::time::sleep(Duration::from_millis(100).min(left)).await;
    }
    let why = last.map_or_else(String::new, |failure| failure.to_string());
    let metads = options.metads.join(", ");
    Err(Status::new(
        Code::Unreachable,
        format!("no metad of {metads} answered within {:?}: {why}", limits::CONNECT),
    ))
}

fn find_volume(options: &ClientOptions, routing: &RoutingCache) -> Result<pb::Volume> {
    let routing = routing.get();
    let found = routing.volumes.values().find(|volume| volume.name == options.volume).cloned();
    found.ok_or_else(|| {
        let names: Vec<_> = routing.volumes.values().map(|volume| volume.name.as_str()).collect();
        let why = format!("no volume {:?}; there are: {}", options.volume, names.join(", "));
        Status::new(Code::NotFound, why)
    })
}
