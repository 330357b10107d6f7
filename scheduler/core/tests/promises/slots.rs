//! When jobs write their checkpoints. That no moment has too much is checked after each step of all tests.

use ff2_sched_core::{
    Checkpoint, CheckpointSlot, Event, JobId, JobSpec, NodeState, Policy, Scheduler,
};

use crate::rig::{MINUTE, Rig, network, nodes};

const GIB: u64 = 1 << 30;

/// So many nodes that save every five minutes.
fn saving(tasks: u32, gib_of_node: u64) -> JobSpec {
    let checkpoint =
        Checkpoint { bytes: gib_of_node * GIB, step_ms: 5_000, ..Checkpoint::default() };
    JobSpec { checkpoint: Some(checkpoint), ..nodes(tasks) }
}

fn slots(rig: &Rig, jobs: &[JobId]) -> Vec<Option<CheckpointSlot>> {
    jobs.iter().map(|job| rig.machine.slot(*job)).collect()
}

#[test]
fn a_job_has_a_slot_while_it_runs() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 1, 2));
    let plain = rig.submit(nodes(1));
    let saves = rig.submit(saving(1, 70));
    let waits = rig.submit(saving(1, 70));
    assert_eq!(slots(&rig, &[plain, waits]), [None, None]);
    let slot = rig.machine.slot(saves).unwrap();
    // It is alone: it writes for as long as it may.
    assert_eq!((slot.every_ms, slot.length_ms), (300_000, 295_000));
    assert_eq!(slot.bytes_per_s, (70 * GIB).div_ceil(295));
    rig.pass(7 * MINUTE);
    rig.tell(Event::Suspend(saves));
    let last = rig.machine.slot(saves).unwrap();
    assert_eq!(last.phase_ms, rig.now % 300_000, "it saves at once now");
    rig.stopped(saves);
    assert_eq!(rig.machine.slot(saves), None);
    assert!(rig.runs(waits) && rig.machine.slot(waits).is_some());
    rig.exit(waits);
    rig.tell(Event::Resume(saves));
    assert!(rig.machine.slot(saves).is_some());
    rig.node(rig.on(saves)[0], NodeState::Down);
    assert_eq!(rig.machine.slot(saves), None);
}

#[test]
fn who_runs_keeps_its_slot_when_others_come() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 8, 8));
    let first: Vec<JobId> = (0..32).map(|_| rig.submit(saving(1, 64))).collect();
    let before = slots(&rig, &first);
    for _ in 0..32 {
        rig.submit(saving(1, 64));
    }
    assert_eq!(slots(&rig, &first), before);
    rig.pass(30 * MINUTE);
    assert_eq!(slots(&rig, &first), before);
}

#[test]
fn where_too_much_is_left_by_those_who_end_few_have_other_slots() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 8, 8));
    let all: Vec<JobId> = (0..64).map(|_| rig.submit(saving(1, 64))).collect();
    let writes_at_0 = |slot: CheckpointSlot| slot.phase_ms + slot.length_ms > slot.every_ms;
    let (left, gone): (Vec<JobId>, Vec<JobId>) =
        all.iter().partition(|job| writes_at_0(rig.machine.slot(**job).unwrap()));
    assert!(left.len() > 8 && gone.len() > 8, "{} and {}", left.len(), gone.len());
    let (mut changed, mut before) = (0, slots(&rig, &left));
    for job in gone {
        rig.exit(job);
        let now = slots(&rig, &left);
        changed += before.iter().zip(&now).filter(|(before, now)| before != now).count();
        before = now;
    }
    // Each had to move, or write for longer, as only those that write at one moment are left; but not each time.
    assert!((1..=4 * left.len()).contains(&changed), "{changed} of {}", left.len());
}

#[test]
fn below_what_nobody_minds_slots_are_as_short_as_they_can_be() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    rig.tell(Event::Storage { calm_bytes_per_s: 100 * GIB });
    let job = rig.submit(saving(4, 64));
    assert_eq!(rig.machine.slot(job).unwrap().length_ms, 150_000);
    rig.tell(Event::Storage { calm_bytes_per_s: 0 });
    assert_eq!(rig.machine.slot(job).unwrap().length_ms, 295_000);
}

