//! Quotas and accounts.

use ff2_sched_core::{Decision, Event, JobSpec, Policy, Priority, QuotaKey, Refusal, Why};

use crate::rig::{HOUR, Rig, gpus, network};

fn of(user: &str, spec: JobSpec) -> JobSpec {
    JobSpec { user: user.into(), group: "lab".into(), ..spec }
}

#[test]
fn a_quota_holds_its_jobs_and_nobody_elses() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let key = QuotaKey { user: Some("ann".into()), ..QuotaKey::default() };
    rig.tell(Event::Quota { key: key.clone(), limit: Some(5) });
    let first = rig.submit(of("ann", gpus(4)));
    let held = rig.submit(of("ann", gpus(2)));
    let other = rig.submit(of("bob", gpus(2)));
    assert!(rig.runs(first) && rig.waits(held) && rig.runs(other));
    let Why::Quota { key: named, allowance, gpus: 2 } = rig.machine.why(held) else {
        panic!("{:?}", rig.machine.why(held))
    };
    assert_eq!((named, allowance.used, allowance.limit), (key.clone(), 4, 5));
    let small = rig.submit(of("ann", gpus(1)));
    assert!(rig.runs(small), "there is room for one");
    rig.exit(first);
    assert!(rig.runs(held));
    rig.tell(Event::Submit(Box::new(of("ann", gpus(6)))));
    assert_eq!(rig.decisions, [Decision::Refused(Refusal::AboveQuota { key, gpus: 6, limit: 5 })]);
}

#[test]
fn a_quota_is_for_a_user_a_priority_and_a_group_together() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let key = QuotaKey {
        user: Some("ann".into()),
        priority: Some(Priority::High),
        group: Some("lab".into()),
    };
    rig.tell(Event::Quota { key: key.clone(), limit: Some(4) });
    let high = |gpus: JobSpec| JobSpec { priority: Priority::High, ..gpus };
    let first = rig.submit(of("ann", high(gpus(4))));
    let (held, normal) = (rig.submit(of("ann", high(gpus(1)))), rig.submit(of("ann", gpus(1))));
    assert!(rig.runs(first) && rig.waits(held) && rig.runs(normal));
    rig.tell(Event::Quota { key, limit: None });
    assert!(rig.runs(held));
}

#[test]
fn what_a_job_had_is_charged_to_its_user_by_its_priority() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let normal = rig.submit(of("ann", gpus(4)));
    rig.pass(HOUR / 2);
    let high = rig.submit(of("ann", JobSpec { priority: Priority::High, ..gpus(2) }));
    rig.pass(HOUR / 2);
    rig.exit(normal);
    rig.exit(high);
    let ann = rig.machine.accounts()["lab"]["ann"];
    assert_eq!((ann.gpu_ms, ann.jobs_ended), (5 * HOUR, 2));
    // Four GPU-hours, and one at one and a half times the price.
    assert_eq!(ann.cost_milli, 5_500);
}
