//! How evenly storage is written to while many jobs write checkpoints.
//!
//! Jobs of one GPU to 600 nodes keep a cluster full for hours: they come, end, and are preempted by large ones. Each
//! saves once in an interval, at the end of a step of its own length, and what all of them write is counted by the
//! second. They do it in the slots that the core gives them, or without. What jobs save because they are to make room
//! is counted apart: that cannot wait for a slot.

use ff2_topology::Topology;
use serde::{Deserialize, Serialize};

mod programs;
mod world;
mod writes;

pub use writes::Evenness;

const HOUR_MS: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Saving {
    /// As the core says.
    Slots,
    /// Each job once in an interval from its start on, as fast as it can.
    AtOnce,
    /// The same, but each save takes two thirds of the interval.
    Slowly,
}

/// What is simulated. Times in ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub seed: u64,
    pub saving: Saving,
    pub hours: u64,
    /// Not counted.
    pub warm_up_ms: u64,
    /// Each job has one of them.
    pub intervals_ms: Vec<u64>,
    /// Whether jobs tell how long their steps take, or leave it at the 20 s that are taken for granted.
    pub tells_steps: bool,
    /// Checks all that must hold after each step of the core.
    pub checks: bool,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            seed: 1,
            saving: Saving::Slots,
            hours: 8,
            warm_up_ms: HOUR_MS,
            intervals_ms: vec![300_000],
            tells_steps: false,
            checks: true,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub periodic: Evenness,
    /// The peak over ten seconds, as a multiple of what those jobs write in the mean that run in them.
    pub peak_of_running: f64,
    /// With what jobs saved because they had to make room.
    pub with_suspensions: Evenness,
    pub saves: u64,
    pub jobs_ended: u64,
    pub preemptions: u64,
    /// Most jobs that ran at once, and most GPUs of one.
    pub jobs_max: usize,
    pub gpus_max: u64,
    /// Slots that running jobs got instead of those that they had.
    pub slots_changed: u64,
    /// Slots in all.
    pub slots: u64,
    /// How long a save took, in the mean, s.
    pub save_s: f64,
    /// The longest that a running job was without a save that was complete, as a multiple of its interval.
    pub gap_max: f64,
}

/// Runs jobs for the time of the trial.
pub fn simulate(topology: &Topology, trial: &Trial) -> Outcome {
    world::World::new(topology, trial).run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster;

    fn run(trial: Trial) -> Outcome {
        let outcome = simulate(&cluster(10_000, 15), &trial);
        // Otherwise it would not be the hard case.
        assert!(outcome.gpus_max == 4_800 && outcome.preemptions > 50, "{outcome:?}");
        assert!(outcome.jobs_max > 100 && outcome.jobs_ended > 100, "{outcome:?}");
        outcome
    }

    #[test]
    fn with_slots_the_peak_is_near_the_mean() {
        for tells_steps in [false, true] {
            let outcome = run(Trial { hours: 6, tells_steps, ..Trial::default() });
            assert!(outcome.periodic.peak_1s < 1.2, "{outcome:?}");
            assert!(outcome.gap_max < 3.2, "{outcome:?}");
        }
    }

    /// What there is to write rises and falls with the intervals of those that run.
    #[test]
    fn with_other_intervals_it_is_near_the_mean_of_those_that_run() {
        let intervals_ms = [5, 10, 15, 30, 60].map(|minutes| minutes * 60_000).to_vec();
        let outcome = run(Trial { hours: 6, tells_steps: true, intervals_ms, ..Trial::default() });
        assert!(outcome.peak_of_running < 1.2, "{outcome:?}");
    }

    #[test]
    fn without_slots_it_is_far_above() {
        let trial = Trial { hours: 6, checks: false, ..Trial::default() };
        let at_once = run(Trial { saving: Saving::AtOnce, ..trial.clone() });
        assert!(at_once.periodic.peak_10s > 3.0, "{at_once:?}");
        let slowly = run(Trial { saving: Saving::Slowly, ..trial });
        assert!(slowly.periodic.peak_1s > 1.4, "{slowly:?}");
    }
}