/// With time for it those that stop write what they did before, and what is left: together no more than there may be.
#[test]
fn those_that_make_room_together_write_evenly() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 8, 8));
    let with_grace = |grace_ms| JobSpec { grace_ms, ..saving(1, 64) };
    let all: Vec<JobId> = (0..64).map(|_| rig.submit(with_grace(300_000))).collect();
    let mean = 64 * (64 * GIB) / 300;
    rig.pass(MINUTE);
    for job in &all[..32] {
        rig.tell(Event::Suspend(*job));
    }
    let rates: Vec<u64> =
        slots(&rig, &all[..32]).iter().map(|slot| slot.unwrap().bytes_per_s).collect();
    let lengths: Vec<u64> =
        slots(&rig, &all[..32]).iter().map(|slot| slot.unwrap().length_ms).collect();
    // Those that run are half, and have 109 % of that at most.
    let stopping = rates.iter().sum::<u64>();
    assert!(stopping < mean * 109 / 200 * 113 / 100, "{stopping} of {mean}");
    assert!(lengths.iter().all(|length| *length < 281_000), "{lengths:?}");
    // One alone has what others leave: it is done sooner.
    assert!(lengths[0] < 200_000, "{lengths:?}");
}

/// A job that is cancelled need not make room evenly: nobody waits for minutes until it is gone.
#[test]
fn who_makes_room_may_have_longer_than_who_is_cancelled() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    let spec = || JobSpec { grace_ms: 30_000, room_ms: 300_000, ..saving(1, 64) };
    let (held, cancelled) = (rig.submit(spec()), rig.submit(spec()));
    rig.pass(MINUTE);
    rig.tell(Event::Suspend(held));
    rig.tell(Event::Cancel(cancelled));
    let killed_at = |job| rig.machine.job(job).unwrap().killed_at_ms();
    assert_eq!(killed_at(held), Some(rig.now + 300_000));
    assert_eq!(killed_at(cancelled), Some(rig.now + 30_000));
    assert!(rig.machine.slot(cancelled).unwrap().length_ms < 30_000);
}

#[test]
fn who_has_little_time_saves_within_it() {
    let mut rig = Rig::new(Policy::ff2(), &network(1, 2, 2));
    let job = rig.submit(JobSpec { grace_ms: 30_000, ..saving(4, 64) });
    rig.pass(MINUTE);
    rig.tell(Event::Suspend(job));
    let slot = rig.machine.slot(job).unwrap();
    // Without the step that it is in, and a moment to say that all is saved.
    assert_eq!((slot.length_ms, slot.bytes_per_s), (23_500, (256_000 * GIB).div_ceil(23_500)));
    // What storage takes without anybody noticing goes faster.
    rig.stopped(job);
    rig.tell(Event::Storage { calm_bytes_per_s: 64 * GIB });
    rig.tell(Event::Resume(job));
    rig.pass(MINUTE);
    rig.tell(Event::Suspend(job));
    assert_eq!(rig.machine.slot(job).unwrap().length_ms, 4_000);
}

#[test]
fn slots_are_facts_and_facts_without_them_are_read() {
    let topology = network(1, 2, 2);
    let mut rig = Rig::new(Policy::ff2(), &topology);
    rig.tell(Event::Storage { calm_bytes_per_s: GIB });
    let jobs = [rig.submit(saving(2, 10)), rig.submit(saving(1, 20)), rig.submit(nodes(1))];
    let text = serde_json::to_string(&rig.machine.facts()).unwrap();
    let before = slots(&rig, &jobs);
    rig.machine = Scheduler::restore(&topology, serde_json::from_str(&text).unwrap()).unwrap();
    rig.machine.check();
    assert_eq!(slots(&rig, &jobs), before);

    let mut rig = Rig::new(Policy::ff2(), &topology);
    let job = rig.submit(nodes(1));
    let mut old = serde_json::to_value(rig.machine.facts()).unwrap();
    assert!(old.as_object_mut().unwrap().remove("calm_bytes_per_s").is_some());
    let of_job = old["jobs"][0].as_object_mut().unwrap();
    assert!(of_job.remove("slot").is_some());
    assert!(of_job["spec"].as_object_mut().unwrap().remove("checkpoint").is_some());
    let restored = Scheduler::restore(&topology, serde_json::from_value(old).unwrap()).unwrap();
    assert_eq!(restored.facts(), rig.machine.facts());
    assert_eq!(restored.slot(job), None);
}
