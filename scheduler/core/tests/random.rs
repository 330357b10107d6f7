//! Random facts, and all that must hold after each of them.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};

use ff2_sched_core::{
    After, Bands, Checkpoint, Config, Decision, Dependency, Event, Facts, JobId, JobSpec, Many,
    Must, NodeState, Policy, Priority, QuotaKey, Resources, Scheduler, Scope, State,
};
use ff2_topology::{FatTree, LeafId, NodeId, Role, Topology};

/// SplitMix64: a run is a function of its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const NODES: u64 = 24;

/// Of nodes of different sizes every fourth has half the GPUs, and every fourth twice as many.
fn network(nodes: Nodes) -> Topology {
    let tree = FatTree {
        zones: 2,
        leaves: 3,
        ports: 4,
        compute: 12,
        gpus: 8,
        storage: 0,
        gbit_per_s: 200,
    };
    let mut description = tree.describe().unwrap();
    if nodes == Nodes::Mixed {
        let compute =
            description.nodes.iter_mut().filter(|node| matches!(node.role, Role::Compute { .. }));
        for (at, node) in compute.enumerate() {
            node.role = Role::Compute { gpus: [8, 4, 16, 8][at % 4] };
        }
    }
    Topology::new(&description).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nodes {
    Equal,
    /// They have different GPUs, cores and memory, and the latter two change.
    Mixed,
}

/// What nodes have as they were told last, by the test's own books.
struct Sizes(BTreeMap<NodeId, Resources>);

impl Sizes {
    fn of(machine: &Scheduler, topology: &Topology) -> Self {
        Self(topology.nodes().map(|(id, _)| (id, machine.size_of(id).0)).collect())
    }

    fn tell(&mut self, event: &Event) {
        if let Event::Size { node, cpus, memory } = *event {
            let size = self.0.get_mut(&node).unwrap();
            (size.cpus, size.memory) = (cpus, memory);
        }
    }

    /// Where something was placed there is enough for all that lies there, and who wants it whole is alone.
    fn check(&self, machine: &Scheduler, decisions: &[Decision]) {
        let placements = decisions.iter().filter_map(|decision| match decision {
            Decision::Place { placement, .. } => Some(placement),
            _ => None,
        });
        for node in placements.flat_map(ff2_sched_core::Placement::nodes) {
            let (size, mut sum) = (self.0[&node], [0; 3]);
            for job in machine.jobs_on(node).iter().map(|id| machine.job(*id).unwrap()) {
                let is_alone = machine.jobs_on(node).len() == 1;
                assert!(is_alone || !job.spec.exclusive, "{node:?} is {:?}'s alone", job.id);
                let slots = job.placement().into_iter().flat_map(|placement| &placement.slots);
                let tasks: u32 =
                    slots.filter(|slot| slot.node == node).map(|slot| slot.tasks).sum();
                let Resources { gpus, cpus, memory } = job.spec.task;
                sum = [sum[0] + gpus * tasks, sum[1] + cpus * tasks, sum[2] + memory * tasks];
            }
            let fits = sum[0] <= size.gpus && sum[1] <= size.cpus && sum[2] <= size.memory;
            assert!(fits, "{node:?} has {size:?}, and {sum:?} lies there");
        }
    }

    /// Another size for a node.
    fn change(random: &mut Random) -> Event {
        Event::Size {
            node: NodeId(random.below(NODES) as u32),
            cpus: random.one_of(&[8, 32, 64, 64, 128]),
            memory: random.one_of(&[1_000, 128 << 10, 512 << 10, 1 << 20]),
        }
    }
}

/// What stands for the agents: which runs there are.
#[derive(Default)]
struct Agents {
    running: BTreeMap<JobId, u32>,
    stopping: BTreeMap<JobId, u32>,
    /// The run whose end is told by the fact of this moment: orders that crossed it come too late.
    gone: Option<(JobId, u32)>,
    accepted: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
}

impl Agents {
    fn tell(&mut self, event: &Event) {
        self.gone = None;
        if let Event::Exited { job, attempt, .. }
        | Event::Stopped { job, attempt }
        | Event::Lost { job, attempt } = event
        {
            self.gone = Some((*job, *attempt));
            self.running.remove(job);
            self.stopping.remove(job);
        }
    }

    fn carry_out(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            match decision {
                Decision::Suspend { job, attempt, .. } | Decision::Kill { job, attempt, .. }
                    if self.gone == Some((*job, *attempt)) => {}
                Decision::Accepted { first, count } => {
                    let jobs = (first.0..first.0 + u64::from(*count)).map(JobId);
                    jobs.for_each(|job| assert!(self.accepted.insert(job), "{job:?} is new"));
                }
                Decision::Refused(_) => {}
                Decision::Place { job, attempt, .. } => {
                    assert!(!self.stopping.contains_key(job), "{job:?} has not stopped");
                    assert_eq!(self.running.insert(*job, *attempt), None, "{job:?} runs twice");
                }
                Decision::Suspend { job, attempt, .. } => {
                    assert_eq!(self.running.remove(job), Some(*attempt), "{job:?} runs");
                    self.stopping.insert(*job, *attempt);
                }
                Decision::Kill { job, attempt, .. } => {
                    let run = self.running.remove(job).or(self.stopping.get(job).copied());
                    assert_eq!(run, Some(*attempt), "{job:?} has a run to kill");
                    self.stopping.insert(*job, *attempt);
                }
                Decision::Ended { job, .. } => {
                    assert!(!self.running.contains_key(job) && !self.stopping.contains_key(job));
                    assert!(self.accepted.contains(job), "{job:?} was accepted");
                    assert!(self.ended.insert(*job), "{job:?} ends once");
                }
            }
        }
    }
}

