//! `ff2ctl demo`: the main job, shown on this machine with real input.
//!
//! A cluster comes up and is mounted; the Rust toolchain's libraries (large files) and the cargo
//! registry's sources (many small ones) are copied in; a storage server and the metadata leader are
//! killed in the middle; a crate is compiled on the mount; a job makes room for another one and goes on where
//! it was; every byte is compared with its source through a fresh mount; a model learns a book, makes room, loses a
//! storage server and goes on, is served and answers; everything is taken down. Each step runs the command that a
//! person would type, and prints it. It owns no cluster logic.
//!
//! However it ends (done, failed, interrupted, too slow), the cluster is taken down and the folder removed.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use indicatif::{HumanBytes, HumanCount};

mod answer;
mod cluster;
mod compile;
mod copy;
mod folder;
mod input;
mod jobs;
mod model;
mod progress;
mod say;
mod summary;
mod verify;

use cluster::Cluster;
use folder::Folder;
use say::Say;
use summary::Summary;

use crate::stop::{Reason, Stop};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the demo keeps its cluster; removed at the end. It needs a few GiB on a filesystem with
    /// direct I/O (tmpfs has none).
    #[arg(long, default_value = "/var/tmp/ff2-demo")]
    folder: PathBuf,
    /// Copy at most this many files of the cargo registry.
    #[arg(long, default_value_t = 20_000)]
    files_max: usize,
    /// Give up, and clean up, after this many seconds.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..))]
    limit_s: u64,
    /// Leave the cluster running and mounted at the end, to look around.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<()> {
    let started = Instant::now();
    let say = Say::new(json);
    let input = input::find(args.files_max)?;
    let stop = Stop::on_signals()?;
    let folder = Folder::claim(&args.folder, input.bytes(), say)?;
    let cluster = Cluster::new(&folder, stop.clone(), say)?;
    let limit = Duration::from_secs(args.limit_s);
    let python = folder.python();
    let outcome = stop.supervise(limit, move || play(&cluster, &input, &python, say));
    let cleaned = finish(folder, &stop, &outcome, args.keep, say);
    match outcome {
        Ok(summary) => {
            summary.print(started.elapsed(), say)?;
            cleaned
        }
        // What went wrong first matters most.
        Err(problem) => {
            if let Err(more) = cleaned {
                say::warn(&format!("cleaning up failed too: {more:#}"));
            }
            Err(problem)
        }
    }
}

/// Takes everything down, or hands it over to the user.
fn finish(
    folder: Folder,
    stop: &Stop,
    outcome: &Result<Summary>,
    keep: bool,
    say: Say,
) -> Result<()> {
    if let Err(problem) = outcome {
        say::warn(&format!("{problem:#}; cleaning up, which takes up to a minute"));
        if stop.reason() != Some(Reason::Signal) {
            match folder.save_logs() {
                Ok(saved) => say::warn(&format!("the servers' logs are in {}", saved.display())),
                Err(more) => say::warn(&format!("the servers' logs are lost: {more:#}")),
            }
        }
        return folder.remove_after_stop();
    }
    if keep {
        say.heading("The cluster is still up");
        say.line(&format!("  look around:   ls {}", folder.mount().display()));
        say.line(&format!("  take it down:  {}", folder.how_to_remove()));
        return folder.keep();
    }
    say.heading("Everything is taken down");
    folder.remove()
}

fn play(cluster: &Cluster, input: &input::Input, python: &Path, say: Say) -> Result<Summary> {
    let (large, small) = (&input.large, &input.small);
    let mut summary = Summary::default();
    say.heading(
        "A cluster of 3 metadata, 4 storage and 2 compute nodes, 3 replicas of everything, mounted",
    );
    cluster.up()?;
    cluster.show(&["status"])?;

    say.heading(&format!(
        "Large files: {} of toolchain libraries from {}",
        HumanBytes(large.bytes()),
        large.root.display()
    ));
    let stop = cluster.stop();
    summary.large = copy::tree(large, &cluster.mount().join("toolchain"), stop, || Ok(()))?;
    say.line(&summary.large.to_string());

    say.heading(&format!(
        "{} small files from {}, and two servers die on the way",
        HumanCount(small.files.len() as u64),
        small.root.display()
    ));
    let mut drills = cluster.drills(small.files.len());
    let registry = cluster.mount().join("registry");
    summary.small = copy::tree(small, &registry, stop, || drills.next_if_due())?;
    ensure!(drills.all_done(), "the copy ended before the servers were killed");
    say.line(&summary.small.to_string());
    cluster.show(&["ps"])?;

    say.heading("A crate is compiled on the mount, with two servers dead");
    let started = Instant::now();
    compile::crate_on(&cluster.mount(), stop, say)?;
    summary.compile = started.elapsed();

    say.heading("The dead servers return and catch up");
    summary.catch_up = cluster.revive()?;

    say.heading("A job of two nodes with eight GPUs each (none are needed) makes room for one that is urgent");
    summary.jobs = jobs::play(cluster, say)?;

    say.heading("Every byte is compared with its source, through a fresh mount");
    cluster.remount()?;
    let started = Instant::now();
    for (tree, copy) in [(large, "toolchain"), (small, "registry")] {
        summary.verified_bytes += verify::tree(tree, &cluster.mount().join(copy), stop)?;
    }
    summary.verify = started.elapsed();
    say.line(&format!("  {} compared, all equal", HumanBytes(summary.verified_bytes)));

    say.heading(
        "A model learns a book as a job; it makes room for another one, and a storage server dies",
    );
    summary.model = model::learn(cluster, &input.book, say)?;

    say.heading("The model is served by two replicas behind one address, and asked");
    summary.answer = answer::ask(cluster, &summary.model.folder, python, say)?;
    Ok(summary)
}

/// A program of ff2 beside this one.
fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find ff2ctl's own program file")?;
    let path = own.with_file_name(name);
    ensure!(path.exists(), "{} is missing: `make build` makes it", path.display());
    Ok(path)
}

/// A path as a person reads it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
