//! From a failure's class to the next step.
//!
//! One [`Attempts`] lives as long as one operation: each failed attempt is told to it, and it says
//! whether to ask again, whom, and after which wait. It gives up only for a final answer or at the
//! deadline that the caller set: a server that fails is a pause, not an error.

use std::time::Duration;

use ff2_proto::Retry;

use crate::{limits, split_mix};

/// How long to wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub wait_min: Duration,
    pub wait_max: Duration,
    /// Attempts in a row without a wait.
    pub at_once_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            wait_min: limits::RETRY_WAIT_MIN,
            wait_max: limits::RETRY_WAIT_MAX,
            at_once_max: limits::RETRY_AT_ONCE_MAX,
        }
    }
}

/// What is known about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Retry,
    /// The refusal taught something newer (a chain, a leader), so asking at once is no repetition.
    pub learned: bool,
    /// Somebody else can answer who was not asked since the last wait.
    pub alternatives: bool,
}

impl Failure {
    /// A failure with no hint in it.
    pub fn of(class: Retry) -> Self {
        Self { class, learned: false, alternatives: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The answer is final.
    Final,
    /// The caller's time is over.
    Deadline,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The same again, by what was just learned.
    AskAgain,
    /// Somebody else, now.
    OtherTarget,
    /// Whoever leads now, after this wait.
    FindLeader(Duration),
    /// Newer routing or this wait, whichever is first; then the same again.
    AwaitRouting(Duration),
    /// The same again, after this wait.
    Wait(Duration),
    GiveUp(GiveUp),
}

/// The attempts of one operation.
#[derive(Clone, Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    deadline: Duration,
    failures: u32,
    at_once: u32,
    wait: Duration,
    jitter: u64,
}

impl Attempts {
    /// `deadline` is on the clock that `now` comes from.
    pub fn new(deadline: Duration, seed: u64) -> Self {
        Self::with_policy(RetryPolicy::default(), deadline, seed)
    }

