//! One trace, one policy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ff2_sched_core::Policy;
use ff2_sched_replay::{Report, Setting, cluster, plot, replay, trace};
use ff2_topology::{Topology, lingjun};

use crate::output::{Output, table};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The table of jobs.
    trace: PathBuf,
    /// How many GPUs there are, in nodes of 8.
    #[arg(long, value_name = "N", required_unless_present = "topology")]
    gpus: Option<u32>,
    /// Nodes at each leaf switch.
    #[arg(long, value_name = "N", default_value_t = 15, conflicts_with = "topology",
          value_parser = clap::value_parser!(u32).range(1..))]
    per_leaf: u32,
    /// The network instead: a description (JSON), or a table of the Lingjun format (CSV).
    #[arg(long, value_name = "FILE", conflicts_with = "gpus")]
    topology: Option<PathBuf>,
    /// In which order jobs go.
    #[arg(long, value_enum, default_value = "ff2")]
    policy: Choice,
    /// Milliseconds in a unit of the trace's times: 1 for Muri's traces, 1000 for those in seconds.
    #[arg(long, value_name = "MS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    unit_ms: u64,
    /// Draw what happened (SVG).
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Look after each step whether all holds that must (slow).
    #[arg(long)]
    checks: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Choice {
    /// As they came; who does not fit holds up all behind.
    Fifo,
    /// As fifo, but others go ahead where exact run times say that nobody is delayed.
    Easy,
    /// Who had least goes first, whatever it costs others.
    Las,
    /// This scheduler's own: as las, with few preemptions, and nobody starves.
    Ff2,
}

impl Choice {
    fn policy(self) -> Policy {
        match self {
            Self::Fifo => Policy::Fifo,
            Self::Easy => Policy::Easy,
            Self::Las => Policy::las(),
            Self::Ff2 => Policy::ff2(),
        }
    }
}

pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    let text = read(&args.trace)?;
    let jobs = trace::csv(&text, args.unit_ms).with_context(|| name(&args.trace))?;
    let topology = match (&args.topology, args.gpus) {
        (Some(file), _) => topology(file)?,
        (None, gpus) => cluster(gpus.unwrap_or(0), args.per_leaf),
    };
    let setting = Setting { checks: args.checks, ..Setting::new(args.policy.policy()) };
    let report = replay(&topology, &jobs, &setting).with_context(|| name(&args.trace))?;
    if let Some(file) = &args.plot {
        let title = format!("{}, {} GPUs, {:?}", args.trace.display(), report.gpus, args.policy);
        fs::write(file, plot(&report, &title))
            .with_context(|| format!("write {}", file.display()))?;
    }
    output.print(&serde_json::to_value(&report)?, || shown(&report))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn topology(file: &Path) -> Result<Topology> {
    let text = read(file)?;
    let is_table = file.extension().is_some_and(|extension| extension == "csv");
    let description = if is_table {
        lingjun::describe(&text, 8, 400).with_context(|| name(file))?
    } else {
        serde_json::from_str(&text).with_context(|| name(file))?
    };
    Topology::new(&description).with_context(|| name(file))
}

fn shown(report: &Report) -> String {
    let hours = |hours: f64| format!("{hours:.2} h");
    let of = |name: &str, value: String| vec![name.to_owned(), value];
    let (jct, queueing) = (&report.jct_hours, &report.queueing_hours);
    table(
        &["REPLAY", "FIGURE"],
        [
            of("jobs", report.jobs.to_string()),
            of("GPUs", report.gpus.to_string()),
            of("from submission to end, mean", hours(jct.mean)),
            of("  median", hours(jct.p50)),
            of("  99 of 100 within", hours(jct.p99)),
            of("waiting, mean", hours(queueing.mean)),
            of("  99 of 100 at most", hours(queueing.p99)),
            of("GPUs in use while jobs wait", format!("{:.2} %", report.occupancy * 100.0)),
            of("from first submission to last end", format!("{:.1} days", report.makespan_days)),
            of("preemptions", report.preemptions.to_string()),
            of("moves", report.moves.to_string()),
            of(
                "leaves of a gang, mean (at least)",
                format!("{:.2} ({:.2})", report.leaves_spanned, report.leaves_least),
            ),
            of("allreduce of a gang, at most", format!("{:.2} GB/s", report.allreduce_gb_per_s)),
            of(
                "GPU time lost by suspending",
                format!("{:.0} of {:.0} h", report.gpu_hours_lost, report.gpu_hours),
            ),
        ],
    )
}
