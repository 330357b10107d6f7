//! The cluster while nobody uses it.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use super::{Figure, at_least_one, cpu, rounded, tell};
use crate::{own::Own, stop::Stop};

const LOOK: Duration = Duration::from_millis(500);
/// What was done before comes to its end.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 10, value_parser = at_least_one())]
    idle_seconds: usize,
}

pub(super) fn run(dir: &Path, args: &Args, stop: &Stop) -> Result<Vec<Figure>> {
    tell("the idle cluster");
    let processes = cpu::Processes::of_cluster(&Own::new(dir, stop.clone())?)?;
    wait(SETTLE, stop)?;
    let meter = cpu::Meter::start(&processes)?;
    wait(Duration::from_secs(args.idle_seconds as u64), stop)?;
    let cost = meter.stop()?;
    let cpu_s: f64 = cost.cpu_s.values().sum();
    let memory = processes.memory()?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let parts: Vec<String> =
        memory.iter().map(|(role, bytes)| format!("{role} {}", rounded(mib(*bytes)))).collect();
    let name = format!("idle, memory of all processes ({})", parts.join(", "));
    Ok(vec![
        Figure::new("idle-memory", name, mib(memory.values().sum()), "MiB"),
        Figure::new("idle-cpu", "idle, CPU of one core", cpu_s / cost.wall_s * 100.0, "%"),
    ])
}

fn wait(time: Duration, stop: &Stop) -> Result<()> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < time {
        stop.check()?;
        thread::sleep(LOOK);
    }
    Ok(())
}
