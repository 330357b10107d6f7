//! Who takes whose place, and what moves.

use std::collections::VecDeque;

use crate::rig::{HOUR, MINUTE, Rig, gpus, network, nodes, suspended};
use ff2_sched_core::{Cause, Decision, JobId, JobSpec, Policy, Priority, State, Why};

#[test]
fn a_newcomer_takes_the_place_of_one_that_had_much_after_its_patience() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let old = rig.submit(gpus(8));
    rig.pass(2 * HOUR);
    let new = rig.submit(gpus(8));
    assert!(rig.waits(new), "something may end by itself");
    let told = rig.pass(6 * MINUTE);
    assert_eq!(suspended(&told), [(old, Cause::Preempted { by: new })]);
    assert_eq!(rig.machine.why(new), Why::Stopping { jobs: vec![old] });
    rig.stopped(old);
    assert!(rig.runs(new) && rig.waits(old));
    // The one that goes on is the same job, with all that it had.
    rig.exit(new);
    assert_eq!((rig.runs(old), rig.attempt(old)), (true, 2));
    assert!(matches!(rig.decisions[..], [.., Decision::Place { resumes: true, .. }]));
    assert_eq!(rig.machine.job(old).unwrap().preemptions, 1);
}

#[test]
fn nobody_stops_another_of_its_own_band_or_before_its_minimum() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let first = rig.submit(JobSpec { min_run_ms: 4 * HOUR, ..gpus(8) });
    let second = rig.submit(gpus(8));
    assert_eq!(suspended(&rig.pass(50 * MINUTE)), [], "both had less than eight GPU-hours");
    assert_eq!(suspended(&rig.pass(3 * HOUR)), [], "it said that it runs for four hours");
    let told = rig.pass(30 * MINUTE);
    assert_eq!(suspended(&told), [(first, Cause::Preempted { by: second })]);
}

#[test]
fn a_higher_priority_does_not_wait_for_its_patience() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let idle = rig.submit(JobSpec { priority: Priority::Idle, ..gpus(8) });
    let normal = rig.submit(gpus(8));
    rig.pass(MINUTE);
    let high = rig.submit(JobSpec { priority: Priority::High, ..gpus(8) });
    // The least of the two has to go, and one that takes what is left over has no minimum.
    assert_eq!(suspended(&rig.decisions), [(idle, Cause::Preempted { by: high })]);
    assert!(rig.runs(normal));
}

#[test]
fn a_job_that_does_not_stop_is_killed_after_its_grace_and_nobody_starts_before() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let idle = rig.submit(JobSpec { priority: Priority::Idle, grace_ms: 7_000, ..gpus(8) });
    let high = rig.submit(JobSpec { priority: Priority::High, ..gpus(8) });
    let told = rig.pass(6_000);
    assert!(!told.iter().any(|decision| matches!(decision, Decision::Kill { .. })));
    let told = rig.pass(2_000);
    assert_eq!(told, [Decision::Kill { job: idle, attempt: 1, cause: Cause::GracePassed }]);
    rig.pass(HOUR);
    assert!(!rig.runs(high), "something of the other may be left");
    rig.stopped(idle);
    assert!(rig.runs(high));
}

#[test]
fn nobody_is_stopped_for_a_plan_that_does_not_let_the_job_run() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let stays = rig.submit(JobSpec { preemptible: false, ..gpus(8) });
    let idle = rig.submit(JobSpec { priority: Priority::Idle, ..gpus(8) });
    let gang = rig.submit(JobSpec { priority: Priority::High, ..nodes(2) });
    assert_eq!(suspended(&rig.pass(10 * HOUR)), []);
    assert!(rig.runs(stays) && rig.runs(idle) && rig.waits(gang));
}

#[test]
fn nobody_is_stopped_for_what_is_free_soon() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 3));
    let (wide, small) = (rig.submit(nodes(2)), rig.submit(nodes(1)));
    rig.pass(HOUR);
    let urgent = |spec| JobSpec { priority: Priority::High, ..spec };
    let first = rig.submit(urgent(nodes(2)));
    assert!(!rig.runs(wide) && rig.runs(small), "it stops whoever has what it needs");
    rig.stopped(wide);
    rig.exit(first);
    // Of what two nodes had one stays free: the next one waits for it.
    rig.pass(HOUR);
    let one = rig.submit(urgent(nodes(1)));
    let other = rig.submit(urgent(gpus(1)));
    assert!(rig.runs(small), "{:?}", rig.decisions);
    rig.stopped(wide);
    assert!(rig.runs(one) && rig.runs(other) && rig.runs(small));
}

#[test]
fn a_gang_takes_only_what_it_needs() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    let idle = |spec| JobSpec { priority: Priority::Idle, ..spec };
    let (pair, one) = (rig.submit(idle(nodes(2))), rig.submit(idle(nodes(1))));
    // One node is free.
    let gang = rig.submit(JobSpec { priority: Priority::High, ..nodes(2) });
    let told = suspended(&rig.decisions);
    assert_eq!(told, [(one, Cause::Preempted { by: gang })], "and not the pair");
    assert!(rig.runs(pair));
}

