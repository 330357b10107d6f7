//! Who goes first, and what a job does not wait for.

use crate::rig::{HOUR, MINUTE, Rig, gpus, network, nodes};
use ff2_sched_core::{Job, JobSpec, Policy, Priority, State, Why};

fn limited(hours: u64, spec: JobSpec) -> JobSpec {
    JobSpec { limit_ms: Some(hours * HOUR), ..spec }
}

#[test]
fn in_the_order_of_submission_who_does_not_fit_holds_up_all_behind() {
    let mut rig = Rig::new(Policy::Fifo, &network(1, 1, 2));
    let (first, large, small) = (rig.submit(gpus(4)), rig.submit(nodes(2)), rig.submit(gpus(1)));
    assert!(rig.runs(first) && rig.waits(large) && rig.waits(small));
    assert_eq!(rig.machine.why(small), Why::Behind { jobs: 1 });
    rig.exit(first);
    assert!(rig.runs(large) && rig.waits(small));
}

#[test]
fn others_go_ahead_if_they_do_not_delay_the_reservation() {
    let mut rig = Rig::new(Policy::Easy, &network(1, 1, 2));
    let first = rig.submit(limited(2, nodes(1)));
    let large = rig.submit(limited(5, nodes(2)));
    let long = rig.submit(limited(3, gpus(8)));
    let short = rig.submit(limited(2, gpus(8)));
    assert!(rig.waits(large) && rig.waits(long), "it would end an hour after the large one begins");
    assert!(rig.runs(short));
    assert_eq!(rig.machine.starts_by(large), Some(2 * HOUR));
    rig.pass(HOUR);
    let unlimited = rig.submit(gpus(1));
    assert!(rig.waits(unlimited), "nobody knows when it ends");
    rig.exit(first);
    rig.exit(short);
    assert!(rig.runs(large) && rig.waits(long));
}

#[test]
fn a_higher_priority_goes_first_and_within_one_who_had_less() {
    let mut rig = Rig::new(Policy::las(), &network(1, 1, 1));
    let old = rig.submit(JobSpec { preemptible: false, ..gpus(8) });
    rig.pass(20 * HOUR);
    let normal = rig.submit(gpus(8));
    let high = rig.submit(JobSpec { priority: Priority::High, ..gpus(8) });
    rig.exit(old);
    assert!(rig.runs(high) && rig.waits(normal));
}

#[test]
fn small_jobs_do_not_wait_behind_a_large_one_that_does_not_fit() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    rig.submit(gpus(4));
    let large = rig.submit(nodes(2));
    let small = rig.submit(gpus(8));
    assert!(rig.waits(large) && rig.runs(small));
}

#[test]
fn a_group_that_used_more_than_its_share_goes_behind() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let of = |group: &str, spec: JobSpec| JobSpec { group: group.into(), ..spec };
    // Greed has used nearly all of late; the other two are known by a little.
    let modest = rig.submit(of("modest", gpus(1)));
    let quiet = rig.submit(of("quiet", gpus(1)));
    rig.exit(modest);
    rig.exit(quiet);
    rig.pass(10 * MINUTE);
    let blocker = rig.submit(of("greed", JobSpec { preemptible: false, ..nodes(2) }));
    for group in ["modest", "quiet"] {
        rig.submit(of(group, gpus(8)));
    }
    rig.pass(10 * HOUR);
    rig.exit(blocker);
    rig.pass(HOUR);
    let waiting = rig.submit(of("greed", nodes(2)));
    let later = rig.submit(of("modest", nodes(2)));
    let running: Vec<_> = rig.machine.jobs().filter(|job| rig.runs(job.id)).map(|j| j.id).collect();
    rig.pass(2 * HOUR);
    for job in running {
        rig.exit(job);
    }
    assert!(
        rig.runs(later) && rig.waits(waiting),
        "the other group comes first though it came later"
    );
}

/// One job that had so much that it is in the last band, and newcomers that never end: how often it ran.
fn turns(policy: Policy) -> u32 {
    let mut rig = Rig::new(policy, &network(1, 1, 1));
    let old = rig.submit(gpus(8));
    rig.pass(300 * HOUR);
    for _ in 0..200 {
        rig.submit(gpus(8));
        rig.pass(24 * HOUR);
        let stops = |job: &&Job| matches!(job.state, State::Stopping { .. });
        let stopping: Vec<_> = rig.machine.jobs().filter(stops).map(|job| job.id).collect();
        stopping.into_iter().for_each(|job| rig.stopped(job));
    }
    rig.attempt(old)
}

#[test]
fn who_waits_long_enough_gets_a_turn() {
    assert_eq!(turns(Policy::las()), 1, "without that it starves");
    assert!(turns(Policy::ff2()) > 1);
}

#[test]
fn with_bands_too_a_gang_that_can_stop_nobody_has_a_reservation() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 3));
    let stays = |spec| JobSpec { preemptible: false, ..spec };
    let first = rig.submit(stays(limited(2, nodes(1))));
    let second = rig.submit(stays(limited(6, nodes(1))));
    let gang = rig.submit(nodes(2));
    assert!(rig.runs(first) && rig.runs(second) && rig.waits(gang));
    rig.pass(10 * MINUTE);
    assert_eq!(rig.machine.starts_by(gang), Some(2 * HOUR));
    // The third node is free: only who is gone by then gets it.
    let (long, short) = (rig.submit(limited(4, nodes(1))), rig.submit(limited(1, nodes(1))));
    let endless = rig.submit(gpus(1));
    assert!(rig.waits(long) && rig.runs(short) && rig.waits(endless));
    rig.exit(short);
    assert!(rig.waits(long) && rig.waits(endless));
    rig.exit(first);
    assert!(rig.runs(gang) && rig.waits(long));
}
