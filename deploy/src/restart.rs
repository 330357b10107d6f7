//! `ff2ctl restart ROLE/N`, and `--rolling` for all servers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Name, Process, Role},
    connect::SEE_STATUS,
    mount,
    output::Progress,
    process::{self, Stopped},
    up, upgrade,
};

/// From all that takes part to a status without problems: a heartbeat, and an election.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// For example metad/1
    #[arg(value_name = "ROLE/N", required_unless_present = "rolling")]
    process: Option<Name>,
    /// All servers, one after the other, each when the one before takes part again.
    ///
    /// The cluster serves meanwhile. New programs beside ff2ctl are what runs afterwards. Mounts stay: restart
    /// each when nothing uses it.
    #[arg(long, conflicts_with = "process")]
    rolling: bool,
    /// Of --rolling: the old programs can be put back afterwards, until `upgrade finish`.
    #[arg(long, requires = "rolling")]
    no_finish: bool,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let (file, _lock) = around.folder.load_locked()?;
    let progress = around.output.progress();
    let Some(name) = args.process else {
        return rolling(around, &file, args.no_finish, &progress).await;
    };
    let how = one(around, &file, name, &progress).await?;
    progress.finish();
    let value = json!({ "restarted": name.to_string(), "stop": format!("{how:?}") });
    around.output.print(&value, || format!("restarted {name}"))
}

async fn one(
    around: &Surroundings,
    file: &ClusterFile,
    name: Name,
    progress: &Progress,
) -> Result<Stopped> {
    let folder = &around.folder;
    let known = file.find(name)?;
    progress.now(format!("stopping {name}"));
    if let Some(path) = &known.mount_point {
        mount::take_down(folder, name, path, false).await?;
    }
    let how = process::stop(folder, name).await?;
    progress.now(format!("starting {name}"));
    up::start_and_wait(folder, file, name).await?;
    Ok(how)
}

/// Stops if anything is wrong before or after one of them: a second server down might be the last replica.
async fn rolling(
    around: &Surroundings,
    file: &ClusterFile,
    no_finish: bool,
    progress: &Progress,
) -> Result<()> {
    let healthy = is_healthy(around).await?;
    ensure!(healthy, "the cluster is not healthy, so no server is stopped; {SEE_STATUS}");
    // Metads first: they must know what newer storage servers and mounts tell them.
    let servers: Vec<Name> = [Role::Metad, Role::Storaged, Role::Schedd, Role::Agentd]
        .into_iter()
        .flat_map(|role| file.of(role).map(Process::name))
        .collect();
    let all = servers.len();
    for (done, name) in servers.iter().enumerate() {
        let how = one(around, file, *name, progress).await;
        how.with_context(|| format!("{done} of {all} servers were restarted, then {name}"))?;
        up::wait_whole(around, progress).await?;
        wait_healthy(around).await.with_context(|| format!("after the restart of {name}"))?;
        progress.done(&format!("restarted {name} ({} of {all})", done + 1));
    }
    let level = if no_finish { None } else { Some(end_upgrade(around).await?) };
    progress.finish();
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let told = || match level {
        Some(level) => {
            format!("restarted {all} servers, one after the other; the cluster is at level {level}")
        }
        None => format!("restarted {all} servers, one after the other"),
    };
    around.output.print(&json!({ "restarted": names, "level": level }), told)
}

/// The new leader has heard nobody yet at first.
async fn end_upgrade(around: &Surroundings) -> Result<u32> {
    let since = Instant::now();
    loop {
        match upgrade::finish(&around.access.connect()?).await {
            Ok(reply) => return Ok(reply.level),
            Err(error) if since.elapsed() > HEALTHY_WITHIN => {
                return Err(
                    error.context("all servers were restarted, and the upgrade is not finished")
                );
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn wait_healthy(around: &Surroundings) -> Result<()> {
    let since = Instant::now();
    while !is_healthy(around).await? {
        let waited = since.elapsed();
        ensure!(waited < HEALTHY_WITHIN, "the cluster is not healthy again; {SEE_STATUS}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn is_healthy(around: &Surroundings) -> Result<bool> {
    Ok(around.access.connect()?.status().await?.healthy)
}
