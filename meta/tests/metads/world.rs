//! Metads, a storage node and clients for one test.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_daemon::{
    Admin, InFlight, Metrics, Operations, Runtime,
    config::{
        Encrypt, LeaseConfig, LogConfig, MetadConfig, NetworkConfig, PeerConfig, RaftConfig,
        SecurityConfig,
    },
};
use ff2_fabric::{
    BufPool, Call, ClusterKey, Identity, NamespaceClient, Peers, PeersConfig, RoutingCache,
    UserToken, admin::admin_client::AdminClient, leader::LeaderFinder,
};
use ff2_metad::{Metad, NAMESPACE_GROUP, admin_token};
use ff2_proto::{Status, pb, status::check};
use pb::ns_request::Op;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, transport::Channel};

use crate::store::Store;

pub(crate) const CLUSTER: &str = "metads-test";
/// Entries of their logs that the metads keep.
pub(crate) const LOG_KEEP_ENTRIES: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) key: ClusterKey,
    configs: BTreeMap<u32, Arc<MetadConfig>>,
    pub(crate) metads: BTreeMap<u32, (Metad, Runtime)>,
}

impl World {
    /// `count` formatted metads that run and have a leader in each group.
    pub(crate) async fn start(count: u32) -> Self {
        Self::start_with(count, 60_000).await
    }

    /// As [`World::start`], with sessions that expire after this silence.
    pub(crate) async fn start_with(count: u32, session_ms: u32) -> Self {
        let quiet = LogConfig { filter: "off".into(), json: false };
        // The second test of a process finds it set.
        let _ = ff2_daemon::init_tracing(&quiet);
        let folder = tempfile::tempdir().unwrap();
        let key = ClusterKey::generate().unwrap();
        key.save(&folder.path().join("key")).unwrap();
        let ports = free_ports(3 * count as usize);
        let peers: Vec<PeerConfig> = (0..count)
            .map(|place| PeerConfig { node: place + 1, address: at(ports[3 * place as usize]) })
            .collect();
        let mut world = Self { folder, key, configs: BTreeMap::new(), metads: BTreeMap::new() };
        for node in 1..=count {
            let own = &ports[3 * (node as usize - 1)..];
            let config = world.config(node, own, peers.clone(), session_ms);
            ff2_metad::format(&config).unwrap();
            world.configs.insert(node, Arc::new(config));
        }
        for node in 1..=count {
            world.run(node).await;
        }
        world
            .until("all metads are ready", |world| {
                world.metads.values().all(|(_, runtime)| runtime.admin.is_ready())
            })
            .await;
        world
    }

    fn config(
        &self,
        node: u32,
        ports: &[u16],
        peers: Vec<PeerConfig>,
        session_ms: u32,
    ) -> MetadConfig {
        MetadConfig {
            node,
            cluster_id: CLUSTER.into(),
            listen: at(ports[0]),
            admin_listen: at(ports[1]),
            http_listen: at(ports[2]),
            data_dir: self.data_dir(node),
            security: SecurityConfig {
                cluster_key_file: self.folder.path().join("key"),
                tls_cert_file: None,
                tls_key_file: None,
                tls_ca_file: None,
                encrypt: Encrypt::Metadata,
            },
            peers,
            raft: RaftConfig {
                tick_ms: 10,
                election_ticks: 30,
                // So few that a metad which was away for a while needs a snapshot.
                log_keep_entries: LOG_KEEP_ENTRIES,
                ..RaftConfig::default()
            },
            lease: LeaseConfig { lease_ms: 1_000, heartbeat_ms: 100, session_ms },
            replace_after_s: 0,
            shared_memory: true,
            threads: 0,
            network: NetworkConfig::default(),
            log: LogConfig::default(),
        }
    }

    pub(crate) fn data_dir(&self, node: u32) -> PathBuf {
        self.folder.path().join(format!("metad-{node}"))
    }

    /// One more metad, on a folder that was never formatted.
    pub(crate) fn configure(&mut self, node: u32) {
        let config = Arc::new(self.stranger(node));
        self.configs.insert(node, config);
    }

