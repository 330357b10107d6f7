//! `ff2ctl bench`: figures of a running cluster, of the disk under it, and of a raft group alone.
//!
//! CPU seconds are summed over all processes of the cluster, the mount and this program, because a
//! file system's cost is what it takes from the programs beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::own::Own;

mod cpu;
mod disk;
mod fs;
mod meta;
mod raft;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Streams and random reads through the mount.
    Fs(fs::Args),
    /// Creates, looks up, opens and removes small files on the mount.
    Meta(meta::Args),
    /// What the disk under the cluster does by itself (needs `fio`).
    Disk(disk::Args),
    /// A raft group alone: three replicas in this process.
    Raft(raft::Args),
}

/// One line of a report.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit }
    }
}

/// Runs one benchmark and prints its figures.
pub(crate) fn run(dir: &Path, args: &Args, json: bool) -> Result<()> {
    let figures = match args {
        Args::Fs(args) => fs::run(&Own::new(dir)?, args)?,
        Args::Meta(args) => meta::run(&Own::new(dir)?, args)?,
        Args::Disk(args) => disk::run(dir, args)?,
        Args::Raft(args) => raft::run(args)?,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        for figure in &figures {
            println!("{:<44} {:>12.2} {}", figure.name, figure.value, figure.unit);
        }
    }
    Ok(())
}

/// A folder for the benchmark's files on the cluster's mount, removed by [`Scratch::drop`].
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn on_mount(own: &Own) -> Result<Self> {
        let ps = own.json(&["ps"])?;
        let processes = ps.as_array().or_else(|| ps["processes"].as_array());
        let mount = processes
            .into_iter()
            .flatten()
            .filter(|process| process["state"] == "running")
            .find_map(|process| process["mount_point"].as_str())
            .context("the cluster has no mount: make one with `ff2ctl mount PATH`")?;
        let path = Path::new(mount).join(format!("bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(problem) = std::fs::remove_dir_all(&self.path) {
            eprintln!("remove {}: {problem}", self.path.display());
        }
    }
}

/// Runs `work` on `threads` threads, each with its number; the first failure is returned.
fn on_threads(threads: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    ensure!(threads > 0, "--threads must be at least 1");
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> =
            (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a benchmark thread does not panic"))
    })
}
