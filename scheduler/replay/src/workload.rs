//! Workloads that are drawn from distributions, to judge policies by more than the few public traces.
//!
//! What is known of real clusters is how long jobs run (mean, median and maximum, from the AcmeTrace summary of
//! five clusters and the run times of Tiresias) and how many GPUs they take. Where the mean is ten to fifty times the
//! median a log-normal distribution fits well; others are here because a policy should not hang on that one.

use crate::{random::Random, trace::TraceJob};

const DAY_MS: f64 = 86_400_000.0;

/// Of a workload, each with a rate of its own: the busiest has at most four times that of the quietest.
const PHASES: usize = 12;

/// How long jobs run, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RunTime {
    LogNormal {
        median: f64,
        mean: f64,
    },
    Pareto {
        least: f64,
        exponent: f64,
    },
    Exponential {
        mean: f64,
    },
    /// Most are short, and one in so many is long: each kind within a factor of two.
    TwoKinds {
        short: f64,
        long: f64,
        one_in: u64,
    },
}

/// Jobs of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub run_time: RunTime,
    /// None runs longer, s.
    pub longest: f64,
    /// GPUs, and how many of a hundred jobs take so many.
    pub sizes: &'static [(u32, u64)],
    /// So many come at a time: sweeps.
    pub at_once: u64,
    pub jobs: usize,
    pub gpus: u32,
    /// What the jobs take, as a part of what the cluster has from the first submission to the last.
    pub load: f64,
}

impl Workload {
    /// Jobs in the order of their submission. More of them come by day than by night.
    pub fn draw(&self, seed: u64) -> Vec<TraceJob> {
        let mut random = Random(seed);
        let mut jobs: Vec<TraceJob> = Vec::with_capacity(self.jobs);
        while jobs.len() < self.jobs {
            let gpus = self.size(&mut random);
            let left = (self.jobs - jobs.len()) as u64;
            for _ in 0..self.at_once.min(left) {
                let seconds = self.run_time.draw(&mut random).clamp(1.0, self.longest);
                let duration_ms = (seconds * 1_000.0) as u64;
                jobs.push(TraceJob { submit_ms: 0, gpus, duration_ms });
            }
        }
        let work: f64 = jobs.iter().map(|job| f64::from(job.gpus) * job.duration_ms as f64).sum();
        let span_ms = work / (f64::from(self.gpus) * self.load);
        let busy: [f64; PHASES] = std::array::from_fn(|_| 4f64.powf(random.unit()) / 4.0);
        for sweep in jobs.chunks_mut(self.at_once.max(1) as usize) {
            let at = moment(&mut random, span_ms, &busy);
            sweep.iter_mut().for_each(|job| job.submit_ms = at);
        }
        jobs.sort_by_key(|job| job.submit_ms);
        jobs
    }

    fn size(&self, random: &mut Random) -> u32 {
        let all = self.sizes.iter().map(|(_, weight)| weight).sum();
        let mut at = random.below(all);
        for (gpus, weight) in self.sizes {
            if at < *weight {
                return *gpus;
            }
            at -= weight;
        }
        unreachable!("one of the weights was met")
    }
}

/// Any moment of the span; at noon four times as often as at midnight, and in busy phases more often than in others.
fn moment(random: &mut Random, span_ms: f64, busy: &[f64; PHASES]) -> u64 {
    loop {
        let part = random.unit();
        let at = part * span_ms;
        let day = 1.0 - 0.6 * (std::f64::consts::TAU * at / DAY_MS).cos();
        let phase = busy[((part * PHASES as f64) as usize).min(PHASES - 1)];
        if random.unit() * 1.6 <= day * phase {
            return at as u64;
        }
    }
}

impl RunTime {
    fn draw(self, random: &mut Random) -> f64 {
        match self {
            // mean / median = exp(sigma^2 / 2).
            Self::LogNormal { median, mean } => {
                let sigma = (2.0 * (mean / median).ln()).sqrt();
                median * (sigma * random.normal()).exp()
            }
            Self::Pareto { least, exponent } => least * random.unit().powf(-1.0 / exponent),
            Self::Exponential { mean } => -mean * random.unit().ln(),
            Self::TwoKinds { short, long, one_in } => {
                let middle = if random.below(one_in) == 0 { long } else { short };
                middle * 2f64.powf(2.0 * random.unit() - 1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(run_time: RunTime) -> Workload {
        Workload {
            run_time,
            longest: 1e7,
            sizes: &[(1, 70), (8, 20), (32, 10)],
            at_once: 4,
            jobs: 20_000,
            gpus: 256,
            load: 0.9,
        }
    }

    #[test]
    fn jobs_have_the_times_the_sizes_and_the_load_that_were_asked_for() {
        let of = workload(RunTime::LogNormal { median: 1_000.0, mean: 4_000.0 });
        let jobs = of.draw(1);
        assert_eq!((jobs.len(), of.draw(1) == jobs, of.draw(2) == jobs), (20_000, true, false));
        let mut times: Vec<f64> = jobs.iter().map(|job| job.duration_ms as f64 / 1e3).collect();
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        assert!((times[10_000] / 1_000.0 - 1.0).abs() < 0.1, "median {}", times[10_000]);
        assert!((mean / 4_000.0 - 1.0).abs() < 0.1, "mean {mean}");
        let large = jobs.iter().filter(|job| job.gpus == 32).count();
        assert!((1_600..2_400).contains(&large), "{large} of a tenth");
        let work: f64 = jobs.iter().map(|job| f64::from(job.gpus) * job.duration_ms as f64).sum();
        let last = jobs.last().expect("there are some").submit_ms as f64;
        assert!((work / (256.0 * last) / 0.9 - 1.0).abs() < 0.02, "they come in time");
    }

    #[test]
    fn more_come_by_day() {
        let jobs = workload(RunTime::Exponential { mean: 36_000.0 }).draw(3);
        let is_day =
            |job: &&TraceJob| (0.25..0.75).contains(&(job.submit_ms as f64 / DAY_MS).fract());
        let day = jobs.iter().filter(is_day).count() as f64 / jobs.len() as f64;
        // A half, and 0.6 / pi.
        assert!((day - 0.69).abs() < 0.03, "{day}");
    }
}
