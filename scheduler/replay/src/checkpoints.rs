//! How evenly storage is written to while many jobs write checkpoints.
//!
//! Jobs of one GPU to 600 nodes keep a cluster full for hours: they come, end, and are preempted by large ones. Each
//! saves once in an interval, at the end of a step of its own length, and what all of them write is counted by the
//! second. They do it in the slots that the core gives them, or without. What jobs save because they are to make room
//! is counted apart, and with the rest. Beside it stands the least peak that there is, whatever slots jobs have
//! (`checkpoints/least.rs`): what is to be written rises and falls with the jobs that run.

use ff2_topology::Topology;
use serde::{Deserialize, Serialize};

mod least;
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
    /// Of all jobs.
    pub grace_ms: u64,
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
            grace_ms: 300_000,
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
    /// The least that the peak of `periodic` can be.
    pub least: f64,
    /// With what jobs saved because they had to make room.
    pub with_suspensions: Evenness,
    /// The least that the peak of that can be.
    pub least_with_suspensions: f64,
    /// The longest from a request to make room until it was made, s.
    pub stop_s_max: f64,
    /// Jobs that had to be killed, as their grace was over before they had saved.
    pub killed: u64,
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