/// The first lines that differ: all of the facts are too much to read.
fn difference(here: &Facts, there: &Facts) -> String {
    let lines = |facts| serde_json::to_string_pretty(facts).unwrap();
    let (here, there) = (lines(here), lines(there));
    let mut both = here.lines().zip(there.lines()).enumerate();
    let Some((at, _)) = both.find(|(_, (here, there))| here != there) else {
        return "longer".into();
    };
    let around = |text: &str| text.lines().skip(at.saturating_sub(4)).take(8).collect::<String>();
    format!("{} and restored {}", around(&here), around(&there))
}

fn job(random: &mut Random, agents: &Agents, nodes: Nodes) -> JobSpec {
    let task = Resources {
        gpus: random.one_of(&[0, 1, 1, 2, 4, 8, 8]),
        cpus: random.one_of(&[1, 4, 8, 40]),
        memory: random.one_of(&[0, 1_000, 200_000]),
    };
    let known = agents.accepted.len() as u64;
    let others = if known == 0 { 0 } else { random.one_of(&[0, 0, 0, 0, 0, 1, 2]) };
    let mut of = Vec::new();
    for _ in 0..others {
        let start = match known % 2 {
            0 => Must::Start,
            _ => Must::StartBefore { ms: 1_200_000 },
        };
        let must = random.one_of(&[start, Must::End, Must::Succeed, Must::Fail]);
        of.push(Dependency { job: JobId(random.below(known) + 1), must });
    }
    let (any, singleton) = (random.below(2) == 0, random.below(12) == 0);
    let after = After { of, any, singleton, ..After::default() };
    let many = match random.below(12) {
        0 => Many::Array { count: 5, at_once: random.below(4) as u32 },
        1 => Many::Service { min: 1, max: 3 },
        _ => Many::One,
    };
    let at_random = JobSpec {
        user: random.one_of(&["ann", "bob", "cy"]).into(),
        group: random.one_of(&["red", "blue"]).into(),
        priority: random.one_of(&[
            Priority::Idle,
            Priority::Normal,
            Priority::Normal,
            Priority::High,
        ]),
        tasks: random.one_of(&[1, 1, 1, 2, 3, 6, 14]),
        task,
        limit_ms: random.one_of(&[None, Some(3_600_000), Some(20_000_000)]),
        grace_ms: random.one_of(&[0, 5_000, 300_000]),
        preemptible: random.below(5) > 0,
        restarts: random.below(3) as u32,
        after,
        many,
        reads_much: random.below(5) == 0,
        inputs: if random.below(4) == 0 { vec!["corpus".into()] } else { Vec::new() },
        zone: random.one_of(&[None, None, None, Some(ff2_topology::ZoneId(1))]),
        needs: if random.below(8) == 0 { vec!["fast".into()] } else { Vec::new() },
        checkpoint: checkpoint(known),
        ..JobSpec::default()
    };
    // Not drawn, so that a seed goes on meaning the same jobs.
    JobSpec { exclusive: nodes == Nodes::Mixed && known % 5 < 2, ..at_random }
}

