//! How fast the core decides: 1,250 nodes with 10,000 GPUs, 10,000 jobs of all sizes that wait.

use std::{collections::VecDeque, time::Instant};

use anyhow::{Result, ensure};
use ff2_sched_core::{
    Config, Decision, Event, JobId, JobSpec, Policy, Priority, QuotaKey, Resources, Scheduler,
};
use ff2_sched_replay::cluster;

use crate::{bench::Figure, stop::Stop};

const WAITING: usize = 10_000;
const PLACED: u64 = 50_000;

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Seven in ten take a part of a node, a quarter one node, the others 2 to 64. If small nearly all have one GPU or
/// two, so that thousands run.
pub(super) fn job(random: &mut Random, small: bool) -> JobSpec {
    let (tasks, gpus) = match random.below(if small { 22 } else { 40 }) {
        0..16 => (1, 1),
        16..24 => (1, 2),
        24..28 => (1, 4),
        28..38 => (1, 8),
        _ => (1 << (1 + random.below(6)), 8),
    };
    let cpus = gpus * [4, 6, 8][random.below(3) as usize];
    JobSpec {
        user: format!("user{}", random.below(200)),
        group: format!("group{}", random.below(20)),
        priority: [Priority::Normal, Priority::Normal, Priority::Normal, Priority::Idle]
            [random.below(4) as usize],
        tasks: tasks as u32,
        task: Resources { gpus, cpus, memory: gpus * 60_000 },
        ..JobSpec::default()
    }
}

struct Rig {
    scheduler: Scheduler,
    now: u64,
    decisions: Vec<Decision>,
    running: VecDeque<(JobId, u32)>,
    stopping: Vec<(JobId, u32)>,
    placed: u64,
}

impl Rig {
    fn new() -> Self {
        let topology = cluster(10_000, 15);
        let mut scheduler =
            Scheduler::new(&topology, Config { policy: Policy::ff2(), ..Config::default() });
        let mut decisions = Vec::new();
        for group in 0..20 {
            let key = QuotaKey { group: Some(format!("group{group}")), ..QuotaKey::default() };
            scheduler.step(0, Event::Quota { key, limit: Some(4_000) }, &mut decisions);
        }
        Self {
            scheduler,
            now: 0,
            decisions,
            running: VecDeque::new(),
            stopping: Vec::new(),
            placed: 0,
        }
    }

    /// Microseconds that the core took.
    fn step(&mut self, after_ms: u64, event: Event) -> f64 {
        self.now += after_ms;
        self.decisions.clear();
        let started = Instant::now();
        self.scheduler.step(self.now, event, &mut self.decisions);
        let took = started.elapsed().as_secs_f64() * 1e6;
        for decision in &self.decisions {
            match decision {
                Decision::Place { job, attempt, .. } => {
                    self.placed += 1;
                    self.running.push_back((*job, *attempt));
                }
                Decision::Suspend { job, attempt, .. } | Decision::Kill { job, attempt, .. } => {
                    self.running.retain(|(other, _)| other != job);
                    self.stopping.push((*job, *attempt));
                }
                _ => {}
            }
        }
        took
    }

    fn exit_first(&mut self) -> f64 {
        let (job, attempt) = self.running.pop_front().expect("something runs");
        // A hundred jobs end in a second.
        self.step(10, Event::Exited { job, attempt, succeeded: true })
    }

    fn acknowledge(&mut self) -> f64 {
        let mut took = 0.0;
        while let Some((job, attempt)) = self.stopping.pop() {
            took += self.step(1, Event::Stopped { job, attempt });
        }
        took
    }
}

/// The median and the 99th percentile of times in microseconds.
fn percentiles(work: &'static str, name: &str, mut micros: Vec<f64>) -> [Figure; 2] {
    micros.sort_by(f64::total_cmp);
    let at = |percent: usize| micros[(micros.len() * percent).div_ceil(100).max(1) - 1];
    [50, 99].map(|percent| Figure::new(work, format!("{name}, p{percent}"), at(percent), "us"))
}

