//! What a snapshot has.

use ff2_sched_core::{Decision, Event, Foreign, JobSpec, NodeState, Policy, Priority, Scheduler};
use ff2_topology::NodeId;

use crate::rig::{HOUR, Rig, gpus, network, nodes};

#[test]
fn a_machine_goes_on_from_its_facts_as_text() {
    let topology = network(1, 2, 2);
    let mut rig = Rig::new(Policy::ff2(), &topology);
    let (gang, part) = (rig.submit(nodes(3)), rig.submit(gpus(4)));
    rig.node(3, NodeState::Cordoned);
    rig.pass(HOUR);
    let waiting = rig.submit(gpus(8));
    let text = serde_json::to_string(&rig.machine.facts()).unwrap();
    let facts = serde_json::from_str(&text).unwrap();
    rig.machine = Scheduler::restore(&topology, facts).unwrap();
    assert!(rig.runs(gang) && rig.runs(part) && rig.waits(waiting));
    rig.exit(gang);
    assert!(rig.runs(waiting));
    let account = rig.machine.accounts()[""][""];
    assert_eq!(account.gpu_ms, (24 + 4) * HOUR, "what runs is charged hour by hour");
}

#[test]
fn facts_of_another_network_are_refused() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    rig.node(3, NodeState::Down);
    rig.tell(Event::Tick);
    let restored = Scheduler::restore(&network(1, 1, 2), rig.machine.facts());
    assert_eq!(restored.err(), Some(Foreign(NodeId(3))));
}

#[test]
fn a_new_leader_can_give_all_orders_again() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let idle = rig.submit(JobSpec { priority: Priority::Idle, grace_ms: 9_000, ..gpus(8) });
    let normal = rig.submit(gpus(8));
    let placed = rig.decisions.last().cloned().unwrap();
    rig.submit(JobSpec { priority: Priority::High, ..gpus(8) });
    rig.now += 2_000;
    rig.tell(Event::Tick);
    let orders = rig.machine.orders();
    assert_eq!(orders.len(), 2, "the third only has a promise: {orders:?}");
    let suspend = |order: &Decision| match order {
        Decision::Suspend { job, attempt, grace_ms, .. } => {
            (*job, *attempt, *grace_ms) == (idle, 1, 7_000)
        }
        _ => false,
    };
    assert!(orders.iter().any(suspend) && orders.contains(&placed), "{orders:?}");
    assert!(rig.runs(normal));
}