/// Two of three jobs have one. Not drawn, so that a seed goes on meaning the same jobs.
fn checkpoint(job: u64) -> Option<Checkpoint> {
    let minutes = [1, 5, 5, 10, 60, 150][job as usize % 6];
    let checkpoint = Checkpoint {
        interval_ms: minutes * 60_000,
        bytes: (job % 4) << 35,
        step_ms: job % 7 * 4_000,
    };
    (!job.is_multiple_of(3)).then_some(checkpoint)
}

fn fact(random: &mut Random, agents: &Agents, nodes: Nodes) -> Event {
    let some = |random: &mut Random, runs: &BTreeMap<JobId, u32>| {
        let at = random.below(runs.len().max(1) as u64) as usize;
        runs.iter().nth(at).map(|(job, attempt)| (*job, *attempt))
    };
    match random.below(23) {
        0..5 => Event::Submit(Box::new(job(random, agents, nodes))),
        5..9 => match some(random, &agents.running) {
            Some((job, attempt)) if random.below(6) == 0 => Event::Lost { job, attempt },
            Some((job, attempt)) => Event::Exited { job, attempt, succeeded: random.below(4) > 0 },
            None => Event::Tick,
        },
        9..13 => match some(random, &agents.stopping) {
            // Some end by themselves before they stop.
            Some((job, attempt)) if random.below(8) == 0 => {
                Event::Exited { job, attempt, succeeded: true }
            }
            Some((job, attempt)) => Event::Stopped { job, attempt },
            None => Event::Tick,
        },
        13 if random.below(3) == 0 => {
            Event::Cancel(JobId(random.below(agents.accepted.len() as u64 + 2)))
        }
        14 => {
            let node = NodeId(random.below(NODES) as u32);
            let leaf = LeafId(random.below(7) as u32);
            let scope = if random.below(6) == 0 { Scope::Leaf(leaf) } else { Scope::Node(node) };
            let state = random.one_of(&[
                NodeState::Up,
                NodeState::Up,
                NodeState::Up,
                NodeState::Cordoned,
                NodeState::Draining,
                NodeState::Quarantined,
                NodeState::Down,
            ]);
            Event::Node { scope, state }
        }
        15 if random.below(4) == 0 => Event::Spares { count: random.below(5) as u32 },
        16 if random.below(4) == 0 => {
            let key = QuotaKey {
                user: random.one_of(&[None, Some("ann")]).map(Into::into),
                priority: random.one_of(&[None, Some(Priority::Normal)]),
                group: random.one_of(&[None, Some("red")]).map(Into::into),
            };
            Event::Quota { key, limit: random.one_of(&[None, Some(24), Some(120)]) }
        }
        17 if random.below(4) == 0 => {
            let service = JobId(random.below(agents.accepted.len() as u64 + 1));
            Event::Scale { service, min: random.below(3) as u32, max: random.below(4) as u32 }
        }
        18 if random.below(4) == 0 => {
            Event::Share { group: "red".into(), weight: random.below(4) as u32 }
        }
        19 if random.below(4) == 0 => {
            let nodes = (0..4).map(|_| NodeId(random.below(NODES) as u32)).collect();
            Event::Cached { input: "corpus".into(), nodes }
        }
        // They only grow: else a gang might never have room again.
        19 if random.below(2) == 0 => {
            Event::Tags { node: NodeId(random.below(NODES) as u32), tags: vec!["fast".into()] }
        }
        20 if random.below(3) == 0 => {
            Event::Suspend(JobId(random.below(agents.accepted.len() as u64 + 2)))
        }
        21 => Event::Resume(JobId(random.below(agents.accepted.len() as u64 + 2))),
        22 if random.below(3) == 0 => {
            Event::Requeue(JobId(random.below(agents.accepted.len() as u64 + 2)))
        }
        22 if nodes == Nodes::Mixed => Sizes::change(random),
        _ => match agents.accepted.len() as u64 % 16 {
            at @ (3 | 7) => Event::Storage { calm_bytes_per_s: (at & 4) << 31 },
            _ => Event::Tick,
        },
    }
}