pub(super) fn run(small: bool, stop: &Stop) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut random = Random(1);
    let mut rig = Rig::new();
    while rig.scheduler.waiting() < WAITING {
        rig.step(1, Event::Submit(Box::new(job(&mut random, small))));
    }
    steady(&mut rig, &mut random, (small, stop), &mut figures)?;
    // A round of plans with everything that waits ordered anew.
    let mut replans = Vec::new();
    for _ in 0..100 {
        stop.check()?;
        replans.push(rig.step(3_600_000, Event::Tick));
        rig.acknowledge();
    }
    figures.extend(percentiles("replan", "a full re-plan, an hour later", replans));
    figures.extend(percentiles("gang", "a gang of 600 nodes, placed", placed(&mut random)?));
    if !small {
        let taken = taken(&mut rig, stop)?;
        let name = "a gang of 600 nodes that others make room for";
        figures.extend(percentiles("gang-taken", name, taken));
    }
    Ok(figures)
}

/// Each end is followed by placements, each placement by a submission: as many wait as before.
fn steady(
    rig: &mut Rig,
    random: &mut Random,
    (small, stop): (bool, &Stop),
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let (mut exits, mut micros, before) = (Vec::new(), 0.0, rig.placed);
    while rig.placed - before < PLACED {
        stop.check()?;
        let due = rig.scheduler.next_due().is_some_and(|due| due <= rig.now + 10);
        let took = rig.exit_first();
        micros += took;
        if !due {
            exits.push(took);
        }
        micros += rig.acknowledge();
        while rig.scheduler.waiting() < WAITING {
            micros += rig.step(0, Event::Submit(Box::new(job(random, small))));
        }
    }
    let rate = (rig.placed - before) as f64 / micros * 1e6;
    let running = rig.running.len();
    let name = format!("placements, {WAITING} jobs wait and {running} run");
    figures.push(Figure::new("placements", name, rate, "1/s"));
    figures.extend(percentiles("exit", "a job's end, and what is placed then", exits));
    Ok(())
}

fn gang() -> JobSpec {
    let task = Resources { gpus: 8, cpus: 32, memory: 100_000 };
    JobSpec { tasks: 600, task, ..JobSpec::default() }
}

/// On a cluster that is half free.
fn placed(random: &mut Random) -> Result<Vec<f64>> {
    let (mut rig, mut times) = (Rig::new(), Vec::new());
    for _ in 0..600 {
        let small = JobSpec { tasks: 1, ..job(random, false) };
        rig.step(1, Event::Submit(Box::new(small)));
    }
    for _ in 0..1_000 {
        times.push(rig.step(1, Event::Submit(Box::new(gang()))));
        let Some(Decision::Place { job, attempt, .. }) = rig.decisions.last().cloned() else {
            anyhow::bail!("a gang of 600 nodes was not placed on 650 that are free");
        };
        rig.running.retain(|(other, _)| *other != job);
        rig.step(1, Event::Exited { job, attempt, succeeded: true });
    }
    Ok(times)
}

/// All that run did so for longer than they must, and a round of plans for all that wait is due as well.
fn taken(rig: &mut Rig, stop: &Stop) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..20 {
        stop.check()?;
        rig.step(7_200_000, Event::Tick);
        rig.acknowledge();
        let urgent = JobSpec { priority: Priority::Extreme, ..gang() };
        times.push(rig.step(3_000_000, Event::Submit(Box::new(urgent))));
        ensure!(!rig.stopping.is_empty(), "nobody makes room for a gang");
        rig.acknowledge();
        let is_gang =
            |job: &JobId| rig.scheduler.job(*job).is_some_and(|job| job.spec.tasks == 600);
        let at = rig.running.iter().position(|(job, _)| is_gang(job));
        let Some((job, attempt)) = at.and_then(|at| rig.running.remove(at)) else {
            anyhow::bail!("a gang does not run though others made room");
        };
        rig.step(1, Event::Exited { job, attempt, succeeded: true });
    }
    Ok(times)
}
