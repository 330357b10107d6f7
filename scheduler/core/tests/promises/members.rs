//! Arrays, services, jobs that come after others, and what becomes of submissions.

use ff2_sched_core::{
    After, Cause, Decision, Dependency, Event, JobId, JobSpec, Many, Must, Outcome, Policy,
    Priority, QuotaKey, Refusal, Resources, Scheduler, Why,
};

use crate::rig::{HOUR, MINUTE, Rig, gpus, network, nodes};

fn after_all(of: &[(JobId, Must)]) -> After {
    let of = of.iter().map(|(job, must)| Dependency { job: *job, must: *must });
    After { of: of.collect(), ..After::default() }
}

fn after(job: JobId, must: Must) -> JobSpec {
    JobSpec { after: after_all(&[(job, must)]), ..gpus(1) }
}

#[test]
fn a_job_waits_for_those_it_comes_after() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let first = rig.submit(gpus(1));
    let (good, any) =
        (rig.submit(after(first, Must::Succeed)), rig.submit(after(first, Must::End)));
    let bad = rig.submit(after(first, Must::Fail));
    assert_eq!(rig.machine.why(good), Why::Dependencies { jobs: vec![first] });
    rig.fail(first);
    assert_eq!(rig.ended(good), Some(Outcome::DependencyFailed));
    assert!(rig.runs(any) && rig.runs(bad));
    rig.exit(any);
    let late = rig.submit(after(any, Must::Succeed));
    assert!(rig.runs(late), "what it comes after has ended well");
    let never = rig.submit(after(any, Must::Fail));
    assert_eq!(rig.ended(never), Some(Outcome::DependencyFailed), "what had to fail ended well");
    rig.tell(Event::Submit(Box::new(after(JobId(999), Must::Succeed))));
    assert_eq!(rig.decisions, [Decision::Refused(Refusal::NoSuchDependency(JobId(999)))]);
}

#[test]
fn a_job_goes_when_another_has_begun() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let full = rig.submit(gpus(8));
    let first = rig.submit(gpus(4));
    let then = rig.submit(after(first, Must::Start));
    assert_eq!(rig.machine.why(then), Why::Dependencies { jobs: vec![first] });
    rig.exit(full);
    assert!(rig.runs(first) && rig.runs(then), "in the step in which the other began");
    let waits = rig.submit(gpus(8));
    let then = rig.submit(after(waits, Must::Start));
    assert!(!rig.runs(then));
    rig.tell(Event::Cancel(waits));
    assert!(rig.runs(then), "as with Slurm: what was cancelled need not begin");
}

#[test]
fn of_several_one_may_be_enough() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let (a, b) = (rig.submit(gpus(1)), rig.submit(gpus(1)));
    let both = after_all(&[(a, Must::Succeed), (b, Must::Succeed)]);
    let any = After { any: true, ..both.clone() };
    let all = rig.submit(JobSpec { after: both, ..gpus(1) });
    let one = rig.submit(JobSpec { after: any.clone(), ..gpus(1) });
    rig.fail(a);
    assert_eq!(rig.ended(all), Some(Outcome::DependencyFailed));
    assert_eq!(rig.machine.why(one), Why::Dependencies { jobs: vec![b] });
    rig.exit(b);
    assert!(rig.runs(one));
    let (c, d) = (rig.submit(gpus(1)), rig.submit(gpus(1)));
    let any = after_all(&[(c, Must::Succeed), (d, Must::Succeed)]);
    let none = rig.submit(JobSpec { after: After { any: true, ..any }, ..gpus(1) });
    rig.fail(c);
    assert_eq!(rig.ended(none), None);
    rig.fail(d);
    assert_eq!(rig.ended(none), Some(Outcome::DependencyFailed));
}

#[test]
fn a_singleton_waits_for_all_of_its_name() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let named = |user: &str, singleton| JobSpec {
        name: "nightly".into(),
        user: user.into(),
        after: After { singleton, ..After::default() },
        ..gpus(1)
    };
    let first = rig.submit(named("ann", false));
    let second = rig.submit(named("ann", true));
    let third = rig.submit(named("ann", true));
    let others = rig.submit(named("bob", true));
    assert!(rig.runs(others), "another one's");
    assert_eq!(rig.machine.why(third), Why::Singleton { after: first });
    rig.exit(first);
    assert!(rig.runs(second) && !rig.runs(third));
    rig.tell(Event::Cancel(second));
    rig.stopped(second);
    assert!(rig.runs(third));
}

