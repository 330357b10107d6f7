//! Many seeds on all processors, and what they came to.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use ff2_sim::{
    Seen, Setting, Table, Verdict,
    marks::{self, Mark, Reached},
    run_as, run_rpc,
};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// Which of the two simulations, and in which setting.
#[derive(Clone, Copy)]
pub(crate) enum Simulation {
    Machines(Setting),
    Rpc,
}

impl Simulation {
    pub(crate) fn run(self, seed: u64) -> Verdict {
        match self {
            Self::Machines(setting) => run_as(seed, setting),
            Self::Rpc => run_rpc(seed),
        }
    }

    fn replay(self, seed: u64) -> String {
        let mut flags = String::new();
        match self {
            Self::Machines(Setting { mutation, table }) => {
                if table != Table::default() {
                    flags += &flag("table", &table);
                }
                flags += &mutation.map(|mutation| flag("mutation", &mutation)).unwrap_or_default();
            }
            Self::Rpc => flags += "--rpc ",
        }
        format!("cargo xtask sim {flags}--seed {seed}")
    }

    /// Shows the verdict, and how to see a failure again.
    pub(crate) fn report(self, verdict: &Verdict) {
        println!("{verdict}");
        if !verdict.problems.is_empty() {
            verdict.problems.iter().for_each(|problem| println!("  {problem}"));
            println!("  replay: {}", self.replay(verdict.seed));
        }
    }
}

/// Which seeds are run.
pub(crate) enum Seeds {
    Count { from: u64, count: u64 },
    Until { from: u64, limit: Duration, failures: PathBuf },
}

pub(crate) struct Campaign {
    simulation: Simulation,
    seeds: Seeds,
    next: AtomicU64,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    failed: Vec<u64>,
    simulated: Duration,
    marks: Reached,
    seen: BTreeSet<Seen>,
}

impl Campaign {
    pub(crate) fn new(simulation: Simulation, seeds: Seeds) -> Self {
        let (Seeds::Count { from, .. } | Seeds::Until { from, .. }) = &seeds;
        let next = AtomicU64::new(*from);
        Self { simulation, seeds, next, sum: Mutex::default() }
    }

    /// Whether every seed held. Fails if a failure cannot be written down.
    pub(crate) fn run(self) -> Result<bool> {
        let began = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let work = || self.work(began);
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |worker: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                worker.join().expect("panics of a run are its problems")
            };
            workers.into_iter().try_for_each(join)
        })?;
        self.summary();
        Ok(self.sum.lock().failed.is_empty())
    }

    fn work(&self, began: Instant) -> Result<()> {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let is_over = match &self.seeds {
                Seeds::Count { from, count } => seed >= from + count,
                Seeds::Until { limit, .. } => began.elapsed() >= *limit,
            };
            if is_over {
                return Ok(());
            }
            let verdict = self.simulation.run(seed);
            self.note(&verdict)?;
        }
    }

    fn note(&self, verdict: &Verdict) -> Result<()> {
        let failed = !verdict.problems.is_empty();
        match &self.seeds {
            Seeds::Count { .. } => self.simulation.report(verdict),
            Seeds::Until { failures, .. } if failed => {
                self.simulation.report(verdict);
                write_down(failures, &self.simulation.replay(verdict.seed), verdict)?;
            }
            Seeds::Until { .. } => {}
        }
        let mut sum = self.sum.lock();
        sum.seeds += 1;
        sum.simulated += verdict.simulated;
        sum.marks.add(&verdict.marks);
        sum.seen.extend(&verdict.seen);
        if failed {
            sum.failed.push(verdict.seed);
        }
        Ok(())
    }

    fn summary(&self) {
        let sum = self.sum.lock();
        if matches!(self.simulation, Simulation::Machines(_)) {
            show_marks(&sum.marks);
            println!("duties done: {:?}", sum.seen);
        }
        let hours = sum.simulated.as_secs_f64() / 3600.0;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_minutes = (cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9) / 60.0;
        println!(
            "{hours:.1} cluster-hours, {:.1} cluster-hours per CPU minute",
            hours / cpu_minutes.max(f64::MIN_POSITIVE)
        );
        for seed in &sum.failed {
            println!("failed: {}", self.simulation.replay(*seed));
        }
        println!("{} seeds, {} failed", sum.seeds, sum.failed.len());
    }
}

fn flag(name: &str, value: &impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no value is hidden");
    format!("--{name} {} ", value.get_name())
}

fn write_down(path: &Path, replay: &str, verdict: &Verdict) -> Result<()> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    let mut file = open.with_context(|| format!("open {}", path.display()))?;
    let first = verdict.problems.first().and_then(|problem| problem.lines().next());
    writeln!(file, "{replay}  # {}", first.unwrap_or_default())
        .with_context(|| format!("write {}", path.display()))
}

/// How often each rare path was taken.
pub(crate) fn show_marks(reached: &Reached) {
    if !marks::COUNTED {
        println!("marks are counted in debug builds only");
        return;
    }
    println!("rare paths taken:");
    for &mark in Mark::ALL {
        println!("{:10}  {mark:?}", reached.count(mark));
    }
}
