//! The disk's own figures, by `fio`, to hold the file system's against.

use std::{
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Figure, at_least_a_mib, at_least_one, tell};
use crate::{bytes::ByteSize, stop::Stop};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Size of the test file.
    #[arg(long, default_value = "1GiB", value_parser = at_least_a_mib)]
    pub(super) size: ByteSize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    pub(super) seconds: usize,
    /// Random reads and writes in flight.
    #[arg(long, default_value_t = 16, value_parser = at_least_one())]
    pub(super) depth: usize,
}

/// Enough to keep a disk busy with 1 MiB each.
pub(super) const STREAM_DEPTH: usize = 8;
/// New files that are written in turn: one is written in half a second.
const NEW_FILES: usize = 4;

struct Run {
    work: &'static str,
    name: String,
    mode: &'static str,
    block: &'static str,
    depth: usize,
    /// Each write is followed by fdatasync.
    sync: bool,
    /// A whole new file that is synced at its end, so many times, as the file system's streams are written: blocks that
    /// are overwritten again and again stay in somebody's cache. None: what is there, for a time.
    new_files: Option<usize>,
}

fn runs(depth: usize) -> [Run; 5] {
    let stream = |work, mode, new_files| Run {
        work,
        name: format!("disk: sequential {mode}, 1 MiB direct, depth {STREAM_DEPTH}"),
        mode,
        block: "1m",
        depth: STREAM_DEPTH,
        sync: false,
        new_files,
    };
    let random = |work, mode, what: &str| Run {
        work,
        name: format!("disk: random {what}, 4 KiB direct, depth {depth}"),
        mode,
        block: "4k",
        depth,
        sync: false,
        new_files: None,
    };
    let synced = Run {
        work: "sync",
        name: "disk: 4 KiB write and fdatasync, one after the other".into(),
        mode: "write",
        block: "4k",
        depth: 1,
        sync: true,
        new_files: None,
    };
    [
        stream("seq-write", "write", Some(NEW_FILES)),
        stream("seq-read", "read", None),
        random("rand-read", "randread", "read"),
        random("rand-write", "randwrite", "write"),
        synced,
    ]
}

/// Runs on the disk that holds `dir`.
pub(super) fn run(dir: &Path, args: &Args, stop: &Stop) -> Result<Vec<Figure>> {
    run_some(dir, args, stop, |_| true)
}

/// As [`run`], the reads only.
pub(super) fn reads(dir: &Path, args: &Args, stop: &Stop) -> Result<Vec<Figure>> {
    run_some(dir, args, stop, |run| run.mode.ends_with("read"))
}

fn run_some(
    dir: &Path,
    args: &Args,
    stop: &Stop,
    is_wanted: impl Fn(&&Run) -> bool,
) -> Result<Vec<Figure>> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let file = dir.join(format!("bench-disk-{}", std::process::id()));
    let runs = runs(args.depth);
    let figures =
        runs.iter().filter(is_wanted).map(|run| measure(&file, run, args, stop)).collect();
    // The file may not exist if fio could not start.
    let _ = std::fs::remove_file(&file);
    figures
}

fn measure(file: &Path, run: &Run, args: &Args, stop: &Stop) -> Result<Figure> {
    tell(&run.name);
    let Some(count) = run.new_files else {
        let rate = fio(file, run, args, stop)?;
        let unit = if run.block == "4k" { "1/s" } else { "MiB/s" };
        return Ok(Figure::new(run.work, &run.name, rate, unit));
    };
    // All have the same size: the mean rate is that of the mean time.
    let mut seconds_per_mib = 0.0;
    for _ in 0..count {
        let _ = std::fs::remove_file(file);
        seconds_per_mib += 1.0 / fio(file, run, args, stop)? / count as f64;
    }
    Ok(Figure::new(run.work, &run.name, 1.0 / seconds_per_mib, "MiB/s"))
}

/// Operations of 4 KiB, or else MiB, a second.
fn fio(file: &Path, run: &Run, args: &Args, stop: &Stop) -> Result<f64> {
    let mut command = Command::new("fio");
    command
        .arg(format!("--filename={}", file.display()))
        .args(["--name=disk", "--direct=1", "--ioengine=io_uring", "--output-format=json"])
        .arg(format!("--rw={}", run.mode))
        .arg(format!("--bs={}", run.block))
        .arg(format!("--iodepth={}", run.depth))
        .arg(format!("--fdatasync={}", u8::from(run.sync)))
        .arg(format!("--size={}", args.size.0))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    match run.new_files {
        Some(_) => command.arg("--end_fsync=1"),
        None => command.args(["--time_based", &format!("--runtime={}", args.seconds)]),
    };
    let output = stop.run(&mut command).map_err(|problem| {
        let missing = problem.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        match missing == Some(ErrorKind::NotFound) {
            true => {
                problem.context("fio is missing: `deploy/install-packages.sh bench` installs it")
            }
            false => problem.context("run fio"),
        }
    })?;
    ensure!(output.status.success(), "fio failed on {}", file.display());
    let report: Value = serde_json::from_slice(&output.stdout).context("parse fio's report")?;
    let side = if run.mode.ends_with("read") { "read" } else { "write" };
    let result = &report["jobs"][0][side];
    let rate = |field: &str| result[field].as_f64().context("fio reports a rate");
    match run.block {
        "4k" => rate("iops"),
        _ => Ok(rate("bw_bytes")? / f64::from(1 << 20)),
    }
}