#[test]
fn of_an_array_so_many_run_at_once() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let many = Many::Array { count: 5, at_once: 2 };
    let first = rig.submit(JobSpec { many, ..gpus(1) });
    let all: Vec<JobId> = (0..5).map(|index| JobId(first.0 + index)).collect();
    let running = |rig: &Rig| all.iter().filter(|job| rig.runs(**job)).count();
    assert_eq!(running(&rig), 2);
    assert_eq!(rig.machine.why(all[4]), Why::ArrayIsFull { at_once: 2 });
    rig.exit(all[0]);
    assert!(rig.runs(all[2]) && running(&rig) == 2);
    // With the first of it all of it is cancelled, though that one has ended.
    rig.tell(Event::Cancel(first));
    rig.stopped(all[1]);
    rig.stopped(all[2]);
    assert!(all[1..].iter().all(|job| rig.ended(*job) == Some(Outcome::Cancelled)));
}

#[test]
fn what_is_on_hold_waits_until_it_is_resumed() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let job = rig.submit(nodes(1));
    rig.tell(Event::Suspend(job));
    assert!(matches!(rig.decisions[..], [Decision::Suspend { cause: Cause::Asked, .. }]));
    rig.stopped(job);
    assert_eq!((rig.machine.why(job), rig.runs(job)), (Why::OnHold, false));
    let other = rig.submit(nodes(1));
    rig.tell(Event::Resume(job));
    assert!(rig.waits(job) && rig.runs(other));
    // One that waits is held as well, and an array's others go in its place.
    rig.tell(Event::Suspend(job));
    rig.exit(other);
    assert!(!rig.runs(job));
    let many = Many::Array { count: 3, at_once: 1 };
    let first = rig.submit(JobSpec { many, ..gpus(1) });
    let second = JobId(first.0 + 1);
    rig.tell(Event::Suspend(second));
    rig.exit(first);
    assert!(rig.runs(JobId(first.0 + 2)) && !rig.runs(second));
    rig.exit(JobId(first.0 + 2));
    assert_eq!(rig.machine.why(second), Why::OnHold);
    rig.tell(Event::Resume(second));
    assert!(rig.runs(second));
}

#[test]
fn a_run_that_was_cut_off_is_no_failure_of_the_job() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let job = rig.submit(nodes(1));
    let lost = Event::Lost { job, attempt: rig.attempt(job) };
    rig.tell(lost.clone());
    assert!(rig.runs(job) && rig.attempt(job) == 2, "it is started again");
    rig.tell(lost);
    assert_eq!(rig.attempt(job), 2, "told twice");
    rig.tell(Event::Requeue(job));
    rig.stopped(job);
    assert_eq!(rig.attempt(job), 3);
}

#[test]
fn a_service_keeps_its_least_replicas_and_gives_the_others_up() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 3));
    let many = Many::Service { min: 1, max: 3 };
    let first = rig.submit(JobSpec { many, ..gpus(8) });
    let [a, b, c] = [0, 1, 2].map(|index| JobId(first.0 + index));
    assert!([a, b, c].iter().all(|job| rig.runs(*job)));
    let normal = rig.submit(nodes(2));
    rig.pass(HOUR);
    rig.stopped(b);
    rig.stopped(c);
    assert!(rig.runs(a) && rig.runs(normal) && rig.waits(b) && rig.waits(c));
    // A replica that ends is started again.
    rig.exit(a);
    assert!(rig.runs(a) && rig.attempt(a) == 2);
    rig.tell(Event::Scale { service: first, min: 1, max: 2 });
    assert_eq!(rig.ended(c), Some(Outcome::Cancelled));
    rig.exit(normal);
    rig.tell(Event::Scale { service: first, min: 3, max: 3 });
    let replicas = rig.machine.jobs().filter(|job| job.spec.many != Many::One);
    let always =
        replicas.filter(|job| !job.spec.preemptible && job.spec.priority == Priority::Normal);
    assert_eq!(always.count(), 3);
    assert_eq!(rig.machine.gpus(), (24, 0));
}

#[test]
fn a_job_that_fails_is_started_again_so_often_and_is_the_same() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let job = rig.submit(JobSpec { restarts: 1, ..gpus(1) });
    rig.pass(HOUR);
    rig.fail(job);
    assert!(rig.runs(job) && rig.attempt(job) == 2);
    assert_eq!(rig.machine.job(job).unwrap().service(rig.now), HOUR);
    // What is told late of the first run says nothing of the second.
    rig.tell(Event::Exited { job, attempt: 1, succeeded: true });
    rig.tell(Event::Stopped { job, attempt: 1 });
    assert!(rig.runs(job));
    rig.fail(job);
    assert_eq!(rig.ended(job), Some(Outcome::Failed));
}

#[test]
fn a_time_limit_ends_a_job() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 1));
    let job = rig.submit(JobSpec { limit_ms: Some(HOUR), ..gpus(1) });
    rig.pass(HOUR + 1);
    assert!(!rig.runs(job));
    rig.stopped(job);
    assert_eq!(rig.ended(job), Some(Outcome::Failed));
}

