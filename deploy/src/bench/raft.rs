//! A raft group alone: what its replicas, its log and its syncs cost without a file system on top.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use ff2_group::probe::{self, Figures, Subject};

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
    let (mut rows, mut bare) = (Vec::new(), Vec::new());
    let mut compared = Vec::new();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = probe::report(folder.path(), |subject, figures| match subject {
        Subject::Group if figures.clients == probe::COMPARED_CLIENTS => compared.push(figures),
        Subject::Group => rows.extend(described("raft", &figures)),
        Subject::BareLoop => bare.push(figures),
    });
    tokio.block_on(async {
        tokio::select! {
            outcome = Box::pin(report) => outcome.context("run the group"),
            problem = stopped(stop) => Err(problem),
        }
    })?;
    // Of the turns that both took, each one's middle.
    let (ours, bare) = (middle(compared), middle(bare));
    rows.extend(described("raft", &ours));
    rows.extend(described("raft-rs and RocksDB in a bare loop", &bare));
    let ratio = ours.puts_per_s / bare.puts_per_s;
    rows.push(Figure::new("raft-ratio", "raft, puts as a share of the bare loop's", ratio, ""));
    Ok(rows)
}

fn described(whose: &str, figures: &Figures) -> [Figure; 4] {
    // One client waits for one sync at a time, as a single thread on the disk does.
    let work = if figures.clients == 1 { "sync" } else { "raft" };
    let name = |what: &str| format!("{whose}, {} clients, 64-byte puts{what}", figures.clients);
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    [
        Figure::new(work, name(" on 3 replicas"), figures.puts_per_s, "1/s"),
        Figure::new("raft-time", name(", p50"), microseconds(figures.p50), "us"),
        Figure::new("raft-time", name(", p99"), microseconds(figures.p99), "us"),
        Figure::new("raft-cpu", name(", CPU"), figures.cpu_us_per_put, "us each"),
    ]
}

fn middle(mut turns: Vec<Figures>) -> Figures {
    turns.sort_by(|a, b| a.puts_per_s.total_cmp(&b.puts_per_s));
    turns[turns.len() / 2]
}

async fn stopped(stop: &Stop) -> anyhow::Error {
    loop {
        if let Err(problem) = stop.check() {
            return problem;
        }
        tokio::time::sleep(POLL).await;
    }
}
