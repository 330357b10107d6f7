//! What came of a replay.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub jobs: usize,
    pub gpus: u64,
    /// From submission to end.
    pub jct_hours: Distribution,
    /// Of it, without nodes.
    pub queueing_hours: Distribution,
    /// The part of all GPUs that had tasks, over the time in which at least one job waited.
    pub occupancy: f64,
    /// The same over all time.
    pub occupancy_overall: f64,
    /// From the first submission to the last end.
    pub makespan_days: f64,
    /// Runs that were suspended for another job.
    pub preemptions: u64,
    /// Runs that were suspended to go on elsewhere.
    pub moves: u64,
    /// Per run of more than one node: leaves that it had nodes at.
    pub leaves_spanned: f64,
    /// And how many it would have in an empty cluster.
    pub leaves_least: f64,
    /// Mean over runs of more than one node, GB/s.
    pub allreduce_gb_per_s: f64,
    pub gpu_hours: f64,
    /// Of these, lost by saving and restoring.
    pub gpu_hours_lost: f64,
    /// Steps of the core.
    pub steps: u64,
    #[serde(skip)]
    pub moments: Vec<Moment>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// The cluster at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at_ms: u64,
    pub used_gpus: u64,
    pub waiting_jobs: u64,
}

impl Distribution {
    /// By nearest rank. All 0 if there are no values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let Some(max) = values.last().copied() else { return Self::default() };
        let rank = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self { mean, p50: rank(50), p99: rank(99), max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_values_that_were_there() {
        let of = Distribution::of((1..=200).map(f64::from).collect());
        assert_eq!((of.mean, of.p50, of.p99, of.max), (100.5, 100.0, 198.0, 200.0));
        assert_eq!(Distribution::of(vec![7.0]).p99, 7.0);
        assert_eq!(Distribution::of(vec![]), Distribution::default());
    }
}
