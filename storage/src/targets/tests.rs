//! What the routing says of this node's targets, and what becomes of it here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::time::Duration;

use ff2_daemon::Metrics;
use ff2_fabric::{
    ClusterKey, Identity, Peers, PeersConfig, RoutingCache, buf::BufPool, membership::Lease,
};

use super::*;
use crate::{
    engine::{Engine, EngineOptions, FormatOptions},
    metrics::StorageMetrics,
    target_driver::CopyBudget,
};

const NODE: u32 = 7;
const DISK: [u8; 16] = [3; 16];

fn one_disk(dir: &std::path::Path) -> Arc<Targets> {
    Engine::format(dir, &FormatOptions { size_bytes: Some(64 << 20) }).unwrap();
    let engine = Engine::open(dir, EngineOptions::default()).unwrap();
    let disk = OpenDisk { index: 0, path: dir.to_owned(), uuid: DISK, engine };
    Targets::new(vec![disk], 1 << 20, Scrubs::load(dir).unwrap(), CancellationToken::new())
}

fn around(routing: Arc<RoutingCache>) -> Shared {
    let pool = BufPool::new(1 << 20);
    let peers = Peers::new(PeersConfig {
        cluster_id: "targets".into(),
        identity: Identity::Daemon(ClusterKey::generate().unwrap()),
        pool: pool.clone(),
        routing: routing.clone(),
        tls: None,
        rdma: None,
        zone: String::new(),
    });
    Shared {
        peers,
        routing,
        copies: Arc::new(CopyBudget::new(&pool)),
        pool,
        lease: Lease::endless(),
        metrics: Arc::new(StorageMetrics::new(&Metrics::new("ff2-storaged", "test"))),
        changed: Arc::new(|| {}),
    }
}

fn one_chain() -> pb::RoutingDelta {
    let member = pb::ChainMember { target: 21, state: pb::PublicState::Lastsrv.into(), node: NODE };
    let target = pb::Target {
        id: 21,
        chain: 1,
        node: NODE,
        disk_uuid: DISK.to_vec().into(),
        changed_at: 4,
        ..Default::default()
    };
    let chain =
        pb::Chain { id: 1, version: 1, members: vec![member], changed_at: 4, ..Default::default() };
    pb::RoutingDelta {
        version: 4,
        targets: vec![target],
        chains: vec![chain],
        ..Default::default()
    }
}

/// A node that joined last learns of its chain between its first look and the begin of its watch; in a quiet cluster
/// nothing else changes afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_the_watch_began_gets_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let targets = one_disk(dir.path());
    let routing = RoutingCache::new();
    assert!(routing.apply(one_chain()));
    let (followed, shared) = (targets.clone(), around(routing));
    let follower = tokio::spawn(async move { followed.follow(NodeId(NODE), shared).await });
    let made = async {
        while targets.of_chain(ChainId(1)).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), made).await.expect("the store is made");
    targets.shut_down().await;
    follower.await.unwrap();
}
