//! One storage node from its start to its end: disks, membership, targets, service.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use ff2_daemon::{
    Expiry, Runtime, Traffic,
    config::{Encrypt, StoragedConfig, ZoneListen},
    encryption, rdma,
};
use ff2_fabric::{
    ClusterKey, Identity, Peers, PeersConfig, Router, RoutingCache, Server, ServerConfig,
    StorageServer,
    buf::BufPool,
    membership::{Membership, MembershipConfig, Report},
    tls::{Certificate, ServerTls},
};
use ff2_proto::pb;
use serde_json::json;

use crate::{
    cuts::Ways,
    disks,
    grants::Grants,
    heart::Heart,
    identity::NodeIdentity,
    limits,
    metrics::StorageMetrics,
    scrub::{Pace, Scrubber, Scrubs},
    service::StorageService,
    target_driver::{CopyBudget, Shared},
    targets::Targets,
};

/// Runs a storage node until `runtime.stop`.
pub async fn serve(config: Arc<StoragedConfig>, runtime: Runtime) -> Result<()> {
    let key =
        ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
    let identity = NodeIdentity::load(&config.data_dir)?;
    let opening = tokio::task::spawn_blocking({
        let config = config.clone();
        move || disks::open(&config)
    });
    let opened = opening.await.context("open the disks")??;
    let read_bytes = config.storage.buffer_bytes / limits::READ_SHARE;
    let pool = BufPool::new(config.storage.buffer_bytes - read_bytes);
    let read_pool = BufPool::new(read_bytes.max(limits::READ_BYTES_MIN));
    let routing = RoutingCache::new();
    let (tls, certificate) = encryption(&config.security)?;
    let rdma = rdma(&config.network)?;
    let peers_with = |pool: Arc<BufPool>| {
        Peers::new(PeersConfig {
            cluster_id: config.cluster_id.clone(),
            identity: Identity::Daemon(key.clone()),
            pool,
            routing: routing.clone(),
            tls: tls.clone(),
            rdma: rdma.clone(),
            zone: config.network.zone.clone(),
        })
    };
    let peers = peers_with(pool.clone());
    let metrics = Arc::new(StorageMetrics::new(&runtime.metrics));
    let rate = config.storage.resync_bytes_per_s;
    let pace = Pace {
        bytes_per_s: config.storage.scrub_bytes_per_s,
        every: Duration::from_secs(config.storage.scrub_every_s),
    };
    let scrubs = Scrubs::load(&config.data_dir)?;
    let targets = Targets::new(opened, rate, scrubs, runtime.stop.child_token());

    let mut server =
        ServerConfig::new(&config.cluster_id, key.clone(), pool.clone(), routing.clone());
    server.tuning.shared_memory = config.shared_memory;
    server.rdma = rdma.clone();
    let demands = config.security.encrypt == Encrypt::All;
    server.tls = certificate.clone().map(|own| ServerTls::new(own, demands)).transpose()?;
    if let Some(own) = certificate.clone() {
        runtime.metrics.collector(Expiry::new(move || own.expires_s()));
    }
    let mut server = Server::bind(&config.listen, server)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    for ZoneListen { zone, listen } in &config.zones {
        let also = server.also_at(listen).await;
        also.with_context(|| format!("listen on {listen} in {zone}"))?;
    }
    runtime.metrics.collector(Traffic::new(server.counters(), peers.counters()));
    let heart = Heart::start().context("start the heartbeat's thread")?;
    // Nothing of the membership carries bulk bytes.
    let metads = peers_with(BufPool::new(0));
    let ways = Ways::default();
    let report =
        report(targets.clone(), ways.clone(), metrics.clone(), certificate, config.leaf.clone());
    let join = join(config.clone(), identity, targets.disks(), report, metads, routing.clone());
    let membership = tokio::select! {
        joined = heart.run(join) => joined.context("run the join")??,
        () = runtime.stop.cancelled() => {
            targets.shut_down().await;
            return Ok(());
        }
    };
    let node_id = membership.node_id();
    let cluster_id = membership.cluster_id().to_owned();
    NodeIdentity { node_id: node_id.0, cluster_id }.save(&config.data_dir)?;

    let shared = Shared {
        peers: peers.clone(),
        routing: routing.clone(),
        pool: pool.clone(),
        copies: Arc::new(CopyBudget::new(&pool)),
        lease: membership.lease(),
        metrics: metrics.clone(),
        changed: Arc::new(membership.heartbeat_trigger()),
    };
    targets.start_existing(&shared).await.context("load the targets")?;
    let operations = runtime.operations.clone();
    let scrubber = Scrubber {
        targets: targets.clone(),
        routing: routing.clone(),
        pool: read_pool.clone(),
        metrics: metrics.clone(),
        pace,
        stop: runtime.stop.child_token(),
    };
    for disk in targets.disk_uuids() {
        runtime.tasks.spawn(scrubber.clone().run(disk));
    }
    let grants = Grants::new(key, routing.clone());
    let service = StorageService::new(targets.clone(), grants, read_pool, metrics, operations);
    let router = Router::new().add(StorageServer::new(Arc::new(service)));
    show(&runtime, &targets, node_id.0);

    let follower = targets.clone();
    runtime.tasks.spawn(async move { follower.follow(node_id, shared).await });
    let (news, stop) = (membership.heartbeat_trigger(), runtime.stop.child_token());
    runtime.tasks.spawn(ways.watch(targets.clone(), peers.clone(), routing.clone(), news, stop));
    let serving = tokio::spawn(server.serve(router, runtime.stop.clone()));
    membership.heartbeat_now();
    runtime.admin.set_ready(true);

    let outcome = tokio::select! {
        () = runtime.stop.cancelled() => Ok(()),
        status = membership.refused() => Err(anyhow::anyhow!("the cluster refuses this node: {status}")),
    };
    runtime.admin.set_ready(false);
    runtime.stop.cancel();
    membership.leave().await;
    serving.await.context("end the service")?;
    targets.shut_down().await;
    outcome
}

