//! Puts a schedd together: its group, the data plane, the leader's work, the interfaces for people.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use ff2_daemon::{Expiry, Runtime, config::SchedConfig, encryption};
use ff2_fabric::{
    AgentsServer, BufPool, ClusterKey, Identity, Peers, PeersConfig, RaftServer, Router,
    RoutingCache, Server, ServerConfig, membership::RoutingWatch, tls::ServerTls,
};
use ff2_group::{Group, GroupConfig, Link, Pending, RaftMetrics, RaftService, lead_each_term};
use ff2_proto::{Code, SCHED_GROUP, Status};
use ff2_sched_core::{Bands, Config, Policy, Resources};
use ff2_sched_machine::SchedMachine;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{agents::AgentService, api, http, leader::SchedGroup, limits, metrics::Gauges};

/// The daemon's life, for `ff2_daemon::run`.
///
/// # Errors
/// It cannot listen, or its folder is not that of a replica.
pub async fn serve(config: Arc<SchedConfig>, runtime: Runtime) -> Result<()> {
    let key =
        ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
    let pool = BufPool::new(limits::BUFFER_BYTES);
    let routing = RoutingCache::new();
    let (tls, certificate) = encryption(&config.security)?;
    let mut server =
        ServerConfig::new(config.cluster_id.clone(), key.clone(), pool.clone(), routing.clone());
    let demands = tls.is_some();
    server.tls = certificate.clone().map(|own| ServerTls::new(own, demands)).transpose()?;
    if let Some(own) = certificate.clone() {
        runtime.metrics.collector(Expiry::new(move || own.expires_s()));
    }
    let server = Server::bind(&config.listen, server)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let peers = Peers::new(PeersConfig {
        cluster_id: config.cluster_id.clone(),
        identity: Identity::Daemon(key.clone()),
        pool,
        routing: routing.clone(),
        tls,
        rdma: None,
        zone: String::new(),
    });
    let raft = RaftMetrics::new(&runtime.metrics);
    let group = Group::open(
        group_config(&config, &raft),
        SchedMachine::new(policy(&config)),
        Link::new(peers.clone()),
    )
    .context("open the scheduler's group")?;
    let sched = SchedGroup::new(group, &config.compute);

    // Which tokens were revoked, the metads tell.
    let _watch = RoutingWatch::start(config.metads.clone(), peers, routing.clone());
    let unplug = CancellationToken::new();
    serve_data_plane(&runtime, &sched, &config, server, unplug.clone());
    let leading = sched.clone();
    runtime.tasks.spawn(lead_each_term(
        sched.group.leadership(),
        runtime.stop.clone(),
        move |term| {
            let sched = leading.clone();
            async move { sched.lead_term(term).await }
        },
    ));
    let (gauges, shown) = (Gauges::new(&runtime.metrics), sched.clone());
    let stop = runtime.stop.clone();
    runtime.tasks.spawn(async move {
        let mut changes = shown.group.watch_view();
        loop {
            shown.look(|state| gauges.show(state));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            ff2_fabric::pace::pause(limits::GAUGES_STEP).await;
        }
    });
    let people = api::Api { sched: sched.clone(), config: config.clone(), key, routing };
    runtime.admin.pages(http::pages(people.clone()));
    let grpc = api::bind(people, certificate).await?;
    runtime.tasks.spawn(grpc.serve(runtime.operations.clone(), runtime.stop.clone()));
    let shown = sched.group.clone();
    runtime.admin.status("group", move || {
        let status = shown.status();
        async move {
            json!({ "leader": status.leader_node, "term": status.term, "applied": status.applied_index })
        }
    });

    let ready = async {
        while !votes(&sched.group.status(), config.node) {
            tokio::time::sleep(limits::VOTES_LOOK).await;
        }
        runtime.admin.set_ready(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = runtime.stop.cancelled() => {}
        () = ready => {}
    }
    runtime.admin.set_ready(false);
    // Leadership is handed over while the data plane is there.
    sched.group.shutdown().await;
    unplug.cancel();
    Ok(())
}

fn serve_data_plane(
    runtime: &Runtime,
    sched: &SchedGroup,
    config: &SchedConfig,
    server: Server,
    unplug: CancellationToken,
) {
    let founding: Vec<u32> = config.peers.iter().map(|peer| peer.node).collect();
    let admit = move |node: u32| {
        let is_known = founding.contains(&node);
        Box::pin(async move {
            match is_known {
                true => Ok(()),
                false => Err(Status::new(
                    Code::Forbidden,
                    format!("replica {node} is not in `peers` of this configuration"),
                )),
            }
        }) as Pending<()>
    };
    let raft = RaftService::new(runtime.operations.clone(), Box::new(admit)).host(&sched.group);
    let agents = AgentService {
        sched: sched.clone(),
        operations: runtime.operations.clone(),
        partitions: config.partitions.clone(),
        stop: runtime.stop.clone(),
    };
    let services =
        Router::new().add(RaftServer::new(Arc::new(raft))).add(AgentsServer::new(Arc::new(agents)));
    runtime.tasks.spawn(async move { server.serve(services, unplug).await });
}

/// Whether the group counts on this replica, and on no earlier one of the same number.
fn votes(group: &ff2_proto::pb::GroupStatus, node: u32) -> bool {
    let mut own = group.members.iter().filter(|member| member.node == node);
    own.next().is_some_and(|member| member.voter) && own.next().is_none() && group.leader_node != 0
}

fn policy(config: &SchedConfig) -> Config {
    let (compute, said) = (&config.compute, &config.policy);
    let beside_gpus = Resources { gpus: 0, cpus: compute.cpus, memory: compute.memory_mib };
    let policy = match Policy::ff2() {
        Policy::Bands(bands) => Policy::Bands(Bands {
            min_run_ms: said.min_run_s * 1_000,
            patience_ms: said.patience_s * 1_000,
            plan_every_ms: said.plan_every_s * 1_000,
            ..bands
        }),
        other => other,
    };
    Config { policy, beside_gpus, ..Config::default() }
}

fn group_config(config: &SchedConfig, metrics: &RaftMetrics) -> GroupConfig {
    let raft = &config.raft;
    GroupConfig {
        peers: config.peers.iter().map(|peer| peer.address.clone()).collect(),
        tick: Duration::from_millis(raft.tick_ms),
        election_ticks: raft.election_ticks,
        heartbeat_ticks: raft.heartbeat_ticks,
        log_keep_entries: raft.log_keep_entries,
        broadcast_commits: false,
        metrics: metrics.of(SCHED_GROUP.0),
        ..GroupConfig::new(SCHED_GROUP, config.node, &config.listen, &config.data_dir)
    }
}