#[test]
fn claimed_nodes_go_to_nobody_else_and_are_given_back_with_the_job() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let idle = rig.submit(JobSpec { priority: Priority::Idle, ..nodes(1) });
    let gang = rig.submit(JobSpec { priority: Priority::High, ..nodes(2) });
    assert_eq!(rig.machine.why(gang), Why::Stopping { jobs: vec![idle] });
    let small = rig.submit(gpus(1));
    assert!(rig.waits(small), "the free node is promised");
    rig.tell(ff2_sched_core::Event::Cancel(gang));
    assert!(rig.runs(small));
    rig.stopped(idle);
    assert!(rig.runs(idle), "what was stopped in vain goes on");
}

#[test]
fn small_jobs_move_together_so_that_a_larger_one_starts() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    // Two jobs of six and two small ones: then both large ones end, and a GPU is in use on each node.
    let large = [rig.submit(gpus(6)), rig.submit(gpus(6))];
    let small = [rig.submit(gpus(2)), rig.submit(gpus(2))];
    large.into_iter().for_each(|job| rig.exit(job));
    assert_ne!(rig.on(small[0]), rig.on(small[1]));
    rig.pass(HOUR);
    let whole = rig.submit(gpus(8));
    let told = rig.pass(6 * MINUTE);
    let [(moved, Cause::Moved { to_start, gpus: 8 })] = suspended(&told)[..] else {
        panic!("one moves, for a stated gain: {told:?}")
    };
    assert!(to_start == whole && small.contains(&moved));
    rig.stopped(moved);
    assert!(rig.runs(whole) && rig.runs(moved));
    assert_eq!(rig.on(small[0]), rig.on(small[1]));
    assert_eq!(rig.machine.job(moved).unwrap().moves, 1);
}

#[test]
fn what_runs_stays_where_it_is_without_a_gain() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let large = [rig.submit(gpus(6)), rig.submit(gpus(6))];
    let small = [rig.submit(gpus(2)), rig.submit(gpus(2))];
    large.into_iter().for_each(|job| rig.exit(job));
    assert_eq!(suspended(&rig.pass(100 * HOUR)), [], "nobody waits for a whole node");
    // To start six GPUs nobody has to move at all.
    rig.submit(gpus(6));
    assert_eq!(suspended(&rig.pass(100 * HOUR)), []);
    assert!(small.into_iter().all(|job| rig.runs(job)));
}

#[test]
fn what_ran_long_is_spared_by_its_equals_for_longer_and_by_a_higher_priority_not() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let old = rig.submit(gpus(8));
    rig.pass(100 * HOUR);
    let first = rig.submit(gpus(8));
    rig.pass(10 * MINUTE);
    rig.stopped(old);
    rig.exit(first);
    // It goes on, and five hours are a twentieth of what it ran.
    assert!(rig.runs(old));
    let equal = rig.submit(gpus(8));
    assert_eq!(suspended(&rig.pass(4 * HOUR)), []);
    let high = rig.submit(JobSpec { priority: Priority::High, ..gpus(8) });
    assert_eq!(suspended(&rig.decisions), [(old, Cause::Preempted { by: high })]);
    assert!(rig.waits(equal));
}

#[test]
fn what_moves_is_at_most_half_of_what_starts() {
    let moved = |gpus_each: [u32; 2]| {
        let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
        let filler = rig.submit(gpus(8));
        let first = rig.submit(gpus(gpus_each[0]));
        rig.exit(filler);
        let filler = rig.submit(gpus(8));
        let stays = JobSpec { preemptible: false, ..gpus(gpus_each[1]) };
        // Fills up what the first left, so that the other goes to the second node.
        let beside = rig.submit(gpus(8 - gpus_each[0]));
        rig.exit(filler);
        let second = rig.submit(stays);
        rig.exit(beside);
        assert_ne!(rig.on(first), rig.on(second));
        rig.pass(HOUR / 2);
        rig.pass(HOUR / 2);
        rig.submit(gpus(8));
        suspended(&rig.pass(10 * MINUTE)).iter().any(|(job, _)| *job == first)
    };
    assert!(moved([4, 4]));
    assert!(!moved([5, 3]), "there would be room for it");
}

/// Each minute one of sixteen ends and another begins, so there is always one that ran for less than the minimum.
#[test]
fn a_gang_of_a_higher_priority_waits_no_longer_than_runs_last_at_least() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 4, 4));
    let mut small: VecDeque<JobId> = (0..16).map(|_| rig.submit(gpus(8))).collect();
    let mut churn = |rig: &mut Rig| {
        rig.pass(MINUTE);
        let oldest = small.pop_front().unwrap();
        if rig.runs(oldest) {
            rig.exit(oldest);
        }
        small.push_back(rig.submit(gpus(8)));
    };
    (0..40).for_each(|_| churn(&mut rig));
    let gang = rig.submit(JobSpec { priority: Priority::High, ..nodes(16) });
    let mut told = Vec::new();
    let mut minutes = 0;
    while told.is_empty() && minutes < 120 {
        churn(&mut rig);
        told = rig
            .machine
            .jobs()
            .filter(|job| matches!(job.state, State::Stopping { .. }))
            .map(|job| job.id)
            .collect();
        minutes += 1;
    }
    assert!((29..=31).contains(&minutes), "{minutes}");
    told.into_iter().for_each(|job| rig.stopped(job));
    assert!(rig.runs(gang));
}