async fn join(
    config: Arc<StoragedConfig>,
    identity: NodeIdentity,
    disks: Vec<pb::Disk>,
    report: impl Fn() -> Report + Send + Sync + 'static,
    peers: Arc<Peers>,
    routing: Arc<RoutingCache>,
) -> Result<Membership> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let request = pb::JoinRequest {
        // Filled in by the membership.
        level: 0,
        node_id: identity.node_id,
        role: pb::NodeRole::Storaged.into(),
        address: config.listen.clone(),
        admin_address: config.http_listen.clone(),
        hostname: hostname.trim().to_owned(),
        disks,
        incarnation: 0,
        cluster_id: identity.cluster_id,
        addresses: addresses(&config),
    };
    let config = MembershipConfig { metads: config.metads.clone(), request };
    Membership::join(config, peers, routing, report).await.context("join the cluster")
}

/// Where it is reached in which zone.
fn addresses(config: &StoragedConfig) -> Vec<pb::ZoneAddress> {
    let own = (!config.network.zone.is_empty()).then_some((&config.network.zone, &config.listen));
    let further = config.zones.iter().map(|in_zone| (&in_zone.zone, &in_zone.listen));
    own.into_iter()
        .chain(further)
        .map(|(zone, address)| pb::ZoneAddress { zone: zone.clone(), address: address.clone() })
        .collect()
}

/// What each heartbeat says.
fn report(
    targets: Arc<Targets>,
    ways: Ways,
    metrics: Arc<StorageMetrics>,
    certificate: Option<Arc<Certificate>>,
    leaf: String,
) -> impl Fn() -> Report + Send + Sync + 'static {
    move || {
        let work = metrics.work();
        Report {
            read_bytes: work.read_bytes,
            write_bytes: work.write_bytes,
            read_ops: work.read_ops,
            write_ops: work.write_ops,
            certificate_expires_s: certificate
                .as_ref()
                .and_then(|own| own.expires_s())
                .unwrap_or(0),
            unreachable: ways.unreachable(),
            leaf: leaf.clone(),
            ..targets.report()
        }
    }
}

/// What `/status` and `/dump` say of the targets.
fn show(runtime: &Runtime, targets: &Arc<Targets>, node: u32) {
    let shown = targets.clone();
    runtime.admin.status("targets", move || {
        let targets = shown.clone();
        async move { targets.all().iter().map(show_target).collect() }
    });
    let shown = targets.clone();
    runtime.admin.status("disks", move || {
        let disks = shown.disks();
        async move {
            disks
                .iter()
                .map(|disk| {
                    json!({
                        "path": disk.path,
                        "capacity_bytes": disk.capacity_bytes,
                        "used_bytes": disk.used_bytes,
                        "failed": disk.failed,
                    })
                })
                .collect()
        }
    });
    runtime.admin.status("node", move || async move { json!(node) });
    let shown = targets.clone();
    runtime.admin.dump("waiting", move || {
        let targets = shown.clone();
        async move {
            let mut waiting = serde_json::Map::new();
            for handle in targets.all() {
                let explained = tokio::time::timeout(EXPLAIN_WAIT, handle.explain()).await;
                let lines = explained.unwrap_or_else(|_| vec!["the target does not answer".into()]);
                waiting.insert(handle.meta.id.to_string(), json!(lines));
            }
            waiting.into()
        }
    });
}

/// A target that answers nothing for this long is said to be stuck.
const EXPLAIN_WAIT: Duration = Duration::from_millis(500);

fn show_target(handle: &crate::target_driver::TargetHandle) -> serde_json::Value {
    let seen = handle.seen();
    json!({
        "target": handle.meta.id.0,
        "chain": handle.meta.chain.0,
        "role": format!("{:?}", seen.role),
        "local_state": seen.report.local_state.as_str_name(),
        "chain_version": seen.report.chain_version,
        "chunks": seen.chunks,
        "live_chunks": seen.live_chunks,
        "resync": { "done": seen.report.sync_done_chunks, "total": seen.report.sync_total_chunks },
        "waiting_for": seen.report.waiting_for,
    })
}
