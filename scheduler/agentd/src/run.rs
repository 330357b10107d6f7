//! Puts an agent together.

use std::{io, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use ff2_daemon::{
    Runtime,
    config::{AgentConfig, Transport},
    encryption,
};
use ff2_fabric::{
    BufPool, ClusterKey, Identity, Peers, PeersConfig, Rdma, RoutingCache, leader::LeaderFinder,
    rdma::RdmaConfig,
};
use ff2_node::{Hardware, gpus};
use ff2_proto::{SCHED_GROUP, pb};
use ff2_task::keeper::Run;
use parking_lot::Mutex;
use serde_json::json;

use crate::{agent::Agent, confine::Confiner, id, limits, runs::Runs, validation::Validator};

/// The daemon's life, for `ff2_daemon::run`.
///
/// # Errors
/// Its folder cannot be used, or the key not be read.
pub async fn serve(config: Arc<AgentConfig>, runtime: Runtime) -> Result<()> {
    let security = &config.security;
    let key = ClusterKey::load(&security.cluster_key_file).context("load the cluster key")?;
    let (tls, _) = encryption(security)?;
    let routing = RoutingCache::new();
    let peers = Peers::new(PeersConfig {
        cluster_id: config.cluster_id.clone(),
        identity: Identity::Daemon(key),
        pool: BufPool::new(limits::BUFFER_BYTES),
        routing: routing.clone(),
        tls,
        rdma: None,
        zone: config.zone.clone(),
    });
    if config.ranks.transport == Transport::Rdma {
        // Better no job begins here than all fail.
        let demanded = RdmaConfig { demanded: true, ..RdmaConfig::default() };
        Rdma::open(demanded).context("use RDMA, which `ranks.transport = \"rdma\"` demands")?;
    }
    let gpus = match config.fake_gpus {
        Some(count) => gpus::fake(count),
        None => {
            let found = gpus::find();
            if let Some(why) = &found.why {
                tracing::warn!(why, "GPUs");
            }
            found.gpus
        }
    };
    let id = id::of_folder(&config.data_dir);
    let id = id.with_context(|| format!("keep an id in {}", config.data_dir.display()))?;
    let gpu_kind = config.gpu_kind.clone().or_else(|| gpus::kind(&gpus)).unwrap_or_default();
    let indexes: Vec<u32> = gpus.iter().map(|gpu| gpu.index).collect();
    let count = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
    let real = config.fake_gpus.is_none().then_some(count).filter(|count| *count > 0);
    let confiner = Confiner::new(gpus);
    let confinement = confiner.describe();
    tracing::info!(gpus = count, confinement, "what runs here");
    let folder = config.data_dir.join("runs");
    let (jobs_dir, name, ranks) =
        (config.jobs_dir.clone(), config.name.clone(), config.ranks.clone());
    let runs = Runs::open(folder.clone(), jobs_dir, name, ranks, indexes, confiner);
    let runs = runs.with_context(|| format!("find the runs in {}", folder.display()))?;
    let hardware = Hardware::look().context("look at the cores and the memory of this machine")?;
    let memory_mib = u32::try_from(hardware.memory_mib).unwrap_or(u32::MAX);
    let finder = LeaderFinder::new(SCHED_GROUP, config.schedds.clone(), peers, routing)
        .attempt_timeout(limits::WAIT + limits::SLACK);
    let validator = Validator::new(config.data_dir.clone(), config.jobs_dir.clone(), real);
    let agent = Arc::new(Agent {
        node: pb::AgentNode {
            name: config.name.clone(),
            zone: config.zone.clone(),
            pod: config.pod.clone(),
            leaf: config.leaf.clone(),
            gpus: count,
            host: config.host.clone(),
            confinement,
            release: env!("CARGO_PKG_VERSION").into(),
            id,
            gpu_kind,
            ports_only: config.ports_only,
            cpus: config.cpus.unwrap_or(hardware.cpus),
            memory_mib: config.memory_mib.unwrap_or(memory_mib),
        },
        jobs_dir: config.jobs_dir.clone(),
        finder,
        runs: Arc::new(Mutex::new(runs)),
        seen: Mutex::default(),
        data: Mutex::default(),
        pair: Mutex::default(),
        links: config.links.clone(),
        is_root: rustix::process::geteuid().is_root(),
        validated: Mutex::new(validator.last()),
        validator: Arc::new(validator),
    });
    let shown = agent.clone();
    runtime.admin.status("agent", move || {
        let reports = shown.runs.lock().reports();
        let lease_s = shown.lease_left().as_secs();
        let runs: Vec<_> = reports
            .iter()
            .map(|run| {
                let phase = run.phase().as_str_name();
                json!({ "job": run.job, "attempt": run.attempt, "phase": phase, "gpus": run.gpus })
            })
            .collect();
        async move { json!({ "runs": runs, "lease_left_s": lease_s }) }
    });
    let ready = || runtime.admin.set_ready(true);
    agent.talk(&runtime.stop, ready).await;
    // Runs go on: the next process finds them.
    Ok(())
}

/// A keeper's life: see `ff2-task`.
///
/// # Errors
/// The folder is not that of a run, or cannot be written.
pub fn keep(folder: PathBuf) -> io::Result<()> {
    Run::at(folder).keep()
}
