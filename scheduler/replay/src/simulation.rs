//! The loop around the core: facts in the order of time, decisions carried out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use ff2_sched_core::{
    Cause, Config, Decision, Event, JobId, JobSpec, Outcome, Placement, Policy, Resources,
    Scheduler,
};
use ff2_topology::{FatTree, Topology};

use crate::{
    allreduce_gb_per_s,
    report::{Distribution, Moment, Report},
    trace::TraceJob,
};

const HOUR_MS: f64 = 3_600_000.0;
const SAMPLE_MS: u64 = 3_600_000;

/// What a replay assumes.
#[derive(Clone, Debug)]
pub struct Setting {
    pub config: Config,
    /// From the order to suspend until nothing is left on the nodes: no progress is made.
    pub save_ms: u64,
    /// At the start of each run but the first: no progress is made either.
    pub restore_ms: u64,
    /// Whether jobs tell their run times as limits. Bands never look at them.
    pub tells_limits: bool,
    /// Checks all that must hold after each step: slow.
    pub checks: bool,
}

impl Setting {
    /// 65 s for each preemption, as the baselines of the anchor have it.
    pub fn new(policy: Policy) -> Self {
        Self {
            tells_limits: policy == Policy::Easy,
            config: Config { policy, ..Config::default() },
            save_ms: 5_000,
            restore_ms: 60_000,
            checks: false,
        }
    }
}

/// Nothing happens any more, and jobs are left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    #[error("{0} jobs wait, and nothing is to come: {1}")]
    Waiting(usize, String),
    /// Jobs are counted from 1, in the order of their submission.
    #[error("job {0} of the trace was refused: {1}")]
    Refused(usize, String),
}

/// In this order at one moment: what ends makes room for what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Done { job: JobId, attempt: u32 },
    Stopped { job: JobId, attempt: u32 },
    Submitted { index: usize },
    Due,
}

#[derive(Clone, Debug)]
struct Run {
    index: usize,
    left_ms: u64,
    attempt: u32,
    /// When it makes progress from; none while it has no nodes.
    since_ms: Option<u64>,
    placed_ms: u64,
    held_ms: u64,
    gpus: u64,
    nodes: usize,
}

struct Simulation<'a> {
    topology: &'a Topology,
    setting: &'a Setting,
    trace: &'a [TraceJob],
    scheduler: Scheduler,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, What)>>,
    due: Option<u64>,
    runs: BTreeMap<JobId, Run>,
    used: u64,
    tally: Tally,
}

/// What is summed up along the way.
#[derive(Default)]
struct Tally {
    jct_hours: Vec<f64>,
    queueing_hours: Vec<f64>,
    used_ms: u128,
    waited_used_ms: u128,
    waited_ms: u128,
    preemptions: u64,
    moves: u64,
    lost_ms: u128,
    leaves: u64,
    leaves_least: u64,
    gangs: u64,
    allreduce: f64,
    steps: u64,
    last_end: u64,
    moments: Vec<Moment>,
}

/// Runs all jobs of a trace to their end. A job of more GPUs than a node has takes whole nodes.
///
/// # Errors
/// If a job of the trace can never run, or nothing happens any more while jobs wait.
pub fn replay(topology: &Topology, trace: &[TraceJob], setting: &Setting) -> Result<Report, Stuck> {
    let mut simulation = Simulation {
        topology,
        setting,
        trace,
        scheduler: Scheduler::new(topology, setting.config.clone()),
        now: 0,
        agenda: BinaryHeap::new(),
        due: None,
        runs: BTreeMap::new(),
        used: 0,
        tally: Tally::default(),
    };
    for (index, job) in trace.iter().enumerate() {
        simulation.agenda.push(Reverse((job.submit_ms, What::Submitted { index })));
    }
    simulation.run()?;
    Ok(simulation.report())
}

/// A network for so many GPUs: nodes with eight, so many at each leaf (15 on Fire-Flyer 2), 640 at most in each zone.
///
/// # Panics
/// If there are none, or more than the numbers of nodes go.
pub fn cluster(gpus: u32, per_leaf: u32) -> Topology {
    let nodes = gpus.div_ceil(8);
    let zones = nodes.div_ceil(640).max(1);
    let compute = nodes.div_ceil(zones);
    let network = FatTree {
        zones,
        leaves: compute.div_ceil(per_leaf),
        ports: per_leaf,
        compute,
        gpus: 8,
        storage: 0,
        gbit_per_s: 200,
    };
    let description = network.describe().expect("there are as many ports as nodes");
    Topology::new(&description).expect("a fat tree is a network")
}

