//! `ff2ctl bench`: figures of a running cluster, of the disk under it, and of a raft group alone.
//!
//! CPU seconds are summed over all processes of the cluster, the mount and this program, because a
//! file system's cost is what it takes from the programs beside it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use serde_json::json;

use crate::{
    bytes::ByteSize,
    output::{Output, table},
    own::Own,
    stop::Stop,
};

mod all;
mod checkpoint;
mod cpu;
mod directory;
mod disk;
mod fs;
mod host;
mod idle;
mod meta;
mod net;
mod raft;
mod ring;
mod sched;
mod tree;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// All of the below, the file system's figures beside the disk's in the same run.
    All(all::Args),
    /// Streams and random I/O through the mount.
    Fs(fs::Args),
    /// Creates, looks up, reads and removes small files on the mount.
    Meta(meta::Args),
    /// Several programs save a checkpoint each, then several read one each that nobody has cached.
    Checkpoint(checkpoint::Args),
    /// Unpacks an archive of small files, and removes the tree.
    Tree(tree::Args),
    /// Makes, lists and removes one very large directory, and tells the longest operation.
    Directory(directory::Args),
    /// What the cluster uses while nobody uses it.
    Idle(idle::Args),
    /// What the disk under the cluster does by itself (needs `fio`).
    Disk(disk::Args),
    /// Reads by a user ring, and the disk's own (needs `fio`).
    Ring(ring::Args),
    /// A raft group alone: three replicas in this process.
    Raft(raft::Args),
    /// Bandwidth and latency between two processes, by TCP, shared memory and RDMA, beside iperf3 and perftest.
    Net(net::Args),
    /// The scheduler: decisions of its core, and durable submissions.
    Sched(sched::Args),
}

/// What one piece of work reached.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// Figures of the same work, on the file system and on the disk, are held against each other.
    work: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
}

/// What it cost.
#[derive(Debug, Serialize)]
struct Cpu {
    value: f64,
    unit: &'static str,
    /// How many cores were busy with it.
    cores: f64,
    /// Shares of `value`.
    by_role: BTreeMap<String, f64>,
}

impl Figure {
    fn new(work: &'static str, name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { work, name: name.into(), value, unit, cpu: None }
    }

    /// Bytes that moved at a cost.
    fn moved(work: &'static str, name: impl Into<String>, bytes: u64, cost: &cpu::Cost) -> Self {
        let mib = bytes as f64 / f64::from(1 << 20);
        Self::new(work, name, mib / cost.wall_s, "MiB/s").costing(cost, 1024.0 / mib, "s/GiB")
    }

    /// Operations that were done at a cost.
    fn done(work: &'static str, name: impl Into<String>, count: u64, cost: &cpu::Cost) -> Self {
        let count = count.max(1) as f64;
        Self::new(work, name, count / cost.wall_s, "1/s").costing(cost, 1e6 / count, "us each")
    }

    fn costing(mut self, cost: &cpu::Cost, factor: f64, unit: &'static str) -> Self {
        let total: f64 = cost.cpu_s.values().sum();
        let by_role = cost.cpu_s.iter().map(|(role, s)| (role.clone(), s * factor)).collect();
        let cores = total / cost.wall_s;
        self.cpu = Some(Cpu { value: total * factor, unit, cores, by_role });
        self
    }

    fn value_text(&self) -> String {
        format!("{} {}", rounded(self.value), self.unit)
    }

    fn cpu_text(&self) -> String {
        let text = |cpu: &Cpu| {
            let parts: Vec<String> =
                cpu.by_role.iter().map(|(role, s)| format!("{role} {}", rounded(*s))).collect();
            format!("{} {} ({})", rounded(cpu.value), cpu.unit, parts.join(", "))
        };
        self.cpu.as_ref().map(text).unwrap_or_default()
    }

    fn cores_text(&self) -> String {
        self.cpu.as_ref().map(|cpu| format!("{:.1}", cpu.cores)).unwrap_or_default()
    }
}

/// Three digits say all that such a measurement knows.
fn rounded(value: f64) -> String {
    let decimals = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.decimals$}")
}

