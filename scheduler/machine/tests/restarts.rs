//! Whatever happens, a replica that starts again knows what the others know, and no job is lost or run twice.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, sync::PoisonError};

use ff2_meta_core::{Kv, KvRead, MemKv, StateMachine};
use ff2_sched_core::{
    After, Cause, Checkpoint, Config, Dependency, Event, Facts, Job, JobId, JobSpec, Many, Must,
    NodeState, Priority, Resources, Scope, State as Of,
};
use ff2_sched_machine::{
    Answer, Command, Fact, History, How, Joined, SchedMachine, Submission, limits, order_of,
};
use ff2_topology::NodeId;

const NODES: u32 = 24;
const GPUS: u32 = 8;

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }
}

struct World {
    random: Random,
    kv: MemKv,
    machine: SchedMachine,
    index: u64,
    now: u64,
    keys: u64,
    accepted: u64,
    /// The newest job.
    last: u64,
    /// The last attempt of each job that was seen to run.
    attempts: BTreeMap<JobId, u32>,
    preemptions: u64,
    failovers: u64,
    stopping: BTreeMap<JobId, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            kv: MemKv::new(),
            machine: SchedMachine::new(Config::default()),
            index: 0,
            now: 1_000,
            keys: 0,
            accepted: 0,
            last: 0,
            attempts: BTreeMap::new(),
            preemptions: 0,
            failovers: 0,
            stopping: BTreeMap::new(),
        };
        for node in 0..NODES {
            world.log(join(node));
        }
        world
    }

    fn log(&mut self, fact: Fact) -> Answer {
        self.log_by(fact, "")
    }

    fn log_by(&mut self, fact: Fact, note: &str) -> Answer {
        self.index += 1;
        let command = Command { at_ms: self.now, fact, note: note.into() }.encode();
        Answer::decode(&self.machine.apply(self.index, &command, &mut self.kv)).unwrap()
    }

    /// What else a replica knows.
    fn around(&self) -> (History, u64) {
        let view = self.machine.view();
        let state = view.read().unwrap_or_else(PoisonError::into_inner);
        (state.history().clone(), state.version())
    }

    fn facts(&self) -> Facts {
        let view = self.machine.view();
        let state = view.read().unwrap_or_else(PoisonError::into_inner);
        state.scheduler().facts()
    }

    fn jobs(&self) -> Vec<Job> {
        let view = self.machine.view();
        let state = view.read().unwrap_or_else(PoisonError::into_inner);
        state.scheduler().jobs().cloned().collect()
    }

    /// As a new leader finds it.
    fn restart(&mut self) {
        self.failovers += 1;
        let before = (self.facts(), self.around());
        self.machine = SchedMachine::new(Config::default());
        self.machine.restore(&self.kv);
        assert_eq!((self.facts(), self.around()), before);
    }

    fn submit(&mut self) {
        let priority = match self.random.next(12) {
            0 => Priority::High,
            1 => Priority::VeryHigh,
            _ => Priority::Normal,
        };
        let task = if self.random.next(3) == 0 { GPUS } else { 1 + self.random.next(8) as u32 };
        let known = self.last;
        let after = match known {
            1.. if self.random.next(10) == 0 => {
                let job = JobId(1 + self.random.next(known));
                let must = match self.keys % 2 {
                    0 => Must::End,
                    _ => Must::StartBefore { ms: 3_600_000 },
                };
                After { of: vec![Dependency { job, must }], ..After::default() }
            }
            _ => After::default(),
        };
        let many = match self.random.next(10) {
            0 => Many::Array { count: 3, at_once: 2 },
            _ => Many::One,
        };
        let spec = JobSpec {
            user: format!("u{}", self.random.next(3)),
            tasks: 1 + self.random.next(4) as u32,
            task: Resources { gpus: task, ..Resources::default() },
            priority,
            grace_ms: 5_000,
            restarts: 1,
            after,
            many,
            checkpoint: self.keys.is_multiple_of(2).then(Checkpoint::default),
            ..JobSpec::default()
        };
        self.keys += 1;
        let key = format!("k{}", self.keys);
        let order = format!("order {}", self.keys);
        let submission = Submission { key, spec, order: order.clone() };
        let fact = Fact::Submitted(Box::new(submission));
        let answer = self.log(fact.clone());
        // Its answer was lost, and perhaps its leader.
        if self.random.next(4) == 0 {
            if self.random.next(2) == 0 {
                self.restart();
            }
            if matches!(answer, Answer::Accepted { .. }) {
                assert_eq!(self.log(fact), answer, "the same one");
            }
        }
        if let Answer::Accepted { first, count } = answer {
            self.accepted += u64::from(count);
            self.last = first + u64::from(count) - 1;
            assert_eq!(order_of(&self.kv, first), Some(order));
        }
    }

    /// What the nodes tell: some runs end, those that should stop do.
    fn tell(&mut self) {
        for job in self.jobs() {
            let (id, attempt) = (job.id, job.attempt);
            match &job.state {
                Of::Running { .. } => {
                    let before = self.attempts.insert(id, attempt);
                    assert!(before.is_none_or(|before| before <= attempt), "{id:?} goes back");
                    if self.random.next(6) == 0 {
                        let succeeded = self.random.next(5) > 0;
                        self.log(Fact::Event(Event::Exited { job: id, attempt, succeeded }));
                    }
                }
                Of::Stopping { cause, .. } => {
                    let is_new = self.stopping.insert(id, attempt) != Some(attempt);
                    self.preemptions +=
                        u64::from(is_new && matches!(cause, Cause::Preempted { .. }));
                    if self.random.next(2) == 0 {
                        self.log(Fact::Event(Event::Stopped { job: id, attempt }));
                    }
                }
                Of::Held | Of::Pending | Of::Claiming => {}
            }
        }
    }

    fn step(&mut self) {
        self.now += self.random.next(30 * 60_000);
        match self.random.next(20) {
            0..=8 => self.submit(),
            9..=14 => self.tell(),
            15 => self.restart(),
            16 => {
                let node = NodeId(self.random.next(u64::from(NODES)) as u32);
                let states = [NodeState::Up, NodeState::Up, NodeState::Down, NodeState::Draining];
                let state = states[self.random.next(4) as usize];
                self.log(Fact::Event(Event::Node { scope: Scope::Node(node), state }));
            }
            17 => {
                let job = JobId(1 + self.random.next(self.last + 1));
                self.log_by(Fact::Event(Event::Cancel(job)), "ann");
                let (history, _) = self.around();
                let change = history.changes().next().map(|change| (&*change.who, change.job));
                assert_eq!(change, Some(("ann", job)));
            }
            _ => drop(self.log(Fact::Event(Event::Tick))),
        }
    }

    /// Each run came to an end, and each job's attempts are told without a gap.
    fn check_history(&self) {
        let (history, _) = self.around();
        let mut attempts: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        for run in history.runs() {
            let (to_ms, how) = run.end.expect("nothing runs any more");
            assert!(to_ms >= run.from_ms, "{run:?}");
            assert!(how != How::Stopped || run.cause.is_some(), "{run:?}");
            attempts.entry(run.job).or_default().push(run.attempt);
        }
        assert!(!attempts.is_empty());
        let mut told = 0;
        for ended in history.ended() {
            let Some(mut seen) = attempts.remove(&ended.last.id) else { continue };
            seen.reverse();
            let first = seen[0];
            assert!(seen.iter().copied().eq(first..=ended.last.attempt), "{seen:?} of {ended:?}");
            told += 1;
        }
        assert!(told > 100, "{told} jobs");
        assert!(attempts.is_empty(), "these ran and did not end: {attempts:?}");
    }

    /// Until nothing is left: each job ended once.
    fn drain(&mut self) {
        for node in 0..NODES {
            let scope = Scope::Node(NodeId(node));
            self.log(Fact::Event(Event::Node { scope, state: NodeState::Up }));
        }
        for _ in 0..100_000 {
            if self.jobs().is_empty() {
                let ended: u64 = self
                    .facts()
                    .accounts
                    .values()
                    .flat_map(|users| users.values())
                    .map(|a| a.jobs_ended)
                    .sum();
                assert_eq!(ended, self.accepted, "each job ended once");
                return;
            }
            self.now += 600_000;
            self.log(Fact::Event(Event::Tick));
            self.tell();
        }
        panic!("these never run: {:?}", self.facts().jobs);
    }
}

