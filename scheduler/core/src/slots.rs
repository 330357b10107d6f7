//! When running jobs write their checkpoints, so that storage is written to evenly.
//!
//! A job that tells how often it saves ([`Checkpoint`]) has a slot while it runs ([`CheckpointSlot`]): when its writes
//! begin, how long they take and how fast they are. Slots lie on a wheel (`slots/wheel.rs`), an hour of the clock in
//! cells, which knows how much is written in each cell at most, whichever way jobs come late to their slots within what
//! they said. No cell has more than [`PEAK_PERCENT`] of what the jobs write in the mean: who gives slots
//! (`scheduler/slots.rs`) sees to it.
//!
//! That can always be had, because a job may write all the time between two of its saves, but for the time by which it
//! may come late: a twentieth of its interval at most. All jobs together are then 20/19 of the mean at most, in any
//! cell.
//! Shorter slots are better for who loses a node, so a job gets the shortest that fits.
//!
//! A job that is to make room saves at once, in a slot for that alone: so fast that all that stop have together what
//! their slots had, and what nobody uses (`slots/stops.rs`). That keeps to the same limit if they may take nearly as
//! long as their intervals are; who has less time writes as slowly as it can.

use serde::{Deserialize, Serialize};

use crate::{
    job::{Job, JobSpec},
    slots::stops::Stop,
};

pub(crate) mod stops;
pub(crate) mod wheel;

/// What a cell may have of the mean. More than 20/19, which is always possible, and less than what people are promised
/// (120): the mean itself rises and falls with the jobs that come and go.
pub const PEAK_PERCENT: u64 = 109;

/// Shorter than most steps of a training, so that little is kept for those that come late.
pub(crate) const CELL_MS: u64 = 2_500;

/// Cells of an hour. It has many divisors, near all intervals that people choose.
pub(crate) const WHEEL: u64 = 1_440;

/// The shortest and the longest interval, in cells: a minute, a day.
const EVERY_MIN: u64 = 24;
const EVERY_MAX: u64 = 24 * WHEEL;

/// Who comes late by more than such a part of its interval is not waited for.
const LATE_PART: u64 = 20;

/// Of a grace such a part is kept for saying that all is saved.
const GRACE_PART: u64 = 20;

/// A slot is so many times as long as its job may come late, or longer: what is kept for late ones is a thirtieth of
/// all then, and leaves room below the peak for slots that do not lie side by side without gaps.
const LENGTH_OF_LATE: u64 = 30;

/// Of a checkpoint whose size nobody told: the weights, gradients and states of an optimizer that leave a GPU of 40 GB
/// room to compute.
const BYTES_PER_GPU: u64 = 16 << 30;

/// What a job's checkpoint counts as, bytes: rates are whole numbers, and sums of them too.
const BYTES_MIN: u64 = 1 << 30;
const BYTES_MAX: u64 = 1 << 50;

/// What a job says of its checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// From one to the next, ms.
    pub interval_ms: u64,
    /// Of each task. 0: unknown, so it is guessed by its GPUs.
    pub bytes: u64,
    /// How long a step takes at most, ms: saving begins at the first one after the slot does.
    pub step_ms: u64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { interval_ms: 300_000, bytes: 0, step_ms: 20_000 }
    }
}

/// When a running job writes its checkpoints: from each moment of the clock that is `phase_ms` after a multiple of
/// `every_ms`. With [`crate::Event`]s on the Unix clock that is the Unix clock. Of a job that stops it is when it
/// writes its last one: from the moment on when it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSlot {
    pub every_ms: u64,
    pub phase_ms: u64,
    /// For so long it writes, from its first step in the slot on.
    pub length_ms: u64,
    /// Of the whole job.
    pub bytes_per_s: u64,
}

/// What a job needs of the wheel; times in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) bytes: u64,
    pub(crate) every: u64,
    /// By so much it may begin late.
    late: u64,
}

impl Demand {
    pub(crate) fn of(job: &Job) -> Option<Self> {
        Self::of_spec(&job.spec, job.gpus())
    }

    pub(crate) fn of_spec(spec: &JobSpec, gpus: u64) -> Option<Self> {
        let Checkpoint { interval_ms, bytes, step_ms } = spec.checkpoint?;
        let bytes = match bytes {
            0 => gpus * BYTES_PER_GPU,
            of_task => of_task.saturating_mul(u64::from(spec.tasks)),
        };
        let every = every(interval_ms / CELL_MS);
        Some(Self {
            bytes: bytes.clamp(BYTES_MIN, BYTES_MAX),
            every,
            late: step_ms.div_ceil(CELL_MS).clamp(1, every / LATE_PART),
        })
    }

    /// What it writes in the mean, bytes/s.
    pub(crate) fn mean(&self) -> u64 {
        self.bytes * 1_000 / (self.every * CELL_MS)
    }