    /// A configuration on ports of its own, whatever runs under this id.
    fn stranger(&self, node: u32) -> MetadConfig {
        let known = &self.configs[&1];
        let ports = free_ports(3);
        let mut peers = known.peers.clone();
        peers.push(PeerConfig { node, address: at(ports[0]) });
        self.config(node, &ports, peers, known.lease.session_ms)
    }

    /// Another process that is configured with the id of one that runs.
    pub(crate) async fn run_second(&self, node: u32) -> (Metad, Runtime) {
        let data_dir = self.folder.path().join(format!("second-{node}"));
        start(Arc::new(MetadConfig { data_dir, ..self.stranger(node) })).await
    }

    /// Starts a metad that does not run.
    pub(crate) async fn run(&mut self, node: u32) {
        let started = start(self.configs[&node].clone()).await;
        self.metads.insert(node, started);
    }

    /// As [`World::run`], with an empty folder.
    pub(crate) async fn run_wiped(&mut self, node: u32) {
        std::fs::remove_dir_all(self.data_dir(node)).unwrap();
        self.run(node).await;
    }
    /// As `kill -9`.
    pub(crate) async fn kill(&mut self, node: u32) {
        let (metad, runtime) = self.metads.remove(&node).unwrap();
        metad.kill().await;
        end(runtime).await;
    }

    /// As `SIGTERM` for all of them at once.
    pub(crate) async fn stop_all(&mut self) {
        let stopping = std::mem::take(&mut self.metads).into_values();
        futures::future::join_all(stopping.map(|(metad, runtime)| async move {
            metad.stop().await;
            end(runtime).await;
        }))
        .await;
    }

    /// Waits until a metad votes in both groups, and is ready.
    pub(crate) async fn until_votes(&self, node: u32) {
        self.until("it votes in both groups", |world| {
            let (metad, runtime) = &world.metads[&node];
            let votes = |status: pb::GroupStatus| {
                let own: Vec<_> = status.members.iter().filter(|m| m.node == node).collect();
                own.len() == 1 && own[0].voter && status.leader_node != 0
            };
            runtime.admin.is_ready()
                && votes(metad.cluster_group().status())
                && votes(metad.namespace_group().status())
        })
        .await;
    }

    /// A metad that leads nothing.
    pub(crate) fn follower(&self) -> u32 {
        let leaders = [self.namespace_leader(), self.cluster_leader()];
        *self.metads.keys().find(|node| !leaders.contains(&Some(**node))).unwrap()
    }

    pub(crate) fn metad(&self, node: u32) -> &Metad {
        &self.metads[&node].0
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.configs.values().map(|config| config.listen.clone()).collect()
    }

    /// The node that leads the namespace group.
    pub(crate) fn namespace_leader(&self) -> Option<u32> {
        let leads = |metad: &Metad| metad.namespace_group().leadership().borrow().is_leader;
        self.metads.iter().find(|(_, (metad, _))| leads(metad)).map(|(node, _)| *node)
    }

    fn cluster_leader(&self) -> Option<u32> {
        let leads = |metad: &Metad| metad.cluster_group().leadership().borrow().is_leader;
        self.metads.iter().find(|(_, (metad, _))| leads(metad)).map(|(node, _)| *node)
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A gRPC client of the cluster leader, and the header that it lets in.
    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        self.until("the cluster group has a leader", |world| world.cluster_leader().is_some())
            .await;
        self.admin_of(self.cluster_leader().unwrap()).await
    }

    pub(crate) async fn admin_of(&self, node: u32) -> AdminClient<Channel> {
        let address = self.metad(node).admin_address().unwrap();
        AdminClient::connect(format!("http://{address}")).await.unwrap()
    }

    pub(crate) fn signed<T>(&self, message: T) -> Request<T> {
        sign(message, &admin_token(&self.key))
    }

