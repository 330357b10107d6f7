//! The loop around the core, with jobs that save.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use ff2_sched_core::{CheckpointSlot, Config, Decision, Event, JobId, Priority, Scheduler};
use ff2_topology::Topology;

use crate::{
    checkpoints::{
        HOUR_MS, Outcome, Saving, Trial,
        least::{self, Due},
        programs::{self, LARGE_EVERY_MS, LARGE_GPUS, LARGE_RUNS_MS, Program},
        writes::Writes,
    },
    random::Random,
};

/// From the start of a run until its first step.
const RESTORE_MS: u64 = 60_000;
/// Without slots a job that is to make room has saved within so long, or as fast as it can.
const STOP_MS: u64 = 15_000;
/// From its last byte until nothing is left.
const END_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Stopped { job: JobId, attempt: u32 },
    Done { job: JobId, attempt: u32 },
    Written { job: JobId, attempt: u32 },
    Save { job: JobId, attempt: u32, plan: u32 },
    Large,
    Due,
}

#[derive(Clone, Debug)]
struct Run {
    attempt: u32,
    placed_ms: u64,
    /// When its first step begins.
    since_ms: u64,
    slot: Option<CheckpointSlot>,
    /// Counts plans: a later one takes the place of those before.
    plan: u32,
    saving: Option<Save>,
    /// When the last save that is complete was begun.
    safe_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Save {
    began_ms: u64,
    bytes_per_s: u64,
}

pub(super) struct World<'a> {
    trial: &'a Trial,
    scheduler: Scheduler,
    random: Random,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, What)>>,
    due: Option<u64>,
    programs: BTreeMap<JobId, Program>,
    runs: BTreeMap<JobId, Run>,
    periodic: Writes,
    suspensions: Writes,
    /// What those that run write in the mean.
    expected: Writes,
    saved_ms: u64,
    /// What must be written, whatever slots there are: once in an interval, and for the last time.
    must: Vec<Due>,
    must_last: Vec<Due>,
    outcome: Outcome,
}

impl<'a> World<'a> {
    pub(super) fn new(topology: &Topology, trial: &'a Trial) -> Self {
        let counted = Writes::of(trial.warm_up_ms / 1_000..trial.hours * HOUR_MS / 1_000);
        Self {
            trial,
            scheduler: Scheduler::new(topology, Config::default()),
            random: Random(trial.seed),
            now: 0,
            agenda: BinaryHeap::new(),
            due: None,
            programs: BTreeMap::new(),
            runs: BTreeMap::new(),
            periodic: counted.clone(),
            suspensions: counted.clone(),
            expected: counted,
            saved_ms: 0,
            must: Vec::new(),
            must_last: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let end = self.trial.hours * HOUR_MS;
        self.happen(What::Large);
        // Enough wait that whatever is free is taken at once.
        while self.scheduler.waiting() < 200 {
            self.submit_some();
        }
        while let Some(Reverse((at, what))) = self.agenda.pop() {
            if at >= end {
                break;
            }
            if what == What::Due && self.due != Some(at) {
                continue;
            }
            self.now = at;
            self.happen(what);
            let due = self.scheduler.next_due().map(|due| due.max(self.now + 1));
            if due != self.due {
                self.due = due;
                self.agenda.extend(due.map(|due| Reverse((due, What::Due))));
            }
        }
        self.now = end;
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            self.leave(id);
        }
        let all = [&self.must[..], &self.must_last].concat();
        let (least, least_with_suspensions) = (self.least(&self.must), self.least(&all));
        let outcome = &mut self.outcome;
        outcome.save_s = self.saved_ms as f64 / 1e3 / outcome.saves.max(1) as f64;
        outcome.periodic = self.periodic.evenness();
        outcome.peak_of_running = self.periodic.peak_over(&self.expected);
        outcome.with_suspensions = self.periodic.with(&self.suspensions).evenness();
        outcome.least = least / outcome.periodic.mean_bytes_per_s;
        outcome.least_with_suspensions =
            least_with_suspensions / outcome.with_suspensions.mean_bytes_per_s;
        self.outcome
    }

