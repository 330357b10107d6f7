//! Replays a trace file: `sched_replay TRACE --gpus N [--policy fifo|easy|las|ff2] [--unit-ms N] [--json] [--plot F]`.
//! `--topology FILE` instead of `--gpus N` reads a network, `--per-leaf N` says how many nodes a leaf has,
//! `--set NAME=VALUE` changes a number of the bands, and `--checks` looks after each step whether all holds.

use anyhow::{Context, Result, bail};
use ff2_sched_core::Policy;
use ff2_sched_replay::{Setting, cluster, plot, replay, trace};
use ff2_topology::{Topology, lingjun};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut file, mut gpus, mut policy, mut unit_ms) = (None, None, "ff2".to_owned(), 1);
    let (mut per_leaf, mut changes, mut network) = (15, Vec::new(), None);
    let (mut json, mut picture, mut checks) = (false, None, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--gpus" => gpus = Some(value()?.parse().context("read --gpus")?),
            "--policy" => policy = value()?,
            "--unit-ms" => unit_ms = value()?.parse().context("read --unit-ms")?,
            "--per-leaf" => per_leaf = value()?.parse().context("read --per-leaf")?,
            "--topology" => network = Some(value()?),
            "--set" => changes.push(value()?),
            "--json" => json = true,
            "--checks" => checks = true,
            "--plot" => picture = Some(value()?),
            _ if argument.starts_with("--") => bail!("there is no option {argument}"),
            _ => file = Some(argument),
        }
    }
    let file = file.context("name the file with the trace")?;
    let mut chosen = match policy.as_str() {
        "fifo" => Policy::Fifo,
        "easy" => Policy::Easy,
        "las" => Policy::las(),
        "ff2" => Policy::ff2(),
        other => bail!("the policies are fifo, easy, las and ff2, not {other}"),
    };
    for change in &changes {
        chosen = changed(&chosen, change)?;
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let jobs = trace::csv(&text, unit_ms).with_context(|| format!("read {file}"))?;
    let topology = match (network, gpus) {
        (Some(file), _) => topology(&file)?,
        (None, Some(gpus)) => cluster(gpus, per_leaf),
        (None, None) => bail!("say how many GPUs there are: --gpus N, or --topology FILE"),
    };
    let mut setting = Setting::new(chosen);
    setting.checks = checks;
    let started = std::time::Instant::now();
    let report = replay(&topology, &jobs, &setting)?;
    if let Some(picture) = picture {
        let title = format!("{file}, {} GPUs, {policy}", report.gpus);
        std::fs::write(&picture, plot(&report, &title))
            .with_context(|| format!("write {picture}"))?;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "{} jobs on {} GPUs, {policy} ({:.1} s)",
        report.jobs,
        report.gpus,
        started.elapsed().as_secs_f64()
    );
    let jct = report.jct_hours;
    println!(
        "JCT h        mean {:.1}  p50 {:.2}  p99 {:.0}  max {:.0}",
        jct.mean, jct.p50, jct.p99, jct.max
    );
    let wait = report.queueing_hours;
    println!("queueing h   mean {:.1}  p50 {:.2}  p99 {:.0}", wait.mean, wait.p50, wait.p99);
    println!(
        "occupancy    {:.4} while jobs wait, {:.4} in all",
        report.occupancy, report.occupancy_overall
    );
    println!("makespan     {:.1} days", report.makespan_days);
    println!("preemptions  {}  moves {}", report.preemptions, report.moves);
    println!(
        "gangs        {:.2} leaves (at least {:.2}), allreduce up to {:.2} GB/s",
        report.leaves_spanned, report.leaves_least, report.allreduce_gb_per_s
    );
    println!("lost         {:.0} of {:.0} GPU-hours", report.gpu_hours_lost, report.gpu_hours);
    Ok(())
}

/// Lingjun's format if it is a table, else a description as JSON.
fn topology(file: &str) -> Result<Topology> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let description = match file.ends_with(".csv") {
        true => lingjun::describe(&text, 8, 400)?,
        false => serde_json::from_str(&text).with_context(|| format!("read {file}"))?,
    };
    Topology::new(&description).with_context(|| format!("read {file}"))
}

/// The policy with one of its numbers changed.
fn changed(policy: &Policy, change: &str) -> Result<Policy> {
    let (name, value) = change.split_once('=').context("write --set NAME=VALUE")?;
    let mut json = serde_json::to_value(policy)?;
    let number = json.get_mut("bands").and_then(|bands| bands.get_mut(name));
    *number.with_context(|| format!("this policy has no {name}"))? = value.parse()?;
    serde_json::from_value(json).with_context(|| format!("set {change}"))
}
