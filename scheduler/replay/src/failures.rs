//! A year of failing nodes under one large job, as the core sees it.
//!
//! The rates are those that Fire-Flyer 2 counted in a year (arXiv 2408.14158, tables VI to VIII): of 1,250 nodes,
//! 335 failures of GPUs that end a job, 213 of links, about 108 of a CPU's memory.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use ff2_sched_core::{
    Config, Decision, Event, JobId, JobSpec, NodeState, Priority, Resources, Scheduler, Scope,
};
use ff2_topology::{NodeId, Topology};
use serde::{Deserialize, Serialize};

use crate::random::Random;

const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

/// Of a year of 1,250 nodes, with how long such a node is away.
const KINDS: [(u64, u64); 3] = [
    // GPUs: tested and perhaps changed.
    (335, 48 * HOUR_MS),
    // Links that flash: they come back by themselves.
    (213, HOUR_MS / 2),
    // Memory: a module is changed.
    (108, 48 * HOUR_MS),
];

/// What is simulated. Times in ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub seed: u64,
    pub days: u64,
    /// Of the one large job, with eight GPUs each.
    pub nodes: u32,
    pub spares: u32,
    /// How many times the rates of Fire-Flyer 2.
    pub worse: u64,
    pub checkpoint_ms: u64,
    /// From a failure until the scheduler hears of it.
    pub detect_ms: u64,
    /// From the order to end a run until the other nodes are free.
    pub kill_ms: u64,
    /// From the start of a run until it makes progress.
    pub restore_ms: u64,
    /// Checks all that must hold after each step.
    pub checks: bool,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            seed: 1,
            days: 365,
            nodes: 1_200,
            spares: 25,
            worse: 1,
            checkpoint_ms: 300_000,
            // A lease.
            detect_ms: 15_000,
            kill_ms: 10_000,
            // Programs start, connect and load: a checkpoint itself loads in seconds.
            restore_ms: 120_000,
            checks: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Year {
    pub failures: u64,
    /// Of these, of nodes of the large job.
    pub interruptions: u64,
    /// The part of all time in which the job made progress that was not lost again.
    pub effective: f64,
    /// From the moment when all of a run had stopped until the next was placed, ms.
    pub replaced_ms_max: u64,
    /// How often that was at once.
    pub replaced_at_once: u64,
    /// Nodes that were away at the same time.
    pub away_max: usize,
    /// Small jobs that ended beside it.
    pub others_ended: u64,
    pub steps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Stopped { job: JobId, attempt: u32 },
    Done { job: JobId, attempt: u32 },
    Heard { node: NodeId },
    Repaired { node: NodeId },
    Fails,
    Due,
}

struct World<'a> {
    trial: &'a Trial,
    scheduler: Scheduler,
    random: Random,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, What)>>,
    due: Option<u64>,
    large: JobId,
    /// When the large job's run makes progress from.
    since_ms: Option<u64>,
    made_ms: u64,
    stopped_ms: Option<u64>,
    /// Nodes that failed, with when they are back.
    away: BTreeMap<NodeId, u64>,
    nodes: u64,
    year: Year,
}

/// Runs one large job, and small ones on what it leaves, while nodes fail and come back.
pub fn simulate(topology: &Topology, trial: &Trial) -> Year {
    let mut world = World {
        trial,
        scheduler: Scheduler::new(topology, Config::default()),
        random: Random(trial.seed),
        now: 0,
        agenda: BinaryHeap::new(),
        due: None,
        large: JobId(1),
        since_ms: None,
        made_ms: 0,
        stopped_ms: None,
        away: BTreeMap::new(),
        nodes: topology.nodes().len() as u64,
        year: Year {
            failures: 0,
            interruptions: 0,
            effective: 0.0,
            replaced_ms_max: 0,
            replaced_at_once: 0,
            away_max: 0,
            others_ended: 0,
            steps: 0,
        },
    };
    world.run();
    world.year
}