    /// A table of one chain on a storage node, a volume, and a user with a token.
    pub(crate) async fn furnish(&self) -> (Store, UserToken) {
        let store = Store::start(self).await;
        let mut admin = self.admin().await;
        let table = pb::CreateTableRequest { replicas: 1, chains: 2, ..Default::default() };
        assert_eq!(admin.create_table(self.signed(table)).await.unwrap().into_inner().chains, 2);
        let volume = pb::CreateVolumeRequest { name: "default".into() };
        admin.create_volume(self.signed(volume)).await.unwrap();
        let user = pb::User { uid: 1000, gid: 1000, name: "ann".into(), ..Default::default() };
        let put = pb::PutUserRequest { user: Some(user) };
        admin.put_user(self.signed(put)).await.unwrap();
        let issue = pb::IssueTokenRequest { uid: 1000, lifetime_s: 3_600, ..Default::default() };
        let token = admin.issue_token(self.signed(issue)).await.unwrap().into_inner().token;
        self.until("both chains serve", |world| {
            let routing = world.metads.values().next().unwrap().0.cluster_group().view();
            let serves = |chain: &pb::Chain| {
                chain.members.iter().all(|m| m.state() == pb::PublicState::Serving)
            };
            routing.chains.len() == 2 && routing.chains.values().all(serves)
        })
        .await;
        (store, token.parse().unwrap())
    }

    pub(crate) fn peers(&self, identity: Identity) -> (Arc<Peers>, Arc<RoutingCache>) {
        let routing = RoutingCache::new();
        let config = PeersConfig {
            cluster_id: CLUSTER.into(),
            identity,
            pool: BufPool::new(16 << 20),
            routing: routing.clone(),
            tls: None,
            rdma: None,
            zone: String::new(),
        };
        (Peers::new(config), routing)
    }
}

pub(crate) fn sign<T>(message: T, token: &UserToken) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// A mount, as far as a namespace knows one.
pub(crate) struct Client {
    finder: LeaderFinder,
    pub(crate) session: u64,
    pub(crate) seq: u64,
}

impl Client {
    pub(crate) async fn mount(world: &World, token: &UserToken, nonce: u64) -> Self {
        let (peers, routing) = world.peers(Identity::User(token.clone()));
        let finder = LeaderFinder::new(NAMESPACE_GROUP, world.addresses(), peers, routing);
        let mut client = Self { finder, session: 0, seq: 0 };
        let open = Op::OpenSession(pb::OpenSessionOp {
            description: "test".into(),
            nonce,
            ..Default::default()
        });
        let reply = client.ask(open).await.unwrap();
        assert!(reply.session_lease_ms > 0);
        client.session = reply.session;
        client
    }

    /// A mutation under the next number.
    pub(crate) async fn change(&mut self, op: Op) -> Result<pb::NsReply, Status> {
        self.seq += 1;
        self.repeat(self.seq, op).await
    }

    /// A mutation under a number that may have been used.
    pub(crate) async fn repeat(&self, seq: u64, op: Op) -> Result<pb::NsReply, Status> {
        self.call(pb::NsRequest { seq, ..self.request(op) }).await
    }

    pub(crate) async fn ask(&self, op: Op) -> Result<pb::NsReply, Status> {
        self.call(self.request(op)).await
    }

    fn request(&self, op: Op) -> pb::NsRequest {
        pb::NsRequest { volume: 1, session: self.session, op: Some(op), ..Default::default() }
    }

    pub(crate) async fn call(&self, request: pb::NsRequest) -> Result<pb::NsReply, Status> {
        let request = &request;
        let ask = |channel, timeout| async move {
            let (reply, _) =
                NamespaceClient::new(channel).execute(request, Call::within(timeout)).await?;
            // A busy inode is asked for again, as a mount does.
            check(reply.status.clone())?;
            Ok(reply)
        };
        self.finder.call(Instant::now() + PATIENCE, ask).await
    }
}

async fn start(config: Arc<MetadConfig>) -> (Metad, Runtime) {
    let metrics = Arc::new(Metrics::new("ff2-metad", "test"));
    let inflight = InFlight::default();
    let shown = serde_json::Value::Null;
    let admin = Admin::new("ff2-metad", "test", shown, metrics.clone(), inflight.clone());
    let operations = Operations::new(&metrics, inflight.clone());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let runtime = Runtime { metrics, inflight, operations, admin, stop, tasks };
    let metad = Metad::start(config, runtime.clone()).await.unwrap();
    (metad, runtime)
}

async fn end(runtime: Runtime) {
    runtime.tasks.close();
    tokio::time::timeout(PATIENCE, runtime.tasks.wait()).await.expect("its tasks end");
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