    /// Lengths of slots, the shortest first.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, last) = (self.late * LENGTH_OF_LATE, self.longest());
        let doubled = std::iter::successors(Some(first), |length| Some(length * 2));
        doubled.take_while(move |length| *length < last).chain([last])
    }

    pub(crate) fn longest(&self) -> u64 {
        self.every - self.late
    }

    /// How far its slots are apart on the wheel. One of several hours is there in each turn.
    pub(crate) fn turn(&self) -> u64 {
        self.every.min(WHEEL)
    }

    pub(crate) fn slot(&self, phase: u64, length: u64) -> CheckpointSlot {
        let length_ms = length * CELL_MS;
        CheckpointSlot {
            every_ms: self.every * CELL_MS,
            phase_ms: phase * CELL_MS,
            length_ms,
            bytes_per_s: (self.bytes * 1_000).div_ceil(length_ms),
        }
    }

    /// What it writes when it stops, if all it has for that is its grace: without a step until it begins, and a part to
    /// say that all is saved.
    pub(crate) fn stop(&self, spec: &JobSpec, grace_ms: u64) -> Stop {
        let step_ms = spec.checkpoint.map_or(0, |checkpoint| checkpoint.step_ms);
        let left = (grace_ms - grace_ms / GRACE_PART).saturating_sub(step_ms);
        Stop { bytes: self.bytes, within_ms: left.max(grace_ms / 4) }
    }

    /// The slot of a last save that begins now.
    pub(crate) fn last_slot(&self, now_ms: u64, length_ms: u64) -> CheckpointSlot {
        let every_ms = self.every * CELL_MS;
        let bytes_per_s = (u128::from(self.bytes) * 1_000).div_ceil(u128::from(length_ms));
        let bytes_per_s = u64::try_from(bytes_per_s).expect("within a second as much as there is");
        CheckpointSlot { every_ms, phase_ms: now_ms % every_ms, length_ms, bytes_per_s }
    }

    /// Whether it may write in a cell of the wheel.
    pub(crate) fn writes_in(&self, cell: u64, slot: &CheckpointSlot) -> bool {
        let since = (cell + self.turn() - slot.phase_ms / CELL_MS) % self.turn();
        since < self.reach(slot.length_ms / CELL_MS)
    }

    /// In how many cells it may write.
    pub(crate) fn reach(&self, length: u64) -> u64 {
        (length + self.late).min(self.turn())
    }
}

/// The interval that a job gets: it saves as often as it wanted, or more often.
fn every(wanted: u64) -> u64 {
    let wanted = wanted.clamp(EVERY_MIN, EVERY_MAX);
    if wanted >= WHEEL {
        return wanted - wanted % WHEEL;
    }
    (EVERY_MIN..=wanted).rev().find(|cells| WHEEL.is_multiple_of(*cells)).unwrap_or(EVERY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_parts_of_an_hour_or_whole_hours() {
        let minutes = |wanted: u64| every(wanted * 24) as f64 / 24.0;
        let given = [0, 1, 5, 7, 10, 15, 25, 45, 60, 100, 150, 10_000].map(minutes);
        let expected = [1., 1., 5., 6.0 + 2.0 / 3.0, 10., 15., 20., 30., 60., 60., 120., 1_440.];
        assert_eq!(given, expected);
    }

    #[test]
    fn what_a_job_did_not_say_is_guessed() {
        let of = |checkpoint| {
            let spec = JobSpec { tasks: 4, checkpoint: Some(checkpoint), ..JobSpec::default() };
            Demand::of_spec(&spec, spec.gpus()).unwrap()
        };
        assert_eq!(Demand::of_spec(&JobSpec::default(), 1), None);
        let guessed = of(Checkpoint::default());
        assert_eq!((guessed.bytes, guessed.every, guessed.late), (64 << 30, 120, 6));
        assert_eq!(of(Checkpoint { bytes: 5 << 30, ..Checkpoint::default() }).bytes, 20 << 30);
        assert_eq!(of(Checkpoint { bytes: 1, ..Checkpoint::default() }).bytes, BYTES_MIN);
        assert_eq!(of(Checkpoint { bytes: u64::MAX, ..Checkpoint::default() }).bytes, BYTES_MAX);
        // Who may be late by more than a twentieth of the interval is not waited for.
        assert_eq!(of(Checkpoint { step_ms: u64::MAX, ..Checkpoint::default() }).late, 6);
        assert_eq!(of(Checkpoint { step_ms: 0, ..Checkpoint::default() }).late, 1);
    }

    /// What the promise rests on.
    #[test]
    fn all_jobs_fit_if_each_writes_as_long_as_it_may() {
        for interval in (0..2 * 3_600_000).step_by(1_000) {
            for step_ms in [0, 5_000, 20_000, 600_000] {
                let checkpoint = Checkpoint { interval_ms: interval, bytes: 1, step_ms };
                let spec = JobSpec { checkpoint: Some(checkpoint), ..JobSpec::default() };
                let demand = Demand::of_spec(&spec, spec.gpus()).unwrap();
                let slot = demand.slot(0, demand.longest());
                assert_eq!(demand.lengths().last(), Some(demand.longest()));
                assert!(slot.bytes_per_s * 100 < demand.mean() * PEAK_PERCENT, "{slot:?}");
            }
        }
    }
}
