//! How fast the core decides: 1,250 nodes with 10,000 GPUs, 10,000 jobs of all sizes that wait. With `--small`
//! nearly all jobs have one or two GPUs, so that thousands run.

use std::{collections::VecDeque, time::Instant};

use ff2_sched_core::{
    Config, Decision, Event, JobId, JobSpec, Policy, Priority, QuotaKey, Resources, Scheduler,
};
use ff2_sched_replay::cluster;

const WAITING: usize = 10_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Seven in ten take a part of a node, a quarter one node, the others 2 to 64.
fn job(random: &mut Random) -> JobSpec {
    let of = if std::env::args().any(|argument| argument == "--small") { 22 } else { 40 };
    let (tasks, gpus) = match random.below(of) {
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

fn percentiles(name: &str, mut micros: Vec<f64>) {
    micros.sort_by(f64::total_cmp);
    let at = |percent: usize| micros[(micros.len() * percent).div_ceil(100).max(1) - 1];
    println!(
        "{name:<44} p50 {:>9.1} us  p99 {:>9.1} us  max {:>9.1} us  ({})",
        at(50),
        at(99),
        at(100),
        micros.len()
    );
}

fn main() {
    let mut random = Random(1);
    let mut rig = Rig::new();
    let mut micros = 0.0;
    while rig.scheduler.waiting() < WAITING {
        micros += rig.step(1, Event::Submit(Box::new(job(&mut random))));
    }
    println!("{} jobs run, {} wait", rig.running.len(), rig.scheduler.waiting());
    let all = (rig.running.len() + rig.scheduler.waiting()) as f64;
    println!("filled with {:.0} submissions a second", all / micros * 1e6);

    // Each end is followed by placements, each placement by a submission: as many wait as before.
    let (mut exits, mut plans) = (Vec::new(), Vec::new());
    let (mut micros, before) = (0.0, rig.placed);
    while rig.placed - before < 50_000 {
        let due = rig.scheduler.next_due().is_some_and(|due| due <= rig.now + 10);
        let took = rig.exit_first();
        micros += took;
        if due {
            plans.push(took)
        } else {
            exits.push(took)
        }
        micros += rig.acknowledge();
        while rig.scheduler.waiting() < WAITING {
            micros += rig.step(0, Event::Submit(Box::new(job(&mut random))));
        }
    }
    println!(
        "steady: {:.0} placements a second, all of submission, end and plans included",
        (rig.placed - before) as f64 / micros * 1e6
    );
    percentiles("a job's end, with what is placed then", exits);
    percentiles("the same with plans to preempt or move", plans);

    // A round of plans with everything that waits ordered anew.
    let mut replans = Vec::new();
    for _ in 0..100 {
        replans.push(rig.step(3_600_000, Event::Tick));
        rig.acknowledge();
    }
    percentiles("full re-plan, an hour later", replans);

    // A gang of 600 nodes on a cluster that is half free, and one that takes them from others.
    let mut gangs = Vec::new();
    let mut empty = Rig::new();
    for _ in 0..600 {
        let small = JobSpec { tasks: 1, ..job(&mut random) };
        empty.step(1, Event::Submit(Box::new(small)));
    }
    let gang = JobSpec {
        tasks: 600,
        task: Resources { gpus: 8, cpus: 32, memory: 100_000 },
        ..JobSpec::default()
    };
    let mut stuck = 0;
    for _ in 0..1_000 {
        let took = empty.step(1, Event::Submit(Box::new(gang.clone())));
        let run = match empty.decisions.last() {
            Some(Decision::Place { job, attempt, .. }) => Some((*job, *attempt)),
            _ => None,
        };
        let Some((job, attempt)) = run else {
            stuck += 1;
            continue;
        };
        gangs.push(took);
        empty.running.retain(|(other, _)| *other != job);
        empty.step(1, Event::Exited { job, attempt, succeeded: true });
    }
    assert_eq!(stuck, 0, "600 nodes are free");
    percentiles("a gang of 600 nodes, placed", gangs);

    let mut taken = Vec::new();
    for _ in 0..20 {
        let urgent = JobSpec { priority: Priority::Extreme, ..gang.clone() };
        // All that run did so for longer than they must; the same step has all other plans as well.
        taken.push(rig.step(7_200_000, Event::Submit(Box::new(urgent))));
        assert!(!rig.stopping.is_empty(), "others make room");
        rig.acknowledge();
        let at = rig
            .running
            .iter()
            .position(|(job, _)| rig.scheduler.job(*job).is_some_and(|job| job.spec.tasks == 600));
        let (job, attempt) = rig.running.remove(at.expect("it runs")).expect("it is there");
        rig.step(1, Event::Exited { job, attempt, succeeded: true });
    }
    percentiles("a gang of 600 nodes, planned over others", taken);
}