fn join(node: u32) -> Fact {
    Fact::Joined(Joined {
        name: format!("n{node}"),
        zone: format!("z{}", node / 12),
        pod: String::new(),
        leaf: format!("l{}", node / 4),
        gpus: GPUS,
        cpus: 0,
        memory: 0,
        host: "here".into(),
    })
}

/// How many seeds and steps of each; more by hand.
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

#[test]
fn no_job_is_lost_or_doubled_whatever_fails() {
    let (mut preemptions, mut failovers) = (0, 0);
    for seed in 1..=number("FF2_SCHED_SEEDS", 4) {
        let mut world = World::new(seed);
        for _ in 0..number("FF2_SCHED_STEPS", 400) {
            world.step();
        }
        world.drain();
        world.restart();
        world.check_history();
        preemptions += world.preemptions;
        failovers += world.failovers;
        println!("seed {seed}: {} jobs, {} preemptions", world.accepted, world.preemptions);
    }
    println!("{preemptions} preemptions and {failovers} failovers in all");
    assert!(preemptions > 50, "{preemptions} preemptions: the test looks away");
}

#[test]
fn replicas_that_start_again_at_different_times_have_the_same_keys() {
    let (mut one, mut other) = (World::new(7), World::new(7));
    let mut decoys = Random(99);
    for step in 0..600 {
        one.step();
        other.step();
        if step % 7 == 0 && decoys.next(2) == 0 {
            other.machine = SchedMachine::new(Config::default());
            other.machine.restore(&other.kv);
        }
    }
    assert_eq!(one.kv.hash(), other.kv.hash());
}