impl World<'_> {
    fn run(&mut self) {
        let end = self.trial.days * 24 * HOUR_MS;
        self.step(Event::Spares { count: self.trial.spares });
        let node = Resources { gpus: 8, cpus: 32, memory: 100_000 };
        self.step(Event::Submit(Box::new(JobSpec {
            name: "large".into(),
            tasks: self.trial.nodes,
            task: node,
            priority: Priority::High,
            preemptible: false,
            ..JobSpec::default()
        })));
        assert!(self.since_ms.is_some(), "the large job fits from the start");
        for _ in 0..40 {
            self.submit_small();
        }
        self.next_failure();
        while let Some(Reverse((at, what))) = self.agenda.pop() {
            if at >= end {
                break;
            }
            if what == What::Due && self.due != Some(at) {
                continue;
            }
            self.now = at;
            self.happen(what);
            self.set_due();
        }
        self.now = end;
        let made = self.made_ms + self.since_ms.map_or(0, |since| end.saturating_sub(since));
        self.year.effective = made as f64 / end as f64;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Due => {
                self.due = None;
                self.step(Event::Tick);
            }
            What::Fails => {
                self.fail();
                self.next_failure();
            }
            What::Heard { node } => {
                let scope = Scope::Node(node);
                self.step(Event::Node { scope, state: NodeState::Down });
            }
            What::Repaired { node } => {
                self.away.remove(&node);
                let scope = Scope::Node(node);
                self.step(Event::Node { scope, state: NodeState::Up });
            }
            What::Stopped { job, attempt } => {
                if job == self.large {
                    self.stopped_ms = Some(self.now);
                }
                self.step(Event::Stopped { job, attempt });
            }
            What::Done { job, attempt } => {
                let is_current = self.scheduler.job(job).is_some_and(|job| job.attempt == attempt);
                if is_current {
                    self.step(Event::Exited { job, attempt, succeeded: true });
                }
            }
        }
    }

    /// A node fails now, and is heard of a little later.
    fn fail(&mut self) {
        let node = NodeId(self.random.below(self.nodes) as u32);
        let all: u64 = KINDS.iter().map(|(count, _)| count).sum();
        let mut drawn = self.random.below(all);
        let kind = KINDS.iter().find(|(count, _)| {
            let is_it = drawn < *count;
            drawn = drawn.saturating_sub(*count);
            is_it
        });
        let away_ms = kind.map_or(0, |(_, away_ms)| *away_ms);
        if self.away.contains_key(&node) {
            return;
        }
        self.year.failures += 1;
        let heard = self.now + self.trial.detect_ms;
        self.away.insert(node, heard + away_ms);
        self.year.away_max = self.year.away_max.max(self.away.len());
        self.agenda.push(Reverse((heard, What::Heard { node })));
        self.agenda.push(Reverse((heard + away_ms, What::Repaired { node })));
        let large = self.scheduler.job(self.large).expect("it never ends");
        if large.placement().is_some_and(|placement| placement.has(node)) {
            self.interrupt();
        }
    }

    /// The large job goes back to its last checkpoint, from the moment of the failure.
    fn interrupt(&mut self) {
        if let Some(since) = self.since_ms.take() {
            self.year.interruptions += 1;
            let made = self.now.saturating_sub(since);
            self.made_ms += made - made % self.trial.checkpoint_ms;
        }
    }

    fn next_failure(&mut self) {
        let all: u64 = KINDS.iter().map(|(count, _)| count).sum();
        // A year's failures of 1,250 nodes, for as many as there are; at any time alike.
        let mean = YEAR_MS * 1_250 / (all * self.trial.worse * self.nodes);
        let after = -(self.random.unit().ln()) * mean as f64;
        self.agenda.push(Reverse((self.now + 1 + after as u64, What::Fails)));
    }

    fn submit_small(&mut self) {
        let gpus = [1, 2, 4, 8][self.random.below(4) as usize];
        self.step(Event::Submit(Box::new(JobSpec {
            task: Resources { gpus, cpus: gpus, memory: 0 },
            priority: Priority::Idle,
            ..JobSpec::default()
        })));
    }

    fn set_due(&mut self) {
        let due = self.scheduler.next_due().map(|due| due.max(self.now + 1));
        if due != self.due {
            self.due = due;
            self.agenda.extend(due.map(|due| Reverse((due, What::Due))));
        }
    }

    fn step(&mut self, event: Event) {
        let mut decisions = Vec::new();
        self.scheduler.step(self.now, event, &mut decisions);
        self.year.steps += 1;
        if self.trial.checks {
            self.scheduler.check();
        }
        for decision in decisions {
            match decision {
                Decision::Place { job, placement, .. } if job == self.large => {
                    let stopped = self.stopped_ms.take();
                    let took = stopped.map_or(0, |stopped| self.now - stopped);
                    self.year.replaced_at_once += u64::from(stopped == Some(self.now));
                    self.year.replaced_ms_max = self.year.replaced_ms_max.max(took);
                    self.since_ms = Some(self.now + self.trial.restore_ms);
                    // It was placed before anybody heard that another node is gone.
                    if placement.nodes().any(|node| self.away.contains_key(&node)) {
                        self.interrupt();
                    }
                }
                Decision::Place { job, attempt, .. } => {
                    let hours = 1 + self.random.below(12);
                    let done = What::Done { job, attempt };
                    self.agenda.push(Reverse((self.now + hours * HOUR_MS, done)));
                }
                Decision::Suspend { job, attempt, .. } | Decision::Kill { job, attempt, .. } => {
                    if job == self.large {
                        self.interrupt();
                    }
                    let at = self.now + self.trial.kill_ms;
                    self.agenda.push(Reverse((at, What::Stopped { job, attempt })));
                }
                Decision::Ended { .. } => {
                    self.year.others_ended += 1;
                    self.submit_small();
                }
                Decision::Accepted { .. } => {}
                Decision::Refused(why) => unreachable!("all of these fit: {why}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster;

    /// What a year of 1,200 nodes is held to (an example runs it), for a tenth of them, ten times as bad.
    #[test]
    fn a_job_goes_on_within_seconds_of_a_failure() {
        let topology = cluster(1_000, 15);
        let trial = Trial { nodes: 110, spares: 2, worse: 10, days: 60, ..Trial::default() };
        let year = simulate(&topology, &trial);
        assert!(year.interruptions > 50 && year.others_ended > 100, "{year:?}");
        assert!(year.effective >= 0.97, "{year:?}");
        assert!(year.replaced_at_once * 10 >= year.interruptions * 9, "{year:?}");
        // Without a spare others are told to stop, and do.
        assert!(year.replaced_ms_max <= trial.kill_ms, "{year:?}");
    }

    #[test]
    fn without_anything_to_take_instead_it_waits() {
        let topology = cluster(1_000, 15);
        let trial = Trial { nodes: 125, spares: 0, worse: 10, days: 60, ..Trial::default() };
        let year = simulate(&topology, &trial);
        assert!(year.effective < 0.9, "{year:?}");
        assert!(year.replaced_ms_max > HOUR_MS, "{year:?}");
    }
}
