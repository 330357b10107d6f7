//! Which targets failed lately, so that a read asks another replica first.
//!
//! A memory of seconds, private to one client: the cluster's judgement comes with the routing. A
//! target that is avoided is still asked when nobody else serves.

use std::{collections::BTreeMap, time::Duration};

use ff2_proto::TargetId;

use crate::limits;

#[derive(Clone, Debug, Default)]
pub struct TargetHealth {
    avoid_until: BTreeMap<TargetId, Duration>,
}

impl TargetHealth {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn failed(&mut self, now: Duration, target: TargetId) {
        if self.avoid_until.len() >= limits::AVOIDED_TARGETS_MAX {
            self.forget_recovered(now);
        }
        if self.avoid_until.len() >= limits::AVOIDED_TARGETS_MAX {
            let soonest = self.avoid_until.iter().min_by_key(|(_, until)| **until);
            if let Some(target) = soonest.map(|(target, _)| *target) {
                self.avoid_until.remove(&target);
            }
        }
        self.avoid_until.insert(target, now + limits::AVOID_TARGET);
        debug_assert!(self.avoid_until.len() <= limits::AVOIDED_TARGETS_MAX);
    }

    /// It answered: trust it again at once.
    pub fn succeeded(&mut self, target: TargetId) {
        self.avoid_until.remove(&target);
    }

    pub fn is_avoided(&self, now: Duration, target: TargetId) -> bool {
        self.avoid_until.get(&target).is_some_and(|until| now < *until)
    }

    /// Whether any target is avoided: lets the common case skip the look-up of each.
    pub fn is_empty(&self) -> bool {
        self.avoid_until.is_empty()
    }

    fn forget_recovered(&mut self, now: Duration) {
        self.avoid_until.retain(|_, until| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_forgotten_after_a_while_or_a_success() {
        let mut health = TargetHealth::new();
        let now = Duration::from_secs(100);
        health.failed(now, TargetId(1));
        health.failed(now, TargetId(2));
        assert!(health.is_avoided(now, TargetId(1)));
        assert!(!health.is_avoided(now + limits::AVOID_TARGET, TargetId(1)));
        health.succeeded(TargetId(2));
        assert!(!health.is_avoided(now, TargetId(2)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut health = TargetHealth::new();
        for id in 0..(limits::AVOIDED_TARGETS_MAX as u64 * 3) {
            health.failed(Duration::from_millis(id), TargetId(id));
        }
        assert_eq!(health.avoid_until.len(), limits::AVOIDED_TARGETS_MAX);
        let last = limits::AVOIDED_TARGETS_MAX as u64 * 3 - 1;
        assert!(health.is_avoided(Duration::from_millis(last), TargetId(last)), "the newest stays");
    }
}
