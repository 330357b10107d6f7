//! Policies side by side on workloads that are drawn from distributions: what the numbers of `ff2` were chosen by.
//!
//! `sched_policies [--seeds 1,2] [--each] [--trace FILE:GPUS] [ff2 | FIELD=VALUE,...]...`: each argument is a policy,
//! `ff2` or `ff2` with some numbers changed. `easy`, which knows all run times, and `las` are always there. With a
//! trace (of Muri's format) that is replayed instead of the workloads. `--each` has a line for each workload and
//! policy.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use ff2_sched_core::Policy;
use ff2_sched_replay::{
    Report, Setting, cluster, replay,
    trace::{TraceJob, csv},
    workload::{RunTime, Workload},
};
use ff2_topology::Topology;

/// How many of a hundred jobs take so many GPUs: means of 2, 4 and 13.
const SMALL: &[(u32, u64)] = &[(1, 78), (2, 8), (4, 6), (8, 5), (16, 2), (32, 1)];
const MIXED: &[(u32, u64)] = &[(1, 60), (2, 10), (4, 10), (8, 12), (16, 5), (32, 3)];
const GANGS: &[(u32, u64)] = &[(1, 40), (8, 30), (16, 15), (32, 8), (64, 5), (128, 2)];

/// Each is drawn with three loads, the queue ever longer, on clusters of three sizes.
const LOADS: [f64; 3] = [0.9, 1.1, 1.3];
const JOBS: usize = 5_000;

struct Family {
    name: &'static str,
    run_time: RunTime,
    /// The longest run, in means: more, and a few jobs are most of the work.
    longest: f64,
    sizes: &'static [(u32, u64)],
    at_once: u64,
    gpus: [u32; 3],
}

struct Case {
    name: String,
    topology: Topology,
    jobs: Vec<TraceJob>,
}

fn families() -> [Family; 8] {
    let log_normal = |median, mean| RunTime::LogNormal { median, mean };
    let family = |name, run_time, longest, sizes, at_once, gpus| Family {
        name,
        run_time,
        longest,
        sizes,
        at_once,
        gpus,
    };
    let pareto = RunTime::Pareto { least: 1_800.0, exponent: 1.2 };
    let two = RunTime::TwoKinds { short: 3_600.0, long: 360_000.0, one_in: 20 };
    [
        // Medians and means of the AcmeTrace summary.
        family("philly", log_normal(874.0, 18_006.0), 540_180.0, SMALL, 1, [64, 96, 128]),
        family("helios", log_normal(206.0, 6_652.0), 199_560.0, MIXED, 1, [64, 128, 256]),
        family("seren", log_normal(122.0, 1_414.0), 42_420.0, MIXED, 1, [64, 128, 256]),
        family("kalos", log_normal(124.0, 1_260.0), 37_800.0, GANGS, 1, [256, 384, 512]),
        // Of the run times in Tiresias' repository (yarn-gput10000).
        family("tiresias", log_normal(2_227.0, 116_539.0), 3_496_170.0, MIXED, 1, [128, 256, 384]),
        family("sweeps", log_normal(2_227.0, 50_000.0), 1_500_000.0, SMALL, 10, [64, 128, 192]),
        family("pareto", pareto, 324_000.0, MIXED, 1, [64, 128, 256]),
        family("two kinds", two, 10_000_000.0, MIXED, 1, [128, 256, 384]),
    ]
}

fn cases(seed: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (row, family) in families().into_iter().enumerate() {
        for (column, load) in LOADS.into_iter().enumerate() {
            let gpus = family.gpus[(row + column) % 3];
            let Family { run_time, longest, sizes, at_once, .. } = family;
            let workload = Workload { run_time, longest, sizes, at_once, jobs: JOBS, gpus, load };
            cases.push(Case {
                name: format!("{}, {gpus} GPUs, load {load}, seed {seed}", family.name),
                topology: cluster(gpus, 15),
                jobs: workload.draw(seed * 1_000 + cases.len() as u64),
            });
        }
    }
    cases
}

/// `ff2`, or `ff2` with fields changed.
fn policy(told: &str) -> Result<Policy> {
    let Policy::Bands(bands) = Policy::ff2() else { bail!("ff2 has bands") };
    let mut fields = serde_json::to_value(bands)?;
    for change in told.split(',').filter(|_| told != "ff2") {
        let (field, value) = change.split_once('=').context("expected FIELD=VALUE")?;
        let at = fields.get_mut(field).with_context(|| format!("no field {field:?}"))?;
        *at = serde_json::from_str(value)?;
    }
    Ok(Policy::Bands(serde_json::from_value(fields)?))
}