#[test]
fn what_can_never_run_is_refused_with_the_reason() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let mut told = |spec: JobSpec| {
        rig.tell(Event::Submit(Box::new(spec)));
        match &rig.decisions[..] {
            [Decision::Refused(refusal)] => refusal.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(nodes(0)), Refusal::Empty);
    assert_eq!(told(gpus(9)), Refusal::TaskTooLarge);
    assert_eq!(told(nodes(3)), Refusal::GangTooLarge { wanted: 3, most: 2 });
    let half = JobSpec { tasks: 5, task: Resources { gpus: 4, cpus: 0, memory: 0 }, ..gpus(4) };
    assert_eq!(told(half), Refusal::GangTooLarge { wanted: 5, most: 4 });
    let none = Many::Array { count: 0, at_once: 0 };
    assert_eq!(told(JobSpec { many: none, ..gpus(1) }), Refusal::Members(none));
}

#[test]
fn a_job_comes_some_minutes_after_another_began() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let first = rig.submit(nodes(2));
    let minutes = |minutes: u64| Must::StartBefore { ms: minutes * MINUTE };
    let later = |must| JobSpec { after: after_all(&[(first, must)]), ..gpus(1) };
    rig.pass(4 * MINUTE);
    let soon = rig.submit(later(minutes(10)));
    let late = rig.submit(later(minutes(60)));
    assert_eq!(rig.machine.why(soon), Why::NotBefore { at_ms: 10 * MINUTE });
    // What comes of the first one changes nothing.
    rig.pass(2 * MINUTE);
    rig.exit(first);
    rig.pass(3 * MINUTE);
    assert!(!rig.runs(soon));
    assert_eq!(rig.machine.next_due(), Some(10 * MINUTE));
    rig.pass(MINUTE);
    assert!(rig.runs(soon) && !rig.runs(late));
    // A restored machine waits as long.
    let facts = rig.machine.facts();
    rig.machine = Scheduler::restore(&network(1, 1, 2), facts).unwrap();
    rig.pass(49 * MINUTE);
    assert!(!rig.runs(late));
    rig.pass(2 * MINUTE);
    assert!(rig.runs(late));
    // Of one that is over nobody knows when it began.
    let at_once = rig.submit(later(minutes(60)));
    assert!(rig.runs(at_once));
}

#[test]
fn replicas_without_gpus_are_on_nodes_of_their_own_while_there_are_any() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let task = Resources { gpus: 0, cpus: 1, memory: 0 };
    let many = Many::Service { min: 2, max: 3 };
    let first = rig.submit(JobSpec { task, many, ..gpus(0) });
    let node = |rig: &Rig, first: JobId, index: u64| {
        let job = rig.machine.job(JobId(first.0 + index)).unwrap();
        job.placement().unwrap().nodes().next()
    };
    assert_ne!(node(&rig, first, 0), node(&rig, first, 1));
    assert!(rig.runs(JobId(first.0 + 2)), "a third one shares");
    // Those with GPUs leave whole nodes to others.
    let task = Resources { gpus: 1, cpus: 1, memory: 0 };
    let first = rig.submit(JobSpec { task, many, ..gpus(1) });
    assert_eq!(node(&rig, first, 0), node(&rig, first, 1));
}

#[test]
fn a_service_is_not_scaled_beyond_a_quota_and_what_waits_is_held_by_it() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let key = QuotaKey { priority: Some(Priority::Normal), ..QuotaKey::default() };
    rig.tell(Event::Quota { key: key.clone(), limit: Some(4) });
    let many = Many::Service { min: 1, max: 3 };
    let service = rig.submit(JobSpec { many, ..gpus(2) });
    let replicas: Vec<JobId> = (0..3).map(|index| JobId(service.0 + index)).collect();
    assert!(replicas.iter().all(|job| rig.runs(*job)), "two of them with what is left over");
    rig.tell(Event::Scale { service, min: 2, max: 3 });
    assert_eq!(rig.machine.quotas()[&key].used, 4, "the second counts now as well");
    rig.tell(Event::Scale { service, min: 3, max: 3 });
    let refused = Refusal::ScaledAboveQuota { key: key.clone(), gpus: 2, used: 4, limit: 4 };
    assert_eq!(rig.decisions, [Decision::Refused(refused)]);
    let third = rig.machine.job(replicas[2]).unwrap();
    assert_eq!(
        (third.spec.priority, third.spec.many),
        (Priority::Idle, Many::Service { min: 2, max: 3 })
    );
    rig.tell(Event::Quota { key: key.clone(), limit: Some(6) });
    rig.tell(Event::Scale { service, min: 4, max: 4 });
    let fourth = rig.machine.jobs().last().unwrap().id;
    assert_eq!(rig.machine.quotas()[&key].used, 6);
    assert!(
        matches!(rig.machine.why(fourth), Why::Quota { gpus: 2, .. }),
        "it waits for the quota"
    );
}