/// Steps, checks, and compares with a machine that was restored from a snapshot on the way.
fn run(seed: u64, policy: Policy, steps: u64, nodes: Nodes) {
    let topology = network(nodes);
    let mut random = Random(seed);
    let mut machine = Scheduler::new(&topology, Config { policy, ..Config::default() });
    let mut twin: Option<Scheduler> = None;
    let mut agents = Agents::default();
    let usual = Sizes::of(&machine, &topology);
    let mut sizes = Sizes::of(&machine, &topology);
    let mut now = 0;
    let mut step = |machine: &mut Scheduler, agents: &mut Agents, now: u64, event: Event| {
        agents.tell(&event);
        let before = machine.quotas();
        let mut decisions = Vec::new();
        machine.step(now, event.clone(), &mut decisions);
        machine.check();
        sizes.tell(&event);
        sizes.check(machine, &decisions);
        for (key, has) in machine.quotas() {
            let was = before.get(&key).map_or(u64::MAX, |before| before.used);
            // Whoever had it when a limit fell may keep it.
            let is_new = !before.contains_key(&key);
            assert!(has.used <= has.limit || has.used <= was || is_new, "{key:?}: {has:?}");
        }
        if let Some(twin) = &mut twin {
            let mut others = Vec::new();
            twin.step(now, event.clone(), &mut others);
            assert_eq!(decisions, others, "seed={seed}: a restored machine decides otherwise");
            let (here, there) = (machine.facts(), twin.facts());
            assert!(here == there, "seed={seed}: after {event:?}: {}", difference(&here, &there));
        }
        if now.is_multiple_of(97) {
            let facts = machine.facts();
            let text = serde_json::to_string(&facts).unwrap();
            let restored =
                Scheduler::restore(&topology, serde_json::from_str(&text).unwrap()).unwrap();
            restored.check();
            assert_eq!(restored.facts(), facts);
            twin = Some(restored);
        }
        agents.carry_out(&decisions);
    };
    for _ in 0..steps {
        now += random.one_of(&[0, 1, 1_000, 60_000, 600_000]);
        let event = fact(&mut random, &agents, nodes);
        step(&mut machine, &mut agents, now, event);
    }
    // Now all is well for long enough: everybody's turn comes.
    for scope in (0..NODES).map(|node| Scope::Node(NodeId(node as u32))) {
        step(&mut machine, &mut agents, now, Event::Node { scope, state: NodeState::Up });
    }
    for (node, Resources { cpus, memory, .. }) in usual.0.iter().map(|(node, size)| (*node, *size))
    {
        step(&mut machine, &mut agents, now, Event::Size { node, cpus, memory });
    }
    step(&mut machine, &mut agents, now, Event::Spares { count: 0 });
    for key in machine.quotas().into_keys() {
        step(&mut machine, &mut agents, now, Event::Quota { key, limit: None });
    }
    let services: Vec<JobId> = machine
        .jobs()
        .filter(|job| matches!(job.spec.many, Many::Service { .. }))
        .map(|job| job.id)
        .collect();
    for job in services {
        step(&mut machine, &mut agents, now, Event::Cancel(job));
    }
    let held = machine.jobs().filter(|job| job.on_hold).map(|job| job.id);
    for job in held.collect::<Vec<_>>() {
        step(&mut machine, &mut agents, now, Event::Resume(job));
    }
    let mut idle = 0;
    while machine.jobs().next().is_some() {
        now = (now + 1_800_000).max(machine.next_due().unwrap_or(0).min(now + 3_600_000));
        step(&mut machine, &mut agents, now, Event::Tick);
        let mut any = false;
        for (job, attempt) in agents.stopping.clone() {
            agents.stopping.remove(&job);
            step(&mut machine, &mut agents, now, Event::Stopped { job, attempt });
            any = true;
        }
        if let Some((job, attempt)) = agents.running.pop_first() {
            let event = Event::Exited { job, attempt, succeeded: true };
            step(&mut machine, &mut agents, now, event);
            any = true;
        }
        idle = if any { 0 } else { idle + 1 };
        let why: Vec<_> = machine.jobs().map(|job| machine.why(job.id)).collect();
        assert!(idle < 50, "seed={seed}: nothing happens any more: {why:?}");
    }
    assert_eq!(agents.accepted, agents.ended, "seed={seed}: no job is lost");
    let (all, free) = machine.gpus();
    let gpus = usual.0.values().map(|size| u64::from(size.gpus)).sum();
    assert_eq!((all, free), (gpus, gpus), "seed={seed}: everything is given back");
    assert!(agents.running.is_empty() && agents.stopping.is_empty());
}