/// All policies on all cases, by case.
fn run(cases: &[Case], policies: &[(String, Policy)]) -> Result<Vec<Vec<Report>>> {
    let (next, ran) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let total = cases.len() * policies.len();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= total {
                break;
            }
            let (case, policy) = (&cases[index / policies.len()], index % policies.len());
            let setting = Setting::new(policies[policy].1.clone());
            let report = replay(&case.topology, &case.jobs, &setting);
            ran.lock().expect("no thread panics").push((index, report));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut ran = ran.into_inner().expect("no thread panicked");
    ran.sort_by_key(|(index, _)| *index);
    let reports = ran.into_iter().map(|(_, report)| Ok(report?)).collect::<Result<Vec<_>>>()?;
    Ok(reports.chunks(policies.len()).map(<[Report]>::to_vec).collect())
}

fn print_each(cases: &[Case], policies: &[(String, Policy)], reports: &[Vec<Report>]) {
    for (case, reports) in cases.iter().zip(reports) {
        println!("{}", case.name);
        for ((name, _), report) in policies.iter().zip(reports) {
            println!(
                "  mean {:7.1} h  p99 {:6.0} h  occupancy {:.3}  makespan {:6.1} d  preemptions {:5}  \
                 moves {:5}  {name}",
                report.jct_hours.mean,
                report.jct_hours.p99,
                report.occupancy,
                report.makespan_days,
                report.preemptions,
                report.moves,
            );
        }
    }
}

/// Ratios are geometric means over all cases.
fn print_sums(policies: &[(String, Policy)], reports: &[Vec<Report>]) {
    println!(
        "mean and p99 of JCT over those of easy (of p99 the worst, too) and over those of las"
    );
    println!(
        "  mean    p99  worst |  mean    p99 | occupancy  preemptions/job  makespan/easy  policy"
    );
    for (index, (name, _)) in policies.iter().enumerate() {
        let geometric = |of: &dyn Fn(&[Report]) -> f64| {
            (reports.iter().map(|row| of(row).ln()).sum::<f64>() / reports.len() as f64).exp()
        };
        let average = |of: &dyn Fn(&Report) -> f64| {
            reports.iter().map(|row| of(&row[index])).sum::<f64>() / reports.len() as f64
        };
        let mean = |to: usize| geometric(&|row| row[index].jct_hours.mean / row[to].jct_hours.mean);
        let p99 = |row: &[Report], to: usize| row[index].jct_hours.p99 / row[to].jct_hours.p99;
        println!(
            "{:6.3} {:6.3} {:6.3} |{:6.3} {:6.3} | {:9.3} {:16.2} {:14.3}  {name}",
            mean(0),
            geometric(&|row| p99(row, 0)),
            reports.iter().map(|row| p99(row, 0)).fold(0.0, f64::max),
            mean(1),
            geometric(&|row| p99(row, 1)),
            average(&|report| report.occupancy),
            average(&|report| report.preemptions as f64 / report.jobs as f64),
            geometric(&|row| row[index].makespan_days / row[0].makespan_days),
        );
    }
}

fn main() -> Result<()> {
    let (mut seeds, mut each) = (vec![1], false);
    let mut traces = Vec::new();
    let mut policies = vec![("easy".to_owned(), Policy::Easy), ("las".to_owned(), Policy::las())];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--each" => each = true,
            "--seeds" => {
                seeds = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--trace" => {
                let name = value()?;
                let (file, gpus) = name.rsplit_once(':').context("expected FILE:GPUS")?;
                let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
                let topology = cluster(gpus.parse().context("read GPUS")?, 15);
                traces.push(Case { jobs: csv(&text, 1)?, topology, name });
            }
            told => policies.push((told.to_owned(), policy(told)?)),
        }
    }
    let cases =
        if traces.is_empty() { seeds.into_iter().flat_map(cases).collect() } else { traces };
    let reports = run(&cases, &policies)?;
    if each {
        print_each(&cases, &policies, &reports);
    }
    print_sums(&policies, &reports);
    Ok(())
}
