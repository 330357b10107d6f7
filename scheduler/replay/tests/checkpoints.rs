//! How evenly storage is written to, with slots and without.

use ff2_sched_replay::{
    checkpoints::{Outcome, Saving, Trial, simulate},
    cluster,
};

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
        assert!(outcome.with_suspensions.peak_1s < 1.2, "{outcome:?}");
        assert!(outcome.gap_max < 3.2, "{outcome:?}");
        assert!(outcome.killed == 0 && outcome.stop_s_max < 300.0, "{outcome:?}");
    }
}

/// How much what runs changes differs by seed, and with it the peak over all hours; how near slots come to the least
/// that there is does not.
#[test]
fn whichever_jobs_come_the_peak_is_near_the_least() {
    for (seed, tells_steps) in (1..=16).flat_map(|seed| [(seed, false), (seed, true)]) {
        let outcome =
            run(Trial { seed, hours: 12, tells_steps, checks: false, ..Trial::default() });
        assert!(outcome.peak_of_running < 1.12, "seed={seed} {outcome:?}");
        assert!(outcome.periodic.peak_10s < 1.1 * outcome.least, "seed={seed} {outcome:?}");
    }
}

/// With less time than it takes within the limit they write as slowly as they can, and are done in time.
#[test]
fn those_who_stop_write_as_slowly_as_their_grace_lets_them() {
    let trial = Trial { hours: 6, tells_steps: true, grace_ms: 60_000, ..Trial::default() };
    let outcome = run(trial);
    assert!(outcome.killed == 0 && outcome.stop_s_max < 60.0, "{outcome:?}");
    let (peak, least) = (outcome.with_suspensions.peak_10s, outcome.least_with_suspensions);
    assert!(peak < 2.0 * least, "{outcome:?}");
}

/// What there is to write rises and falls with the intervals of those that run.
#[test]
fn with_other_intervals_it_is_near_the_mean_of_those_that_run() {
    let intervals_ms = [5, 10, 15, 30, 60].map(|minutes| minutes * 60_000).to_vec();
    let outcome = run(Trial { hours: 6, tells_steps: true, intervals_ms, ..Trial::default() });
    assert!(outcome.peak_of_running < 1.2, "{outcome:?}");
    assert!(outcome.periodic.peak_10s < 1.2 * outcome.least, "{outcome:?}");
}

#[test]
fn without_slots_it_is_far_above() {
    let trial = Trial { hours: 6, checks: false, ..Trial::default() };
    let at_once = run(Trial { saving: Saving::AtOnce, ..trial.clone() });
    assert!(at_once.periodic.peak_10s > 3.0, "{at_once:?}");
    let slowly = run(Trial { saving: Saving::Slowly, ..trial });
    assert!(slowly.periodic.peak_1s > 1.4, "{slowly:?}");
}
