//! What jobs there are.

use ff2_sched_core::{Checkpoint, JobSpec, Priority, Resources};

use crate::{
    checkpoints::{HOUR_MS, Saving, Trial},
    random::Random,
};

/// Nodes of a job, by GPUs, and how many of a thousand jobs are such.
const SIZES: [(u32, u64); 12] = [
    (1, 200),
    (2, 100),
    (4, 100),
    (8, 210),
    (16, 110),
    (32, 100),
    (64, 80),
    (128, 50),
    (256, 25),
    (512, 15),
    (1_024, 7),
    (2_048, 3),
];

/// Of the large jobs that preempt others.
pub(super) const LARGE_GPUS: u32 = 600 * 8;

/// One is told to run so often, and so long.
pub(super) const LARGE_EVERY_MS: u64 = 4 * HOUR_MS;
pub(super) const LARGE_RUNS_MS: u64 = 3 * HOUR_MS;

/// What a GPU's share of a node writes if nothing holds it back: a fifth of what its part of a 200 Gbit/s port takes.
const BYTES_PER_S_OF_GPU: u64 = 25_000_000_000 / 8 / 5;

/// What is so of a job in all of its attempts.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) bytes: u64,
    pub(super) interval_ms: u64,
    pub(super) step_ms: u64,
    pub(super) bytes_per_s_max: u64,
    pub(super) left_ms: u64,
}

/// GPUs of a job that somebody hands in, and how long it runs.
pub(super) fn drawn(random: &mut Random) -> (u32, u64) {
    let mut drawn = random.below(1_000);
    let size = SIZES.iter().find(|(_, of)| {
        let is_it = drawn < *of;
        drawn = drawn.saturating_sub(*of);
        is_it
    });
    let (gpus, _) = size.expect("they are a thousand");
    // From one hour to sixteen, most of them short.
    (*gpus, (16_f64.powf(random.unit()) * HOUR_MS as f64) as u64)
}

impl Program {
    pub(super) fn drawn(random: &mut Random, trial: &Trial, gpus: u32, runs_ms: u64) -> Self {
        // What is in the memory of a GPU differs little.
        let bytes = ((11 + random.below(3)) << 30) * u64::from(gpus);
        let at = random.below(trial.intervals_ms.len() as u64) as usize;
        Self {
            bytes,
            interval_ms: trial.intervals_ms[at],
            step_ms: 3_000 + random.below(17_001),
            bytes_per_s_max: BYTES_PER_S_OF_GPU * u64::from(gpus),
            left_ms: runs_ms,
        }
    }

    /// As its user would hand it in.
    pub(super) fn spec(&self, trial: &Trial, gpus: u32, priority: Priority) -> JobSpec {
        let tasks = gpus.div_ceil(8);
        let checkpoint = Checkpoint {
            interval_ms: self.interval_ms,
            bytes: self.bytes / u64::from(tasks),
            step_ms: if trial.tells_steps { self.step_ms } else { Checkpoint::default().step_ms },
        };
        JobSpec {
            tasks,
            task: Resources { gpus: gpus.min(8), cpus: 0, memory: 0 },
            priority,
            grace_ms: trial.grace_ms,
            checkpoint: (trial.saving == Saving::Slots).then_some(checkpoint),
            ..JobSpec::default()
        }
    }
}
