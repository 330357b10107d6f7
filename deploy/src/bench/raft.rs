//! A raft group alone: what its replicas, its log and its syncs cost without a file system on top.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ff2_group::probe;

use super::Figure;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder on the disk to measure [default: the folder of temporary files]
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<Vec<Figure>> {
    let below = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new()
        .prefix("ff2-bench-raft-")
        .tempdir_in(&below)
        .with_context(|| format!("make a folder in {}", below.display()))?;
    let mut rows = Vec::new();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = probe::report(folder.path(), |figures| {
        let name = |what: &str| format!("{} clients, 64-byte puts, {what}", figures.clients);
        rows.push(Figure::new(name("synced on 3 replicas"), figures.puts_per_s, "1/s"));
        rows.push(Figure::new(name("p50"), figures.p50.as_secs_f64() * 1e6, "us"));
        rows.push(Figure::new(name("p99"), figures.p99.as_secs_f64() * 1e6, "us"));
        rows.push(Figure::new(name("all replicas"), figures.cpu_us_per_put, "CPU us each"));
    });
    tokio.block_on(Box::pin(report)).context("run the group")?;
    Ok(rows)
}