impl Simulation<'_> {
    fn run(&mut self) -> Result<(), Stuck> {
        let mut decisions = Vec::new();
        while let Some(Reverse((at, what))) = self.agenda.pop() {
            if what == What::Due && self.due != Some(at) {
                continue;
            }
            self.pass_time(at);
            let event = match what {
                What::Due => {
                    self.due = None;
                    Event::Tick
                }
                What::Submitted { index } => Event::Submit(Box::new(self.spec(index))),
                What::Done { job, attempt } => {
                    let run = self.runs.get(&job);
                    // It was suspended before.
                    if run.is_none_or(|run| run.attempt != attempt || run.since_ms.is_none()) {
                        continue;
                    }
                    self.leave(job);
                    Event::Exited { job, attempt, succeeded: true }
                }
                What::Stopped { job, attempt } => {
                    self.leave(job);
                    Event::Stopped { job, attempt }
                }
            };
            decisions.clear();
            self.scheduler.step(self.now, event, &mut decisions);
            self.tally.steps += 1;
            if self.setting.checks {
                self.scheduler.check();
            }
            for decision in std::mem::take(&mut decisions) {
                self.carry_out(decision, what)?;
            }
            let due = self.scheduler.next_due().map(|due| due.max(self.now + 1));
            // Without anything to come a tick changes nothing for those that wait.
            if due != self.due && !(self.agenda.is_empty() && self.used == 0 && self.is_idle()) {
                self.due = due;
                self.agenda.extend(due.map(|due| Reverse((due, What::Due))));
            }
        }
        match self.runs.len() {
            0 => Ok(()),
            left => {
                let first = self.runs.keys().next().map(|id| self.scheduler.why(*id));
                Err(Stuck::Waiting(left, format!("{first:?}")))
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    fn spec(&self, index: usize) -> JobSpec {
        let job = self.trace[index];
        let node = self.topology.nodes().map(|(_, node)| node.gpus()).max().unwrap_or(1);
        let (tasks, gpus) =
            if job.gpus <= node { (1, job.gpus) } else { (job.gpus.div_ceil(node), node) };
        JobSpec {
            tasks,
            task: Resources { gpus, cpus: 0, memory: 0 },
            // A job that ends at its limit has kept it.
            limit_ms: self.setting.tells_limits.then_some(job.duration_ms + 1),
            ..JobSpec::default()
        }
    }

    fn carry_out(&mut self, decision: Decision, what: What) -> Result<(), Stuck> {
        match decision {
            Decision::Accepted { first, .. } => {
                let What::Submitted { index } = what else { unreachable!("one at a time") };
                let left_ms = self.trace[index].duration_ms;
                let run = Run {
                    index,
                    left_ms,
                    attempt: 0,
                    since_ms: None,
                    placed_ms: 0,
                    held_ms: 0,
                    gpus: 0,
                    nodes: 0,
                };
                self.runs.insert(first, run);
            }
            Decision::Refused(why) => {
                let What::Submitted { index } = what else { unreachable!("one at a time") };
                return Err(Stuck::Refused(index + 1, why.to_string()));
            }
            Decision::Place { job, attempt, resumes, placement, .. } => {
                self.enter(job, attempt, resumes, &placement);
            }
            Decision::Suspend { job, attempt, cause, .. }
            | Decision::Kill { job, attempt, cause } => {
                self.suspend(job, attempt, cause);
            }
            Decision::Ended { job, outcome, .. } => {
                assert_eq!(outcome, Outcome::Succeeded, "a trace has no failures");
                let run = self.runs.remove(&job).expect("it was accepted");
                let took = self.now - self.trace[run.index].submit_ms;
                self.tally.jct_hours.push(took as f64 / HOUR_MS);
                self.tally.queueing_hours.push((took - run.held_ms) as f64 / HOUR_MS);
                self.tally.last_end = self.now;
            }
        }
        Ok(())
    }

    fn enter(&mut self, job: JobId, attempt: u32, resumes: bool, placement: &Placement) {
        let gpus = self.scheduler.job(job).expect("it was just placed").gpus();
        let run = self.runs.get_mut(&job).expect("it was accepted");
        let since = self.now + if resumes { self.setting.restore_ms } else { 0 };
        (run.attempt, run.since_ms, run.placed_ms) = (attempt, Some(since), self.now);
        (run.gpus, run.nodes) = (gpus, placement.slots.len());
        self.used += gpus;
        if resumes {
            self.tally.lost_ms += u128::from(gpus * self.setting.restore_ms);
        }
        self.agenda.push(Reverse((since + run.left_ms, What::Done { job, attempt })));
        if let Some(rate) = allreduce_gb_per_s(self.topology, placement) {
            self.tally.gangs += 1;
            self.tally.allreduce += rate;
            self.tally.leaves += self.scheduler.leaves_of(placement) as u64;
            let largest = self.topology.leaves().map(|(leaf, _)| {
                let at = self.topology.at_leaf(leaf);
                at.filter(|node| self.topology.node(*node).gpus() > 0).count()
            });
            let largest = largest.max().unwrap_or(1).max(1);
            self.tally.leaves_least += placement.slots.len().div_ceil(largest) as u64;
        }
    }

    fn suspend(&mut self, job: JobId, attempt: u32, cause: Cause) {
        match cause {
            Cause::Preempted { .. } => self.tally.preemptions += 1,
            Cause::Moved { .. } => self.tally.moves += 1,
            Cause::Drained { .. }
            | Cause::NodeFailed { .. }
            | Cause::Cancelled
            | Cause::Asked
            | Cause::Overdue
            | Cause::GracePassed => {}
        }
        let run = self.runs.get_mut(&job).expect("it runs");
        let since = run.since_ms.take().expect("it runs");
        let made = self.now.saturating_sub(since);
        run.left_ms -= made;
        let lost = run.gpus * self.setting.save_ms;
        self.tally.lost_ms += u128::from(lost);
        self.agenda
            .push(Reverse((self.now + self.setting.save_ms, What::Stopped { job, attempt })));
    }

    /// Nodes are given back.
    fn leave(&mut self, job: JobId) {
        let run = self.runs.get_mut(&job).expect("it has nodes");
        run.since_ms = None;
        run.held_ms += self.now - run.placed_ms;
        self.used -= run.gpus;
    }

    fn pass_time(&mut self, to: u64) {
        let passed = u128::from(to - self.now);
        let with_nodes = self.runs.values().len();
        let waiting = self.scheduler.jobs().filter(|job| job.placement().is_none()).count() as u64;
        debug_assert!(waiting as usize <= with_nodes);
        self.tally.used_ms += passed * u128::from(self.used);
        if waiting > 0 {
            self.tally.waited_ms += passed;
            self.tally.waited_used_ms += passed * u128::from(self.used);
        }
        let last = self.tally.moments.last().map_or(0, |moment| moment.at_ms);
        if self.tally.moments.is_empty() || to >= last + SAMPLE_MS {
            let moment = Moment { at_ms: to, used_gpus: self.used, waiting_jobs: waiting };
            self.tally.moments.push(moment);
        }
        self.now = to;
    }

    fn report(self) -> Report {
        let gpus: u64 = self.topology.nodes().map(|(_, node)| u64::from(node.gpus())).sum();
        let tally = self.tally;
        let start = self.trace.first().map_or(0, |job| job.submit_ms);
        let makespan = tally.last_end - start;
        let part = |used: u128, of_ms: u128| {
            if of_ms == 0 { 1.0 } else { used as f64 / (of_ms as f64 * gpus as f64) }
        };
        let per_gang = |sum: f64| if tally.gangs == 0 { 0.0 } else { sum / tally.gangs as f64 };
        Report {
            jobs: tally.jct_hours.len(),
            gpus,
            jct_hours: Distribution::of(tally.jct_hours),
            queueing_hours: Distribution::of(tally.queueing_hours),
            occupancy: part(tally.waited_used_ms, tally.waited_ms),
            occupancy_overall: part(tally.used_ms, u128::from(makespan)),
            makespan_days: makespan as f64 / HOUR_MS / 24.0,
            preemptions: tally.preemptions,
            moves: tally.moves,
            leaves_spanned: per_gang(tally.leaves as f64),
            leaves_least: per_gang(tally.leaves_least as f64),
            allreduce_gb_per_s: per_gang(tally.allreduce),
            gpu_hours: tally.used_ms as f64 / HOUR_MS,
            gpu_hours_lost: tally.lost_ms as f64 / HOUR_MS,
            steps: tally.steps,
            moments: tally.moments,
        }
    }
}
