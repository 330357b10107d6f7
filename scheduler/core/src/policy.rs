//! In which order jobs go, and when one may take the place of another.

use serde::{Deserialize, Serialize};

use crate::job::{Job, Resources};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub policy: Policy,
    /// What a node has beside its GPUs.
    pub beside_gpus: Resources,
    /// After it usage counts half in the fair share.
    pub half_life_ms: u64,
    /// How many jobs may lie in two zones at once.
    pub across_zones: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::ff2(),
            // A compute node of Fire-Flyer 2: two CPUs with 32 cores, 512 GiB (arXiv 2408.14158, table I).
            beside_gpus: Resources { gpus: 0, cpus: 64, memory: 512 << 10 },
            half_life_ms: 7 * 24 * HOUR_MS,
            across_zones: 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Policy {
    /// In the order of submission; who does not fit holds up all behind.
    Fifo,
    /// As FIFO, but others go ahead if their time limits say that they delay nobody's reservation (EASY).
    Easy,
    /// By attained service, with preemption.
    Bands(Bands),
}

/// A job's band tells how much it has had: those of a better one, a lower number, go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bands {
    /// The service with which a job leaves the best band: GPUs times ms.
    pub first_gpu_ms: u64,
    /// Each further threshold is so many times the one before.
    pub factor: u32,
    /// How many bands there are.
    pub count: u32,
    /// So long a job waits before others are preempted for it: most often something ends by itself.
    pub patience_ms: u64,
    /// So long a run lasts at least before it is preempted.
    pub min_run_ms: u64,
    /// And so much of what the job ran before, in percent, before one of its own priority takes its place: what costs
    /// a restart should last in proportion.
    pub min_run_percent: u64,
    /// Who waits for so many times as long as it ever ran, and at least for the floor, is taken as of one band better;
    /// after twice that of two, and so on to the best. So everybody's turn comes. 0: nobody's does.
    pub starved_times: u64,
    pub starved_floor_ms: u64,
    /// Whether small jobs are moved together so that a larger one fits.
    pub consolidates: bool,
    /// How often plans that preempt or move are looked for while jobs wait.
    pub plan_every_ms: u64,
}

impl Policy {
    /// Least attained service in six bands, as Tiresias has it (NSDI 2019): what others are compared with.
    pub fn las() -> Self {
        Self::Bands(Bands {
            first_gpu_ms: 8 * HOUR_MS,
            factor: 4,
            count: 6,
            patience_ms: 0,
            min_run_ms: 30 * MINUTE_MS,
            min_run_percent: 0,
            starved_times: 0,
            starved_floor_ms: 0,
            consolidates: false,
            plan_every_ms: MINUTE_MS,
        })
    }

    /// What this scheduler is for: few preemptions, nobody starves, nothing lies idle.
    pub fn ff2() -> Self {
        Self::Bands(Bands {
            first_gpu_ms: 8 * HOUR_MS,
            factor: 4,
            count: 6,
            patience_ms: 5 * MINUTE_MS,
            min_run_ms: 30 * MINUTE_MS,
            min_run_percent: 5,
            starved_times: 2,
            starved_floor_ms: 14 * 24 * HOUR_MS,
            consolidates: true,
            plan_every_ms: MINUTE_MS,
        })
    }

    pub(crate) fn bands(&self) -> Option<&Bands> {
        match self {
            Self::Fifo | Self::Easy => None,
            Self::Bands(bands) => Some(bands),
        }
    }
}

impl Bands {
    /// Of a job with so much service, in GPUs times ms.
    pub fn band(&self, service: u64) -> u32 {
        let (mut band, mut threshold) = (0, self.first_gpu_ms);
        while band + 1 < self.count && service >= threshold {
            band += 1;
            threshold = threshold.saturating_mul(u64::from(self.factor));
        }
        band
    }

    /// The service with which a job leaves its band; none in the last.
    pub fn next_threshold(&self, service: u64) -> Option<u64> {
        let band = self.band(service);
        (band + 1 < self.count).then(|| {
            (0..band).fold(self.first_gpu_ms, |at, _| at.saturating_mul(u64::from(self.factor)))
        })
    }

    /// How long a run of a job lasts at least before one of a higher priority stops it, ms.
    pub(crate) fn min_run(&self, job: &Job) -> u64 {
        self.min_run_ms.max(job.spec.min_run_ms)
    }

    /// And before one of its own priority does.
    pub(crate) fn min_run_for_equal(&self, job: &Job) -> u64 {
        self.min_run(job).max(job.ran_ms * self.min_run_percent / 100)
    }

    /// For how long a job waits until it is taken as of one band better, ms.
    pub(crate) fn starves_after(&self, job: &Job) -> Option<u64> {
        let wait = (job.ran_ms * self.starved_times).max(self.starved_floor_ms);
        (self.starved_times > 0).then_some(wait.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_leaves_its_band_at_the_threshold() {
        let Policy::Bands(bands) = Policy::las() else { panic!("las has bands") };
        let hours = |hours: u64| hours * HOUR_MS;
        let of = |service| bands.band(hours(service));
        assert_eq!(
            [of(0), of(7), of(8), of(31), of(32), of(2_047), of(2_048), of(99_999)],
            [0, 0, 1, 1, 2, 4, 5, 5]
        );
        assert_eq!(bands.next_threshold(hours(7)), Some(hours(8)));
        assert_eq!(bands.next_threshold(hours(8)), Some(hours(32)));
        assert_eq!(bands.next_threshold(hours(2_048)), None);
    }
}
