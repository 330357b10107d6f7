//! The learning rate of each step.

use std::f64::consts::PI;

use crate::config::{Schedule, ScheduleKind};

impl Schedule {
    /// As a share of the highest. Steps count from 0 to below `steps`.
    pub(crate) fn share(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let from = match self.kind {
            ScheduleKind::Cosine => self.warmup,
            ScheduleKind::Wsd => {
                let decaying = (steps as f64 * self.decay_share).round() as u64;
                steps.saturating_sub(decaying).max(self.warmup)
            }
        };
        // The last step has the final rate.
        let whole = steps.saturating_sub(from + 1).max(1) as f64;
        let done = (step.saturating_sub(from) as f64 / whole).min(1.0);
        let high = match self.kind {
            ScheduleKind::Cosine => (1.0 + (PI * done).cos()) / 2.0,
            ScheduleKind::Wsd => 1.0 - done,
        };
        self.final_share + (1.0 - self.final_share) * high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(kind: ScheduleKind) -> Vec<f64> {
        let schedule = Schedule { kind, warmup: 10, final_share: 0.1, decay_share: 0.2 };
        (0..100).map(|step| schedule.share(step, 100)).collect()
    }

    #[test]
    fn both_rise_to_the_highest_and_end_at_the_final_share() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Wsd] {
            let shares = shares(kind);
            assert!((shares[0] - 0.1).abs() < 1e-12 && (shares[9] - 1.0).abs() < 1e-12);
            assert!((shares[10] - 1.0).abs() < 1e-12 && (shares[99] - 0.1).abs() < 1e-12);
            assert!(shares[10..].windows(2).all(|pair| pair[1] <= pair[0]));
        }
    }

    #[test]
    fn wsd_is_stable_until_its_decay_and_cosine_is_halfway_in_the_middle() {
        let wsd = shares(ScheduleKind::Wsd);
        assert!(wsd[10..=80].iter().all(|share| *share == 1.0) && wsd[81] < 1.0);
        let cosine = shares(ScheduleKind::Cosine);
        assert!((cosine[54] + cosine[55] - 1.1).abs() < 0.01, "{} {}", cosine[54], cosine[55]);
    }

    #[test]
    fn short_runs_have_rates_too() {
        for (kind, steps) in [(ScheduleKind::Cosine, 1), (ScheduleKind::Wsd, 5)] {
            let schedule = Schedule { kind, ..Schedule::default() };
            assert!((0..steps).all(|step| schedule.share(step, steps) > 0.0));
            let none = Schedule { kind, warmup: 0, ..Schedule::default() };
            assert!((0..steps).all(|step| none.share(step, steps) > 0.0));
        }
    }
}
