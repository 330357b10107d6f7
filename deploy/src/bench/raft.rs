//! A raft group alone: what its replicas, its log and its syncs cost without a file system on top.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use ff2_group::probe;

use super::{Figure, tell};
use crate::stop::Stop;

const POLL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// A folder on the disk to measure [default: the cluster's folder]
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(super) fn run(dir: &Path, args: &Args, stop: &Stop) -> Result<Vec<Figure>> {
    on(args.folder.as_deref().unwrap_or(dir), stop)
}

/// Runs on the disk that holds this folder.
pub(super) fn on(below: &Path, stop: &Stop) -> Result<Vec<Figure>> {
    tell("a raft group of three replicas");
    std::fs::create_dir_all(below).with_context(|| format!("create {}", below.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("bench-raft-")
        .tempdir_in(below)
        .with_context(|| format!("make a folder in {}", below.display()))?;
    let mut rows = Vec::new();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = probe::report(folder.path(), |figures| {
        // One client waits for one sync at a time, as a single thread on the disk does.
        let work = if figures.clients == 1 { "sync" } else { "raft" };
        let name = |what: &str| format!("raft, {} clients, 64-byte puts{what}", figures.clients);
        rows.push(Figure::new(work, name(" on 3 replicas"), figures.puts_per_s, "1/s"));
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        rows.push(Figure::new("raft-time", name(", p50"), microseconds(figures.p50), "us"));
        rows.push(Figure::new("raft-time", name(", p99"), microseconds(figures.p99), "us"));
        rows.push(Figure::new("raft-cpu", name(", CPU"), figures.cpu_us_per_put, "us each"));
    });
    tokio.block_on(async {
        tokio::select! {
            outcome = Box::pin(report) => outcome.context("run the group"),
            problem = stopped(stop) => Err(problem),
        }
    })?;
    Ok(rows)
}

async fn stopped(stop: &Stop) -> anyhow::Error {
    loop {
        if let Err(problem) = stop.check() {
            return problem;
        }
        tokio::time::sleep(POLL).await;
    }
}