    fn least(&self, due: &[Due]) -> f64 {
        let mut lengths = self.trial.intervals_ms.clone();
        lengths.push(self.trial.grace_ms);
        least::peak(due, &lengths, self.trial.warm_up_ms, self.trial.hours * HOUR_MS)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Due => {
                self.due = None;
                self.step(Event::Tick);
            }
            What::Large => {
                self.submit(LARGE_GPUS, Priority::High, LARGE_RUNS_MS);
                self.agenda.push(Reverse((self.now + LARGE_EVERY_MS, What::Large)));
            }
            What::Stopped { job, attempt } => self.step(Event::Stopped { job, attempt }),
            What::Done { job, attempt } => {
                if self.is_current(job, attempt) {
                    self.leave(job);
                    self.step(Event::Exited { job, attempt, succeeded: true });
                }
            }
            What::Save { job, attempt, plan } => {
                if self.is_current(job, attempt) && self.runs[&job].plan == plan {
                    self.save(job);
                }
            }
            What::Written { job, attempt } => {
                if self.is_current(job, attempt) {
                    self.written(job);
                }
            }
        }
    }

    fn is_current(&self, job: JobId, attempt: u32) -> bool {
        self.runs.get(&job).is_some_and(|run| run.attempt == attempt)
    }

    fn submit_some(&mut self) {
        let (gpus, runs_ms) = programs::drawn(&mut self.random);
        self.submit(gpus, Priority::Normal, runs_ms);
    }

    fn submit(&mut self, gpus: u32, priority: Priority, runs_ms: u64) {
        let program = Program::drawn(&mut self.random, self.trial, gpus, runs_ms);
        let spec = program.spec(self.trial, gpus, priority);
        // The core counts in the order of submission, too.
        self.programs.insert(JobId(self.programs.len() as u64 + 1), program);
        self.step(Event::Submit(Box::new(spec)));
    }

    fn step(&mut self, event: Event) {
        let mut decisions = Vec::new();
        self.scheduler.step(self.now, event, &mut decisions);
        if self.trial.checks {
            self.scheduler.check();
        }
        let mut ended = 0;
        for decision in decisions {
            match decision {
                Decision::Place { job, attempt, .. } => self.place(job, attempt),
                Decision::Suspend { job, attempt, .. } => self.suspend(job, attempt),
                Decision::Kill { .. } => self.outcome.killed += 1,
                Decision::Ended { .. } => ended += 1,
                Decision::Accepted { .. } => {}
                Decision::Refused(why) => unreachable!("all of these fit: {why}"),
            }
        }
        self.look_at_slots();
        self.outcome.jobs_ended += ended;
        (0..ended).for_each(|_| self.submit_some());
    }

    fn place(&mut self, job: JobId, attempt: u32) {
        let since_ms = self.now + RESTORE_MS;
        let run = Run {
            attempt,
            placed_ms: self.now,
            since_ms,
            slot: None,
            plan: 0,
            saving: None,
            safe_ms: since_ms,
        };
        self.runs.insert(job, run);
        let done = self.now + RESTORE_MS + self.programs[&job].left_ms;
        self.agenda.push(Reverse((done, What::Done { job, attempt })));
        let gpus = self.scheduler.job(job).map_or(0, |job| job.gpus());
        self.outcome.gpus_max = self.outcome.gpus_max.max(gpus);
        self.outcome.jobs_max = self.outcome.jobs_max.max(self.runs.len());
        if self.trial.saving != Saving::Slots {
            self.plan(job);
        }
    }

    /// It saves for the last time after the step it is in: as fast as it may, or without a slot as fast as it can.
    fn suspend(&mut self, job: JobId, attempt: u32) {
        self.outcome.preemptions += 1;
        let run = self.leave(job);
        let program = self.programs.get_mut(&job).expect("it was submitted");
        let bytes = program.bytes;
        let mut gone = self.now + STOP_MS;
        if self.now > run.since_ms {
            program.left_ms = program.left_ms.saturating_sub(self.now - run.since_ms).max(1);
            let steps = (self.now - run.since_ms).div_ceil(program.step_ms);
            let (begins, rate) = match self.scheduler.slot(job) {
                Some(slot) => (run.since_ms + steps * program.step_ms, slot.bytes_per_s),
                None => (self.now, program.bytes_per_s_max.max(bytes * 1_000 / STOP_MS)),
            };
            let written = begins + (bytes * 1_000).div_ceil(rate);
            self.suspensions.add(begins, written, rate);
            gone = written + END_MS;
            let (from_ms, to_ms) = (self.now, self.now + self.trial.grace_ms);
            self.must_last.push(Due { from_ms, to_ms, every_ms: self.trial.grace_ms, bytes });
        }
        let stop_s = (gone - self.now) as f64 / 1e3;
        self.outcome.stop_s_max = self.outcome.stop_s_max.max(stop_s);
        self.agenda.push(Reverse((gone, What::Stopped { job, attempt })));
    }

    /// Jobs look at their slots in each step, so they know when these change.
    fn look_at_slots(&mut self) {
        let mut changed = Vec::new();
        for (id, run) in &mut self.runs {
            let slot = self.scheduler.slot(*id);
            if slot != run.slot {
                self.outcome.slots += 1;
                self.outcome.slots_changed += u64::from(run.slot.is_some());
                run.slot = slot;
                changed.push(*id);
            }
        }
        changed.into_iter().for_each(|id| self.plan(id));
    }

    /// When a job saves next: at the end of the first step after that is due.
    fn plan(&mut self, job: JobId) {
        let program = &self.programs[&job];
        let run = self.runs.get_mut(&job).expect("it runs");
        let (every, phase) = match (self.trial.saving, run.slot) {
            (Saving::Slots, Some(slot)) => (slot.every_ms, slot.phase_ms),
            (Saving::Slots, None) => return,
            (Saving::AtOnce | Saving::Slowly, _) => (program.interval_ms, run.placed_ms),
        };
        let after = (self.now + 1).max(run.since_ms);
        let due = after + (every - (after + every - phase % every) % every) % every;
        let steps = (due - run.since_ms).div_ceil(program.step_ms);
        run.plan += 1;
        let save = What::Save { job, attempt: run.attempt, plan: run.plan };
        self.agenda.push(Reverse((run.since_ms + steps * program.step_ms, save)));
    }

    fn save(&mut self, job: JobId) {
        let program = &self.programs[&job];
        let run = self.runs.get_mut(&job).expect("it runs");
        let bytes_per_s = match (self.trial.saving, run.slot) {
            (Saving::Slots, Some(slot)) => slot.bytes_per_s,
            (Saving::Slots, None) => unreachable!("its plan is of a slot"),
            (Saving::AtOnce, _) => program.bytes_per_s_max,
            (Saving::Slowly, _) => program.bytes * 1_500 / program.interval_ms,
        };
        // One at a time: after its slot changed the last one may take until now.
        if run.saving.is_none() {
            run.saving = Some(Save { began_ms: self.now, bytes_per_s });
            let written = self.now + (program.bytes * 1_000).div_ceil(bytes_per_s);
            let written_at = What::Written { job, attempt: run.attempt };
            self.agenda.push(Reverse((written, written_at)));
        }
        self.plan(job);
    }

    fn written(&mut self, job: JobId) {
        self.cut_off(job);
        let run = self.runs.get_mut(&job).expect("it runs");
        let Some(save) = run.saving.take() else { return };
        self.outcome.saves += 1;
        self.saved_ms += self.now - save.began_ms;
        let gap = (self.now - run.safe_ms) as f64 / self.programs[&job].interval_ms as f64;
        self.outcome.gap_max = self.outcome.gap_max.max(gap);
        run.safe_ms = save.began_ms;
    }

    /// A run is over; what it has written by then was.
    fn leave(&mut self, job: JobId) -> Run {
        self.cut_off(job);
        let run = self.runs.remove(&job).expect("it runs");
        let Program { bytes, interval_ms, .. } = self.programs[&job];
        self.expected.add(run.placed_ms, self.now, bytes * 1_000 / interval_ms);
        let from_ms = run.since_ms + interval_ms;
        self.must.push(Due { from_ms, to_ms: self.now, every_ms: interval_ms, bytes });
        run
    }

    /// Counts what a job has written of a checkpoint.
    fn cut_off(&mut self, job: JobId) {
        if let Some(save) = self.runs[&job].saving {
            self.periodic.add(save.began_ms, self.now, save.bytes_per_s);
        }
    }
}
