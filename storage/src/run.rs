//! Puts a chunk server together and runs it until it is told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use ff2_daemon::{Runtime, config::StoragedConfig};
use ff2_fabric::{
    BufPool, ClusterKey, Identity as Speaker, Peers, PeersConfig, Router, RoutingCache, Server,
    ServerConfig, StorageServer,
    membership::{Membership, MembershipConfig},
};
use ff2_proto::pb;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{Figures, Traffic},
    node::{Identity, Node, NodeDisk},
    service::StorageService,
};

/// After the goodbye, calls in progress get this long.
const LAST_CALLS: Duration = Duration::from_millis(200);

/// The daemon's life, for `ff2_daemon::run`.
pub async fn serve(config: Arc<StoragedConfig>, runtime: Runtime) -> Result<()> {
    let key =
        ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
    let identity = Identity::load(&config.data_dir)?;
    let disks = tokio::task::block_in_place(|| NodeDisk::open_all(&config))?;
    let pool = BufPool::new(config.storage.buffer_bytes);
    let routing = RoutingCache::new();
    let operations = runtime.operations.clone();
    let server =
        ServerConfig::new(config.cluster_id.clone(), key.clone(), pool.clone(), routing.clone())
            .observed(move |call| {
                operations.observe(call.method.name, call.elapsed, call.failure.is_some())
            });
    let server = Server::bind(&config.listen, server)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let peers = Peers::new(PeersConfig {
        cluster_id: config.cluster_id.clone(),
        identity: Speaker::Daemon(key.clone()),
        pool: pool.clone(),
        routing: routing.clone(),
    });
    let traffic = Arc::new(Traffic::default());
    let engines = disks.iter().map(|disk| disk.engine.clone()).collect();
    runtime.metrics.collector(Figures { traffic: traffic.clone(), engines });
    let rate = config.storage.resync_bytes_per_s;
    let node = Node::new(key, pool, routing.clone(), peers.clone(), disks, traffic, rate);
    show(&runtime, &node);

    let unplug = CancellationToken::new();
    let service = StorageServer::new(Arc::new(StorageService { node: node.clone() }));
    let (plugged, router) = (unplug.clone(), Router::new().add(service));
    runtime.tasks.spawn(async move { server.serve(router, plugged).await });

    let Some(membership) = join(&config, &runtime, &node, &identity, peers, routing).await? else {
        return Ok(());
    };
    tokio::select! {
        () = runtime.stop.cancelled() => {}
        status = membership.refused() => bail!("the cluster refuses this node: {status}"),
    }
    // From the goodbye on the lease is void, so nothing is served that the cluster does not expect.
    membership.leave().await;
    tokio::time::sleep(LAST_CALLS).await;
    unplug.cancel();
    for disk in &node.disks {
        disk.engine.shutdown().await;
    }
    Ok(())
}

/// Joins the cluster and starts the targets. `None`: told to stop before the cluster answered.
async fn join(
    config: &StoragedConfig,
    runtime: &Runtime,
    node: &Arc<Node>,
    identity: &Identity,
    peers: Arc<Peers>,
    routing: Arc<RoutingCache>,
) -> Result<Option<Membership>> {
    let request = pb::JoinRequest {
        node_id: identity.node_id,
        role: pb::NodeRole::Storaged.into(),
        address: config.listen.clone(),
        admin_address: config.http_listen.clone(),
        hostname: hostname(),
        disks: node.disks.iter().map(NodeDisk::record).collect(),
        incarnation: 0,
        cluster_id: identity.cluster_id.clone(),
    };
    let reporter = node.clone();
    let joining = Membership::join(
        MembershipConfig { metads: config.metads.clone(), request },
        peers,
        routing,
        move || reporter.report(),
    );
    let membership = tokio::select! {
        () = runtime.stop.cancelled() => return Ok(None),
        joined = joining => joined.context("join the cluster")?,
    };
    let given = Identity {
        node_id: membership.node_id().0,
        cluster_id: membership.cluster_id().to_owned(),
    };
    if given != *identity {
        given.save(&config.data_dir)?;
    }
    node.joined(&membership);
    node.open_targets(&runtime.stop).await.context("open the targets")?;
    membership.heartbeat_now();
    let following = node.clone().follow_routing(runtime.stop.clone());
    runtime.tasks.spawn(following);
    runtime.admin.set_ready(true);
    Ok(Some(membership))
}

fn show(runtime: &Runtime, node: &Arc<Node>) {
    let shown = node.clone();
    runtime.admin.status("targets", move || {
        let targets = shown.all_targets();
        async move {
            let rows = targets.iter().map(|target| {
                let report = target.report();
                json!({
                    "target": target.id().0,
                    "chain": target.chain().0,
                    "state": report.local_state.as_str_name(),
                    "chain_version": report.chain_version,
                    "sync_done_chunks": report.sync_done_chunks,
                    "sync_total_chunks": report.sync_total_chunks,
                    "waiting_for": report.waiting_for,
                })
            });
            rows.collect::<serde_json::Value>()
        }
    });
    let dumped = node.clone();
    runtime.admin.dump("targets", move || {
        let targets = dumped.all_targets();
        async move {
            let mut rows = serde_json::Map::new();
            for target in targets {
                rows.insert(target.id().to_string(), json!(target.explain().await));
            }
            serde_json::Value::Object(rows)
        }
    });
    let disks = node.clone();
    runtime.admin.status("disks", move || {
        let rows: Vec<_> = disks
            .disks
            .iter()
            .map(|disk| {
                let record = disk.record();
                json!({
                    "path": record.path,
                    "capacity_bytes": record.capacity_bytes,
                    "used_bytes": record.used_bytes,
                    "failed": record.failed,
                })
            })
            .collect();
        async move { json!(rows) }
    });
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
