//! `ff2ctl up`: a local cluster of real processes. What is there already is left alone: [`plan`]
//! decides which steps are missing, [`execute`] does them in order.

mod configs;
mod execute;
mod keys;
mod plan;
mod ports;
mod serving;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    cluster::{ClusterFile, Role},
};
pub(crate) use execute::{start_and_wait, write_config};
pub(crate) use plan::add_mount;

/// Sizes of a new cluster; of one that exists, absent options mean "as it is".
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Metadata servers [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    metad: Option<u32>,
    /// Storage servers [default: 4]
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
    let mount = args.mount.as_deref().map(std::path::absolute).transpose()?;
    let wanted = plan::Wanted { mount, ..wanted(args) };
    let file = plan::resolve(&wanted, known.as_ref(), &ports::system())?;
    let world = plan::World::look(&around.folder, &file);
    let steps = plan::plan(&file, known.as_ref(), &world);
    let nothing = !steps.iter().any(plan::Step::starts);
    execute::all(around, &file, steps, &progress).await?;
    progress.finish();
    report(around, &file, nothing)
}

fn wanted(args: &Args) -> plan::Wanted {
    plan::Wanted {
        metads: args.metad,
        storageds: args.storaged,
        disks: args.disks,
        disk_size: args.disk_size,
        replicas: args.replicas,
        mount: None,
        base_port: args.base_port,
    }
}

fn report(around: &Surroundings, file: &ClusterFile, nothing: bool) -> Result<()> {
    let dir = around.folder.path();
    let pages: Vec<String> = file
        .of(Role::Metad)
        .map(|p| format!("http://{}:{}/", crate::cluster::HOST, p.http_port))
        .collect();
    let mounts: Vec<_> = file.of(Role::Fuse).filter_map(|p| p.mount_point.clone()).collect();
    let value = json!({
        "dir": dir, "cluster_id": file.cluster_id, "metads": file.admins(), "mounts": mounts,
        "status_pages": pages, "was_up": nothing,
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
        text
    })
}
