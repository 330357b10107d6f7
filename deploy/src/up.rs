//! `ff2ctl up`: a local cluster of real processes. What is there already is left alone: [`plan`]
//! decides which steps are missing, [`execute`] does them in order.

mod chains;
mod configs;
mod execute;
mod kernel;
mod keys;
mod plan;
mod ports;
mod serving;

use std::path::PathBuf;

use anyhow::{Context, Result};
use ff2_daemon::config::Transport;
use serde_json::json;

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    cluster::{ClusterFile, Name, Process, Role},
    mount, process,
};
pub(crate) use chains::wait_whole;
pub(crate) use execute::{start_and_wait, wait_ready, write_config};
pub(crate) use serving::VOLUME;

/// Sizes of a new cluster; of one that exists, absent options mean "as it is".
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Metadata servers [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    metad: Option<u32>,
    /// Storage servers; a cluster can get more later [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=64))]
    storaged: Option<u32>,
    /// Disks (sparse files) of each storage server [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    disks: Option<u32>,
    /// Size of each disk [default: 8GiB]
    #[arg(long, value_name = "SIZE")]
    disk_size: Option<ByteSize>,
    /// Replicas of all file data [default: 3, or as many as there are storage servers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    replicas: Option<u32>,
    /// All bytes go by TCP, as between machines, instead of through shared memory; fixed for a cluster
    #[arg(long)]
    tcp: bool,
    /// Whether processes reach each other by RDMA: never (tcp), always (rdma; fails without a device), or where
    /// they share no memory and there is a device (auto); fixed for a cluster [default: tcp]
    #[arg(long, value_name = "tcp|rdma|auto")]
    transport: Option<Transport>,
    /// Encrypt the bytes of files too, where they go by TCP; fixed for a cluster
    #[arg(long)]
    encrypt_all: bool,
    /// Compute nodes, as agents on this machine, and a scheduler for them [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=64))]
    agents: Option<u32>,
    /// GPUs that each agent is to say it has, on a machine without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    fake_gpus: Option<u32>,
    /// Mount the volume here.
    #[arg(long, value_name = "PATH")]
    mount: Option<PathBuf>,
    /// First of the ports [default: a free range]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let _lock = around.folder.lock()?;
    let progress = around.output.progress();
    let known = around.folder.read()?;
    let mut file = plan::resolve(&wanted(args), known.as_ref(), &ports::system())?;
    if let Some(path) = &args.mount {
        mount::enter(&around.folder, &mut file, &mount::resolve(path)?)?;
    }
    if file.of(Role::Agentd).next().is_some() && file.jobs_dir.is_none() {
        file.jobs_dir = Some(jobs_dir(around, &file));
    }
    let new: Vec<Name> = file
        .processes
        .iter()
        .map(Process::name)
        .filter(|name| known.as_ref().is_none_or(|known| known.find(*name).is_err()))
        .collect();
    let world = plan::World::look(&around.folder, &file);
    let steps = plan::plan(&file, known.as_ref(), &world);
    let nothing = !steps.iter().any(plan::Step::starts);
    if !file.tcp {
        kernel::allow_huge_pages(&progress);
    }
    if let Err(error) = execute::all(around, &file, steps, &progress).await {
        for mount in new.iter().filter(|name| name.role == Role::Fuse) {
            take_back(around, &mut file, *mount)
                .await
                .with_context(|| format!("take the mount back after this: {error:#}"))?;
        }
        return Err(error);
    }
    progress.finish();
    let grew = if known.is_some() { &new[..] } else { &[] };
    report(around, &file, nothing, grew)
}

/// On the volume, if it is mounted; else beside the cluster.
fn jobs_dir(around: &Surroundings, file: &ClusterFile) -> PathBuf {
    let mount = file.of(Role::Fuse).find_map(|process| process.mount_point.clone());
    mount.unwrap_or_else(|| around.folder.path().to_owned()).join("jobs")
}

/// A mount that stands is kept, whatever failed after it.
async fn take_back(around: &Surroundings, file: &mut ClusterFile, mount: Name) -> Result<()> {
    if process::is_ready(&around.folder, mount).await {
        return Ok(());
    }
    mount::take_back(&around.folder, file, mount).await
}

fn wanted(args: &Args) -> plan::Wanted {
    plan::Wanted {
        metads: args.metad,
        storageds: args.storaged,
        disks: args.disks,
        disk_size: args.disk_size,
        replicas: args.replicas,
        tcp: args.tcp,
        transport: args.transport,
        encrypt_all: args.encrypt_all,
        agents: args.agents,
        fake_gpus: args.fake_gpus,
        base_port: args.base_port,
    }
}

fn report(around: &Surroundings, file: &ClusterFile, nothing: bool, grew: &[Name]) -> Result<()> {
    let dir = around.folder.path();
    let pages_of = |role| -> Vec<String> {
        let page = |p: &Process| format!("http://{}:{}/", crate::cluster::HOST, p.http_port);
        file.of(role).map(page).collect()
    };
    let (pages, job_pages) = (pages_of(Role::Metad), pages_of(Role::Schedd));
    let mounts: Vec<_> = file.of(Role::Fuse).filter_map(|p| p.mount_point.clone()).collect();
    let empty = grew.iter().filter(|name| name.role == Role::Storaged).map(ToString::to_string);
    let empty: Vec<String> = empty.collect();
    let value = json!({
        "dir": dir, "cluster_id": file.cluster_id, "metads": file.admins(), "mounts": mounts,
        "status_pages": pages, "job_pages": job_pages, "jobs_dir": file.jobs_dir,
        "was_up": nothing, "new_storageds": empty,
    });
    around.output.print(&value, || {
        let what = if nothing { "was up already" } else { "is up" };
        let mut text = format!("The cluster in {} {what}.\n", dir.display());
        for mount in &mounts {
            text += &format!("Mounted on {}.\n", mount.display());
        }
        if let Some(page) = pages.first() {
            text += &format!("Status page: {page}\n");
        }
        if let Some(page) = job_pages.first() {
            let agents = file.of(Role::Agentd).count();
            text += &format!("Jobs run on {agents} agents: {page}\n");
        }
        if !empty.is_empty() {
            text += &format!(
                "New and empty: {}. `ff2ctl table create --replicas {}` places chains on \
                 all servers, for the files that are made from then on.\n",
                empty.join(", "),
                file.replicas
            );
        }
        text
    })
}