    pub fn with_policy(policy: RetryPolicy, deadline: Duration, seed: u64) -> Self {
        assert!(!policy.wait_min.is_zero(), "a retry without a wait spins");
        assert!(policy.wait_min <= policy.wait_max, "waits grow");
        Self { policy, deadline, failures: 0, at_once: 0, wait: policy.wait_min, jitter: seed }
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Time that is left.
    pub fn remaining(&self, now: Duration) -> Duration {
        self.deadline.saturating_sub(now)
    }

    /// Part of the operation succeeded: the next failure is a new one.
    pub fn progressed(&mut self) {
        self.at_once = 0;
        self.wait = self.policy.wait_min;
    }

    /// An attempt failed: what now?
    pub fn failed(&mut self, now: Duration, failure: Failure) -> Step {
        self.failures = self.failures.saturating_add(1);
        if failure.class == Retry::Never {
            return Step::GiveUp(GiveUp::Final);
        }
        if now >= self.deadline {
            return Step::GiveUp(GiveUp::Deadline);
        }
        match failure.class {
            Retry::Never => unreachable!("answered above"),
            Retry::RefreshRouting if failure.learned && self.may_ask_at_once() => Step::AskAgain,
            Retry::OtherTarget if failure.alternatives && self.may_ask_at_once() => {
                Step::OtherTarget
            }
            // Nobody else serves: that changes with the routing, or the same target comes back.
            Retry::RefreshRouting | Retry::OtherTarget => Step::AwaitRouting(self.next_wait(now)),
            Retry::FindLeader if failure.learned && self.may_ask_at_once() => {
                Step::FindLeader(Duration::ZERO)
            }
            Retry::FindLeader => Step::FindLeader(self.next_wait(now)),
            Retry::BackOff => Step::Wait(self.next_wait(now)),
        }
    }

    fn may_ask_at_once(&mut self) -> bool {
        let may = self.at_once < self.policy.at_once_max;
        if may {
            self.at_once += 1;
        }
        may
    }

    /// Doubles from wait to wait; the second half of each is jitter, so that clients which failed
    /// together do not come back together.
    fn next_wait(&mut self, now: Duration) -> Duration {
        self.at_once = 0;
        let whole = self.wait;
        self.wait = (self.wait * 2).min(self.policy.wait_max);
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_nanos(split_mix(&mut self.jitter) % nanos);
        (half + jitter).min(self.remaining(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn attempts() -> Attempts {
        Attempts::new(MS(10_000), 7)
    }

    /// The table of the module: class and hints to step.
    #[test]
    fn each_class_has_its_step() {
        let at_once = |class| Failure { class, learned: true, alternatives: true };
        let now = MS(0);
        let rows = [
            (Failure::of(Retry::Never), Step::GiveUp(GiveUp::Final)),
            (at_once(Retry::RefreshRouting), Step::AskAgain),
            (at_once(Retry::OtherTarget), Step::OtherTarget),
            (at_once(Retry::FindLeader), Step::FindLeader(Duration::ZERO)),
        ];
        for (failure, step) in rows {
            assert_eq!(attempts().failed(now, failure), step, "{failure:?}");
        }
        for class in [Retry::RefreshRouting, Retry::OtherTarget] {
            let step = attempts().failed(now, Failure::of(class));
            assert!(matches!(step, Step::AwaitRouting(wait) if !wait.is_zero()), "{class:?}");
        }
        let step = attempts().failed(now, at_once(Retry::BackOff));
        assert!(matches!(step, Step::Wait(wait) if !wait.is_zero()), "hints do not end a wait");
        let step = attempts().failed(now, Failure::of(Retry::FindLeader));
        assert!(matches!(step, Step::FindLeader(wait) if !wait.is_zero()));
    }

    #[test]
    fn asking_at_once_is_bounded() {
        let mut attempts = attempts();
        let failure = Failure { class: Retry::RefreshRouting, learned: true, alternatives: false };
        for _ in 0..limits::RETRY_AT_ONCE_MAX {
            assert_eq!(attempts.failed(MS(0), failure), Step::AskAgain);
        }
        assert!(matches!(attempts.failed(MS(0), failure), Step::AwaitRouting(_)));
        assert_eq!(attempts.failed(MS(0), failure), Step::AskAgain, "a wait renews the budget");
    }

    #[test]
    fn waits_grow_jittered_to_their_bound_and_end_at_the_deadline() {
        let mut attempts = attempts();
        let mut now = MS(0);
        let mut longest = Duration::ZERO;
        let mut bound = limits::RETRY_WAIT_MIN;
        loop {
            match attempts.failed(now, Failure::of(Retry::BackOff)) {
                Step::Wait(wait) => {
                    assert!(wait <= bound, "{wait:?} > {bound:?}");
                    bound = (bound * 2).min(limits::RETRY_WAIT_MAX);
                    longest = longest.max(wait);
                    // The caller never sleeps past its deadline.
                    assert!(wait <= attempts.remaining(now));
                    now += wait.max(MS(1));
                }
                Step::GiveUp(why) => {
                    assert_eq!(why, GiveUp::Deadline);
                    break;
                }
                step => panic!("{step:?}"),
            }
        }
        assert!(now >= MS(10_000));
        assert!(longest >= limits::RETRY_WAIT_MAX / 2);
        assert!(attempts.failures() > 20);
    }

    #[test]
    fn seeds_part_clients_that_failed_together() {
        let wait = |seed| {
            let mut attempts = Attempts::new(MS(10_000), seed);
            (0..8).map(|_| attempts.failed(MS(0), Failure::of(Retry::BackOff))).collect::<Vec<_>>()
        };
        assert_eq!(wait(1), wait(1));
        assert_ne!(wait(1), wait(2));
    }

    #[test]
    fn progress_starts_the_waits_anew() {
        let mut attempts = attempts();
        for _ in 0..10 {
            attempts.failed(MS(0), Failure::of(Retry::BackOff));
        }
        attempts.progressed();
        let Step::Wait(wait) = attempts.failed(MS(0), Failure::of(Retry::BackOff)) else {
            panic!("a back-off waits")
        };
        assert!(wait <= limits::RETRY_WAIT_MIN);
    }
}