/// Bands with short times, so that plans are made often.
fn eager() -> Policy {
    let Policy::Bands(bands) = Policy::ff2() else { unreachable!("ff2 has bands") };
    Policy::Bands(Bands {
        first_gpu_ms: 600_000,
        patience_ms: 1_000,
        min_run_ms: 10_000,
        starved_floor_ms: 7_200_000,
        plan_every_ms: 1_000,
        ..bands
    })
}

fn seeds(first: u64, policy: &Policy, nodes: Nodes) {
    let count = std::env::var("FF2_SCHED_SEEDS").ok().map_or(12, |count| count.parse().unwrap());
    for seed in first..first + count {
        let told = seed;
        let result = std::panic::catch_unwind(|| run(seed, policy.clone(), 600, nodes));
        assert!(result.is_ok(), "seed={told} of {policy:?}: see above");
    }
}

#[test]
fn what_must_hold_holds_in_the_order_of_submission() {
    seeds(1_000, &Policy::Fifo, Nodes::Equal);
}

#[test]
fn what_must_hold_holds_with_backfill() {
    seeds(2_000, &Policy::Easy, Nodes::Equal);
}

#[test]
fn what_must_hold_holds_with_bands() {
    seeds(3_000, &Policy::las(), Nodes::Equal);
    seeds(4_000, &Policy::ff2(), Nodes::Equal);
}

#[test]
fn what_must_hold_holds_with_plans_all_the_time() {
    seeds(5_000, &eager(), Nodes::Equal);
}

#[test]
fn what_must_hold_holds_on_nodes_of_different_sizes() {
    seeds(6_000, &eager(), Nodes::Mixed);
    seeds(7_000, &Policy::Easy, Nodes::Mixed);
}

/// The test above would not tell much if plans were never made.
#[test]
fn the_eager_policy_preempts_and_moves() {
    let topology = network(Nodes::Equal);
    let (mut random, mut agents) = (Random(7), Agents::default());
    let mut machine = Scheduler::new(&topology, Config { policy: eager(), ..Config::default() });
    let (mut preempted, mut moved, mut stopping) = (0, 0, 0);
    let mut now = 0;
    for _ in 0..5_000 {
        now += random.one_of(&[0, 1, 1_000, 60_000]);
        let mut decisions = Vec::new();
        let event = fact(&mut random, &agents, Nodes::Equal);
        agents.tell(&event);
        machine.step(now, event, &mut decisions);
        agents.carry_out(&decisions);
        let causes = decisions.iter().filter_map(|decision| match decision {
            Decision::Suspend { cause, .. } | Decision::Kill { cause, .. } => Some(*cause),
            _ => None,
        });
        for cause in causes {
            match cause {
                ff2_sched_core::Cause::Preempted { .. } => preempted += 1,
                ff2_sched_core::Cause::Moved { .. } => moved += 1,
                _ => {}
            }
        }
        stopping += machine.jobs().filter(|job| job.state == State::Claiming).count();
    }
    assert!(preempted > 20 && moved > 0 && stopping > 0, "{preempted} {moved} {stopping}");
}

/// Seeds that found what the others did not.
#[test]
fn what_once_did_not_hold() {
    // A job was moved to where another one that moved as well had not gone yet.
    run(4_202, Policy::ff2(), 600, Nodes::Equal);
}
