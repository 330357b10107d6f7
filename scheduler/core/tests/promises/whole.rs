//! Whole nodes, and nodes of different sizes.

use ff2_sched_core::{Decision, Event, JobId, JobSpec, Policy, QuotaKey, Refusal, Resources, Why};
use ff2_topology::{Description, LeafSwitch, NodeId, Port, Role, Server, Topology};

use crate::rig::{HOUR, Rig, gpus, nodes};

/// One leaf, with nodes that have so many GPUs.
fn sized(sizes: &[u32]) -> Topology {
    let leaf = LeafSwitch { name: "l".into(), zone: "z".into(), pod: String::new() };
    let node = |(at, gpus): (usize, &u32)| Server {
        name: format!("n{at}"),
        role: Role::Compute { gpus: *gpus },
        ports: vec![Port { leaf: "l".into(), gbit_per_s: 200 }],
    };
    let nodes = sizes.iter().enumerate().map(node).collect();
    Topology::new(&Description { leaves: vec![leaf], nodes }).unwrap()
}

fn rig(sizes: &[u32]) -> Rig {
    Rig::new(Policy::ff2(), &sized(sizes))
}

/// Whole nodes with so many GPUs at least.
fn whole(tasks: u32, least: u32) -> JobSpec {
    let task = Resources { gpus: least, cpus: 1, memory: 0 };
    JobSpec { tasks, task, exclusive: true, user: "ann".into(), ..JobSpec::default() }
}

fn lies_on(rig: &Rig, job: JobId) -> Vec<u32> {
    let job = rig.machine.job(job).unwrap();
    job.placement().into_iter().flat_map(|placement| placement.nodes()).map(|node| node.0).collect()
}

#[test]
fn who_has_a_whole_node_has_all_of_it_whatever_its_size_and_pays_for_that() {
    let mut rig = rig(&[4, 8]);
    let first = rig.submit(whole(1, 2));
    assert_eq!(lies_on(&rig, first), [0], "the smallest that has two GPUs");
    assert_eq!(rig.machine.size_of(NodeId(0)).1, rig.machine.size_of(NodeId(0)).0);
    let beside = rig.submit(gpus(1));
    assert_eq!(lies_on(&rig, beside), [1], "nobody else comes there");
    let second = rig.submit(whole(1, 2));
    assert!(rig.waits(second), "somebody has a GPU of the other one");
    assert_eq!(
        rig.machine.why(second),
        Why::Fragmented { gpus: 4, free: 7, tasks: 1, fit: 0 },
        "seven are free, but no whole node"
    );
    rig.pass(HOUR);
    rig.exit(first);
    let ann = rig.machine.accounts()[""]["ann"];
    assert_eq!(ann.gpu_ms, 4 * HOUR, "of the two that it needed at least it had four");
    assert_eq!(lies_on(&rig, second), [0]);
}

#[test]
fn counts_are_what_a_node_must_have_at_least() {
    let mut rig = rig(&[4, 8, 8]);
    let both = rig.submit(whole(2, 6));
    assert_eq!(lies_on(&rig, both), [1, 2]);
    rig.tell(Event::Submit(Box::new(whole(3, 6))));
    let most = Refusal::GangTooLarge { wanted: 3, most: 2 };
    assert_eq!(rig.decisions, [Decision::Refused(most)]);
    rig.tell(Event::Submit(Box::new(whole(1, 9))));
    assert_eq!(rig.decisions, [Decision::Refused(Refusal::TaskTooLarge)]);
}

#[test]
fn a_quota_has_room_for_the_largest_nodes_that_a_job_may_get() {
    let mut rig = rig(&[4, 8]);
    let key = QuotaKey { user: Some("ann".into()), ..QuotaKey::default() };
    rig.tell(Event::Quota { key: key.clone(), limit: Some(6) });
    rig.tell(Event::Submit(Box::new(whole(1, 2))));
    let above = Refusal::AboveQuota { key: key.clone(), gpus: 8, limit: 6 };
    assert_eq!(rig.decisions, [Decision::Refused(above)], "it may get the larger one");
    rig.tell(Event::Quota { key: key.clone(), limit: Some(10) });
    let first = rig.submit(whole(1, 2));
    assert_eq!(rig.machine.quotas()[&key].used, 4, "what it has counts, once it has it");
    let second = rig.submit(whole(1, 2));
    assert!(rig.runs(first) && rig.waits(second));
    assert!(matches!(rig.machine.why(second), Why::Quota { gpus: 8, .. }));
}

#[test]
fn small_tasks_leave_large_nodes_alone() {
    let mut rig = rig(&[8, 4, 8]);
    let first = rig.submit(gpus(4));
    assert_eq!(lies_on(&rig, first), [1], "the smallest node that is enough");
    let (second, third) = (rig.submit(gpus(4)), rig.submit(gpus(2)));
    assert_eq!([lies_on(&rig, second), lies_on(&rig, third)], [[0], [0]]);
    let large = rig.submit(nodes(1));
    assert_eq!(lies_on(&rig, large), [2]);
    assert_eq!(rig.machine.largest_gang(Resources { gpus: 2, cpus: 0, memory: 0 }), 1);
}

#[test]
fn a_node_that_becomes_smaller_keeps_what_runs_there_and_gets_nothing_new() {
    let mut rig = rig(&[8]);
    let task = Resources { gpus: 1, cpus: 30, memory: 1_000 };
    let of = |task| JobSpec { task, ..JobSpec::default() };
    let jobs = [rig.submit(of(task)), rig.submit(of(task))];
    rig.tell(Event::Size { node: NodeId(0), cpus: 40, memory: 2_000 });
    assert!(jobs.iter().all(|job| rig.runs(*job)));
    let small = rig.submit(of(Resources { gpus: 1, cpus: 0, memory: 0 }));
    assert!(rig.waits(small), "its cores are more than used up");
    rig.exit(jobs[0]);
    assert!(rig.runs(small));
    rig.tell(Event::Size { node: NodeId(0), cpus: 64, memory: 4_000 });
    let again = rig.submit(of(task));
    assert!(rig.runs(again), "it is larger again");
}