#[test]
fn nodes_that_join_later_leave_what_runs_in_its_place() {
    let mut world = World::new(3);
    let spec = JobSpec {
        tasks: 24,
        task: Resources { gpus: 8, ..Resources::default() },
        ..JobSpec::default()
    };
    let submission = Submission { key: "a".into(), spec, order: String::new() };
    world.log(Fact::Submitted(Box::new(submission)));
    let before = world.facts().jobs;
    assert!(matches!(before[0].state, Of::Running { .. }));
    assert_eq!(world.log(join(NODES)), Answer::Done);
    assert_eq!(world.facts().jobs, before);
    assert_eq!(world.log(join(NODES)), Answer::Done, "again");
    let other = Fact::Joined(Joined {
        name: "n0".into(),
        zone: "z0".into(),
        pod: String::new(),
        leaf: "l5".into(),
        gpus: 8,
        cpus: 0,
        memory: 0,
        host: "there".into(),
    });
    let Answer::Refused { why } = world.log(other) else { panic!("it moved") };
    assert!(why.contains("another name"), "{why}");
}

#[test]
fn what_is_kept_of_submissions_has_an_end() {
    let mut world = World::new(5);
    let most = limits::ENDED_ORDERS_KEPT as u64;
    for n in 0..most + 10 {
        let submission =
            Submission { key: format!("k{n}"), spec: JobSpec::default(), order: "o".into() };
        let Answer::Accepted { first, .. } = world.log(Fact::Submitted(Box::new(submission)))
        else {
            panic!("{n}")
        };
        let job = JobId(first);
        world.log(Fact::Event(Event::Exited { job, attempt: 1, succeeded: true }));
    }
    assert_eq!(order_of(&world.kv, 1), None, "the oldest is forgotten");
    assert!(order_of(&world.kv, most + 10).is_some());
    let orders = world.kv.scan(b"o", b"p", usize::MAX).len() as u64;
    assert_eq!(orders, most);
    assert!(world.kv.scan(b"c", b"d", usize::MAX).len() <= limits::COMMANDS_KEPT);
    world.restart();
}

#[test]
fn bytes_that_are_no_command_are_answered() {
    let mut world = World::new(1);
    for bytes in [&b""[..], b"{}", b"\xff\xfe", b"{\"at_ms\":1,\"fact\":{\"event\":\"nonsense\"}}"]
    {
        let answer = Answer::decode(&world.machine.apply(9_999, bytes, &mut world.kv)).unwrap();
        assert!(matches!(answer, Answer::Refused { .. }));
    }
    let long = Submission {
        key: "k".into(),
        spec: JobSpec::default(),
        order: "x".repeat(limits::ORDER_BYTES_MAX + 1),
    };
    assert!(matches!(world.log(Fact::Submitted(Box::new(long))), Answer::Refused { .. }));
    let nameless =
        Submission { key: String::new(), spec: JobSpec::default(), order: String::new() };
    assert!(matches!(world.log(Fact::Submitted(Box::new(nameless))), Answer::Refused { .. }));
    world.kv.delete(b"nothing");
}
