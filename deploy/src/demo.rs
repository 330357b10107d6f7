//! `ff2ctl demo`: the main job, shown on this machine with real input.
//!
//! A cluster comes up and is mounted; the Rust toolchain's libraries (large files) and the cargo
//! registry's sources (many small ones) are copied in; a storage server and the metadata leader are
//! killed in the middle; a crate is compiled on the mount; every byte is compared with its source
//! through a fresh mount; everything is taken down. Each step runs the `ff2ctl` command that a person
//! would type, and prints it. It owns no cluster logic.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanBytes;

mod cluster;
mod compile;
mod copy;
mod input;
mod progress;
mod verify;

use cluster::Cluster;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the demo keeps its cluster; must not exist yet, and is removed at the end. It needs about
    /// 5 GiB on a filesystem with direct I/O (tmpfs has none).
    #[arg(long, default_value = "ff2-demo")]
    folder: PathBuf,
    /// Copy at most this many files of the cargo registry.
    #[arg(long, default_value_t = 12_000)]
    files_max: usize,
    /// Leave the cluster running and mounted at the end, to look around.
    #[arg(long)]
    keep: bool,
}

/// What the summary prints.
#[derive(Debug, Default)]
struct Summary {
    files: usize,
    bytes: u64,
    copy_large: Duration,
    large_bytes: u64,
    copy_small: Duration,
    small_files: usize,
    pause_max: Duration,
    compile: Duration,
    verify: Duration,
    verify_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = std::path::absolute(&args.folder).context("find the demo's folder")?;
    if folder.exists() {
        bail!(
            "{0} exists, perhaps from an earlier demo: remove it with \
             `ff2ctl --dir {0}/cluster down --purge && rm -r {0}`, or name another with --folder",
            folder.display()
        );
    }
    let input = input::find(args.files_max)?;
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let cluster = Cluster::new(folder.clone())?;
    let outcome = play(&cluster, &input);
    if args.keep && outcome.is_ok() {
        println!(
            "\nThe cluster is still up. Look around with `ff2ctl --dir {} status`,",
            cluster.dir()
        );
        println!("and take it down with `ff2ctl --dir {} down --purge`.", cluster.dir());
    } else {
        cluster.down();
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    print_summary(&outcome?);
    Ok(())
}

fn play(cluster: &Cluster, input: &input::Input) -> Result<Summary> {
    let mut summary = Summary { files: input.files(), bytes: input.bytes(), ..Summary::default() };
    heading("A cluster of 3 metadata and 4 storage servers, 3 replicas of everything, mounted");
    cluster.up()?;
    cluster.show(&["status"])?;

    heading(&format!("Large files: {} of toolchain libraries", HumanBytes(input.large_bytes())));
    let started = Instant::now();
    let copied = copy::tree(&input.large, &cluster.mount().join("toolchain"), || Ok(()))?;
    summary.copy_large = started.elapsed();
    summary.large_bytes = copied.bytes;

    heading(&format!("{} small files, and two servers die on the way", input.small.files.len()));
    let started = Instant::now();
    let mut drills = cluster.drills(input.small.files.len());
    let copied =
        copy::tree(&input.small, &cluster.mount().join("registry"), || drills.next_if_due())?;
    ensure!(drills.all_done(), "the copy ended before the servers were killed");
    summary.copy_small = started.elapsed();
    summary.small_files = copied.files;
    summary.pause_max = copied.pause_max;
    cluster.show(&["ps"])?;

    heading("A crate is compiled on the mount, with two servers dead");
    let started = Instant::now();
    compile::crate_on(&cluster.mount())?;
    summary.compile = started.elapsed();

    heading("The dead servers return and catch up");
    cluster.revive()?;

    heading("Every byte is compared with its source, through a fresh mount");
    cluster.remount()?;
    let started = Instant::now();
    let trees = [
        (&input.large, cluster.mount().join("toolchain")),
        (&input.small, cluster.mount().join("registry")),
    ];
    for (tree, copy) in trees {
        summary.verify_bytes += verify::tree(tree, &copy)?;
    }
    summary.verify = started.elapsed();
    Ok(summary)
}

fn heading(text: &str) {
    println!("\n\x1b[1m== {text}\x1b[0m");
}

fn print_summary(summary: &Summary) {
    heading("Summary");
    let rate = |bytes: u64, time: Duration| {
        HumanBytes((bytes as f64 / time.as_secs_f64().max(0.001)) as u64).to_string()
    };
    println!("  copied in        {} files, {}", summary.files, HumanBytes(summary.bytes));
    println!(
        "  large files      {:>6.1} s   {}/s, each byte on three disks",
        summary.copy_large.as_secs_f64(),
        rate(summary.large_bytes, summary.copy_large)
    );
    println!(
        "  small files      {:>6.1} s   {:.0} files/s, with a storage server and the metadata leader killed",
        summary.copy_small.as_secs_f64(),
        summary.small_files as f64 / summary.copy_small.as_secs_f64().max(0.001)
    );
    println!(
        "  longest pause    {:>6.1} s   (no error: the copy waited and went on)",
        summary.pause_max.as_secs_f64()
    );
    println!("  compiled a crate {:>6.1} s", summary.compile.as_secs_f64());
    println!(
        "  verified         {:>6.1} s   {}/s read back, every byte equal",
        summary.verify.as_secs_f64(),
        rate(summary.verify_bytes, summary.verify)
    );
}

/// A path as a person reads it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
