//! The disk's own figures, by `fio`, to hold the file system's against.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Figure;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds of each run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// MiB of the test file.
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
}

const RUNS: [(&str, &str, &str, u32); 4] = [
    ("disk, sequential write, 1 MiB direct", "write", "1m", 8),
    ("disk, sequential read, 1 MiB direct", "read", "1m", 8),
    ("disk, random read, 4 KiB, depth 16", "randread", "4k", 16),
    ("disk, random write, 4 KiB, depth 16", "randwrite", "4k", 16),
];

pub(super) fn run(dir: &Path, args: &Args) -> Result<Vec<Figure>> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let file = dir.join(format!("bench-disk-{}", std::process::id()));
    let figures = RUNS.iter().map(|run| fio(&file, run, args)).collect();
    // The file may not exist if fio could not start.
    let _ = std::fs::remove_file(&file);
    figures
}

fn fio(
    file: &Path,
    (name, mode, block, depth): &(&str, &str, &str, u32),
    args: &Args,
) -> Result<Figure> {
    let output = Command::new("fio")
        .arg(format!("--filename={}", file.display()))
        .args(["--name=disk", "--direct=1", "--ioengine=io_uring", "--output-format=json"])
        .arg(format!("--rw={mode}"))
        .arg(format!("--bs={block}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--size={}m", args.size_mib))
        .args(["--time_based", &format!("--runtime={}", args.seconds)])
        .output()
        .context("start fio (install it: `apt-get install fio`)")?;
    ensure!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("parse fio's report")?;
    let side = if mode.ends_with("read") { "read" } else { "write" };
    let result = &report["jobs"][0][side];
    let small = *block == "4k";
    let value = if small { result["iops"].as_f64() } else { result["bw_bytes"].as_f64() };
    let value = value.context("fio reports a rate")?;
    Ok(if small {
        Figure::new(*name, value, "1/s")
    } else {
        Figure::new(*name, value / f64::from(1 << 20), "MiB/s")
    })
}