/// Runs one benchmark and prints its figures.
pub(crate) fn run(dir: &Path, args: &Args, json: bool) -> Result<()> {
    let stop = Stop::on_signals()?;
    let (dir, args) = (dir.to_path_buf(), args.clone());
    let work = stop.clone();
    stop.supervise(Duration::MAX, move || {
        let output = Output::new(json);
        let figures = match &args {
            Args::All(args) => return all::run(&dir, args, output, &work),
            Args::Fs(args) => fs::run(&Mounted::find(&dir, &work)?, args)?,
            Args::Meta(args) => meta::run(&Mounted::find(&dir, &work)?, args)?,
            Args::Checkpoint(args) => checkpoint::run(&Mounted::find(&dir, &work)?, args)?,
            Args::Tree(args) => tree::run(&Mounted::find(&dir, &work)?, args)?,
            Args::Directory(args) => directory::run(&Mounted::find(&dir, &work)?, args)?,
            Args::Idle(args) => idle::run(&dir, args, &work)?,
            Args::Disk(args) => disk::run(&dir, args, &work)?,
            Args::Ring(args) => ring::run(&Mounted::find(&dir, &work)?, &dir, args)?,
            Args::Raft(args) => raft::run(&dir, args, &work)?,
            Args::Sched(args) => sched::run(&dir, args, &work)?,
            Args::Net(args) if net::is_server(args)? => return Ok(()),
            Args::Net(args) => return net::run(args, output, &work),
        };
        output.print(&json!(figures), || {
            let rows = figures
                .iter()
                .map(|f| vec![f.name.clone(), f.value_text(), f.cpu_text(), f.cores_text()]);
            table(&["WORK", "FIGURE", "CPU OF ALL PROCESSES", "CORES BUSY"], rows)
        })
    })
}

/// Where a benchmark of files runs, and whose CPU counts.
struct Place {
    scratch: Scratch,
    processes: cpu::Processes,
    stop: Stop,
}

/// The cluster's mount.
struct Mounted {
    own: Own,
    mount: PathBuf,
    stop: Stop,
}

impl Mounted {
    fn find(dir: &Path, stop: &Stop) -> Result<Self> {
        let own = Own::new(dir, stop.clone())?;
        let ps = own.json(&["ps"])?;
        let mount = ps
            .as_array()
            .into_iter()
            .flatten()
            .filter(|process| process["state"] == "running")
            .find_map(|process| process["mount_point"].as_str())
            .context("the cluster has no mount: make one with `ff2ctl mount PATH`")?;
        Ok(Self { mount: mount.into(), own, stop: stop.clone() })
    }

    fn place(&self) -> Result<Place> {
        let processes = cpu::Processes::of_cluster(&self.own)?;
        Ok(Place { scratch: Scratch::make(&self.mount)?, processes, stop: self.stop.clone() })
    }
}

impl Place {
    /// Beside the cluster's data, on the disk itself.
    fn beside(dir: &Path, stop: &Stop) -> Result<Self> {
        let processes = cpu::Processes::none();
        Ok(Self { scratch: Scratch::make(dir)?, processes, stop: stop.clone() })
    }

    fn measure(&self, work: impl FnOnce() -> Result<()>) -> Result<cpu::Cost> {
        self.stop.check()?;
        let meter = cpu::Meter::start(&self.processes)?;
        work()?;
        meter.stop()
    }
}

/// A folder for the benchmark's files, removed by [`Scratch::drop`].
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn make(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("bench-{}", std::process::id()));
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
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> =
            (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a benchmark thread does not panic"))
    })
}

/// Says on standard error what is being measured.
fn tell(what: &str) {
    eprintln!("measuring: {what}");
}

/// For options that count something.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// For the size of a benchmark's data.
fn at_least_a_mib(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.0 < 1 << 20 {
        return Err(format!("{size} is too little to measure: at least 1MiB"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        _bench: Args,
    }

    #[test]
    fn zeros_are_refused() {
        for line in [
            "fs --size 0",
            "fs --size 4KiB",
            "fs --streams 0",
            "fs --seconds 0",
            "fs --depth 0",
            "meta --files 0",
            "meta --threads 0",
            "disk --seconds 0",
            "ring --depth 0",
            "net --depth 0",
            "net --size 0",
            "net --size 1GiB",
            "net --transport ib",
            "ring --size 0",
            "disk --size 0",
            "all --size 0",
            "checkpoint --programs 0",
            "tree --entries 0",
            "directory --entries 0",
            "idle --idle-seconds 0",
        ] {
            let words = std::iter::once("bench").chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        for line in ["all --markdown", "fs --size 64MiB --streams 2", "meta --file-size 0", "raft"]
        {
            let words = std::iter::once("bench").chain(line.split(' '));
            Line::try_parse_from(words).unwrap();
        }
    }

    #[test]
    fn costs_are_per_unit_of_work() {
        let cpu_s = BTreeMap::from([("fuse".to_owned(), 1.0), ("storaged".to_owned(), 3.0)]);
        let cost = cpu::Cost { wall_s: 2.0, cpu_s, written: 0 };
        let figure = Figure::moved("w", "work", 2 << 30, &cost);
        assert_eq!(figure.value_text(), "1024 MiB/s");
        assert_eq!(figure.cpu_text(), "2.00 s/GiB (fuse 0.50, storaged 1.50)");
        assert_eq!(figure.cores_text(), "2.0");
        let figure = Figure::done("w", "work", 1000, &cost);
        assert_eq!(figure.value_text(), "500 1/s");
        assert_eq!(figure.cpu_text(), "4000 us each (fuse 1000, storaged 3000)");
    }

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(rounded(1234.5), "1234");
        assert_eq!(rounded(12.345), "12.3");
        assert_eq!(rounded(1.2345), "1.23");
    }
}
