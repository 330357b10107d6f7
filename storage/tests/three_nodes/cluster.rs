//! Three storage nodes in this process, each on a runtime of its own so that it can be killed.

use std::{os::unix::fs::FileExt, path::Path, sync::Arc, time::Duration};

use ff2_daemon::{
    Admin, InFlight, Metrics, Operations, Runtime,
    config::{
        DiskConfig, Encrypt, LogConfig, NetworkConfig, SecurityConfig, StorageTuning,
        StoragedConfig,
    },
};
use ff2_fabric::{
    ClusterKey, Identity, Peers, PeersConfig, RoutingCache, buf::BufPool, chain::ChainClient,
    routing::RoutingWatch,
};
use ff2_storaged::engine::{Engine, EngineOptions, TargetMeta};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::metad::{CLUSTER, Metad};

pub(crate) struct Cluster {
    pub(crate) metad: Arc<Metad>,
    pub(crate) key: ClusterKey,
    pub(crate) routing: Arc<RoutingCache>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) client: Arc<ChainClient>,
    pub(crate) metad_address: String,
    _watch: RoutingWatch,
    nodes: Vec<Option<Node>>,
    dir: tempfile::TempDir,
    name: &'static str,
    stop: CancellationToken,
}

struct Node {
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Cluster {
    pub(crate) async fn start(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = ClusterKey::generate().unwrap();
        key.save(&dir.path().join("key")).unwrap();
        let stop = CancellationToken::new();
        let metad_address = format!("mem:{name}-metad");
        let metad = Metad::start(&metad_address, &key, 3, stop.clone()).await;
        let routing = RoutingCache::new();
        let peers = Self::peers_as(Identity::Daemon(key.clone()), &routing);
        let watch =
            RoutingWatch::start(vec![metad_address.clone()], peers.clone(), routing.clone());
        let client = ChainClient::new(peers.clone(), routing.clone()).unwrap();
        let nodes = vec![None, None, None];
        let mut cluster = Self {
            metad,
            key,
            routing,
            peers,
            client,
            metad_address,
            _watch: watch,
            nodes,
            dir,
            name,
            stop,
        };
        for n in 0..3 {
            ff2_storaged::format(&cluster.config(n)).unwrap();
            cluster.start_node(n);
        }
        cluster.metad.until_all_serve().await;
        cluster
    }

    pub(crate) fn peers_as(identity: Identity, routing: &Arc<RoutingCache>) -> Arc<Peers> {
        Peers::new(PeersConfig {
            cluster_id: CLUSTER.into(),
            identity,
            pool: BufPool::new(64 << 20),
            routing: routing.clone(),
            tls: None,
            rdma: None,
            zone: String::new(),
        })
    }

    fn config(&self, n: usize) -> StoragedConfig {
        let data_dir = self.dir.path().join(format!("node-{n}"));
        std::fs::create_dir_all(&data_dir).unwrap();
        StoragedConfig {
            cluster_id: CLUSTER.into(),
            listen: format!("mem:{}-{n}", self.name),
            http_listen: "127.0.0.1:0".into(),
            security: SecurityConfig {
                cluster_key_file: self.dir.path().join("key"),
                tls_cert_file: None,
                tls_key_file: None,
                tls_ca_file: None,
                encrypt: Encrypt::Metadata,
            },
            metads: vec![self.metad_address.clone()],
            disks: vec![disk(&data_dir)],
            data_dir,
            zones: Vec::new(),
            leaf: String::new(),
            storage: StorageTuning { buffer_bytes: 64 << 20, ..Default::default() },
            shared_memory: true,
            threads: 0,
            network: NetworkConfig::default(),
            log: LogConfig::default(),
        }
    }

    pub(crate) fn start_node(&mut self, n: usize) {
        assert!(self.nodes[n].is_none());
        let config = Arc::new(self.config(n));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let metrics = Arc::new(Metrics::new("ff2-storaged", "test"));
        let inflight = InFlight::default();
        let nothing = serde_json::Value::Null;
        let admin = Admin::new("ff2-storaged", "test", nothing, metrics.clone(), inflight.clone());
        let stop = CancellationToken::new();
        let around = Runtime {
            operations: Operations::new(&metrics, inflight.clone()),
            metrics,
            inflight,
            admin,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        };
        let task = runtime.spawn(ff2_storaged::serve(config, around));
        self.nodes[n] = Some(Node { runtime, stop, task });
    }

    /// Keeps every worker of the node's runtime busy for a while, as a stalled index does.
    pub(crate) fn block_workers(&self, n: usize, time: Duration) {
        let runtime = &self.nodes[n].as_ref().unwrap().runtime;
        for _ in 0..runtime.metrics().num_workers() {
            runtime.spawn(async move { std::thread::sleep(time) });
        }
    }

    /// As kill -9, as far as one process can: nothing of the node runs any more, nothing is said.
    pub(crate) async fn kill(&mut self, n: usize) {
        let node = self.nodes[n].take().unwrap();
        let killed = tokio::task::spawn_blocking(move || {
            node.runtime.shutdown_timeout(Duration::from_secs(20));
        });
        killed.await.unwrap();
    }

    pub(crate) async fn stop_node(&mut self, n: usize) {
        let node = self.nodes[n].take().unwrap();
        node.stop.cancel();
        node.task.await.unwrap().unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            node.runtime.shutdown_timeout(Duration::from_secs(20));
        });
        ended.await.unwrap();
    }

    /// What the disk of a node that does not run says of its target.
    pub(crate) async fn target_on_disk(&self, n: usize) -> TargetMeta {
        assert!(self.nodes[n].is_none());
        let path = &self.config(n).disks[0].path;
        let engine = Engine::open(path, EngineOptions::default()).unwrap();
        let target = engine.targets().pop().expect("a target");
        // The node opens the disk next, so nothing may hold it any more.
        engine.shutdown().await;
        target
    }

    /// A new disk in the place of the old one, of a node that does not run.
    pub(crate) fn replace_disk(&self, n: usize) {
        assert!(self.nodes[n].is_none());
        let config = self.config(n);
        std::fs::remove_dir_all(&config.disks[0].path).unwrap();
        ff2_storaged::format(&config).unwrap();
    }

    /// Flips a bit in the bytes that a node has on its disk, once for each place where they lie.
    pub(crate) fn damage(&self, n: usize, bytes: &[u8]) {
        let path = self.dir.path().join(format!("node-{n}/disk/data"));
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut block = vec![0; 4096];
        let mut flipped = 0;
        for position in (0..64 << 20).step_by(block.len()) {
            file.read_exact_at(&mut block, position).unwrap();
            if block.starts_with(bytes) {
                file.write_all_at(&[block[0] ^ 1], position).unwrap();
                flipped += 1;
            }
        }
        file.sync_all().unwrap();
        assert!(flipped > 0, "the bytes are on the disk");
    }

    /// Place of the node that a target is on.
    pub(crate) fn node_of(&self, target: u64) -> usize {
        let routing = self.metad.routing();
        let target = routing.targets.iter().find(|t| t.id == target).unwrap();
        let node = routing.nodes.iter().find(|node| node.id == target.node).unwrap();
        let place = node.address.rsplit_once('-').unwrap().1;
        place.parse().unwrap()
    }

    pub(crate) async fn end(mut self) {
        for n in 0..3 {
            if self.nodes[n].is_some() {
                self.stop_node(n).await;
            }
        }
        self.stop.cancel();
    }
}

fn disk(data_dir: &Path) -> DiskConfig {
    DiskConfig { path: data_dir.join("disk"), size_bytes: Some(512 << 20) }
}
