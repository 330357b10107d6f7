//! Agents, their keepers and changing leaders, in simulated time: answers are lost and late, agents die while their
//! runs go on, nodes are cut off, leaders forget all that they kept in mind. A job never has two attempts alive at the
//! same time, no GPU is given twice, and every job ends once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, sync::PoisonError};

use ff2_meta_core::{MemKv, StateMachine};
use ff2_proto::pb::{self, RunPhase};
use ff2_sched_core::{Config, Event, JobId, JobSpec, NodeState, Priority, Resources, Scope};
use ff2_sched_machine::{
    Action, Answer, Command, Fact, Joined, SchedMachine, State, Submission, Told, Watch, actions,
    limits, orders_hash,
};
use ff2_topology::NodeId;

const NODES: u32 = 8;
const GPUS: u32 = 8;
const LEASE_MS: u64 = 10_000;
/// A keeper looks at its time so often, and ends its run a little later.
const KEEPER_MS: u64 = 1_000;
const _: () = assert!(limits::FENCE_MARGIN_MS > KEEPER_MS, "a fence waits for keepers");

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A run on a node, as its keeper has it.
#[derive(Clone, Debug)]
struct Run {
    phase: RunPhase,
    gpus: u32,
    until_ms: u64,
    /// When it will have made room, if it was asked to.
    stops_ms: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    runs: BTreeMap<(u64, u32), Run>,
    /// The agent's memory: gone with its process.
    seen_version: u64,
    seen_orders: u64,
    /// Until when nothing is heard of the agent.
    away_until_ms: u64,
    /// An answer on its way: when it comes, when it was asked for, with what it was asked.
    coming: Option<(u64, u64, Vec<pb::RunReport>, pb::AgentSyncReply)>,
}

struct World {
    random: Random,
    now: u64,
    kv: MemKv,
    machine: SchedMachine,
    index: u64,
    watch: Watch,
    nodes: Vec<Node>,
    accepted: u64,
    /// The newest job.
    last: u64,
    calm: bool,
    /// What happened, so that a test can see that it did.
    fenced: u64,
    lost: u64,
    stopped: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: 1_000_000,
            kv: MemKv::new(),
            machine: SchedMachine::new(Config::default()),
            index: 0,
            watch: Watch::new(1_000_000, LEASE_MS, String::new()),
            nodes: vec![Node::default(); NODES as usize],
            accepted: 0,
            last: 0,
            calm: false,
            fenced: 0,
            lost: 0,
            stopped: 0,
        };
        for node in 0..NODES {
            let leaf = format!("l{}", node / 4);
            let joined = Joined {
                name: format!("n{node}"),
                zone: "z".into(),
                pod: String::new(),
                leaf,
                gpus: GPUS,
                cpus: 0,
                memory: 0,
                host: "h".into(),
            };
            world.log(Fact::Joined(joined), String::new());
        }
        world
    }

    fn log(&mut self, fact: Fact, note: String) -> Answer {
        self.index += 1;
        let command = Command { at_ms: self.now, fact, note }.encode();
        Answer::decode(&self.machine.apply(self.index, &command, &mut self.kv)).unwrap()
    }

    fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        let state = self.machine.view();
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        look(&state)
    }

    fn log_all(&mut self, told: Vec<Told>) {
        for Told { event, note } in told {
            match &event {
                Event::Lost { .. } => self.lost += 1,
                Event::Stopped { .. } => self.stopped += 1,
                Event::Node { state: NodeState::Down, .. } => self.fenced += 1,
                _ => {}
            }
            self.log(Fact::Event(event), note);
        }
    }

    fn round(&mut self) {
        let state = self.machine.view();
        let told = {
            let state = state.read().unwrap_or_else(PoisonError::into_inner);
            self.watch.facts(self.now, &state)
        };
        self.log_all(told);
        self.log(Fact::Event(Event::Tick), String::new());
    }

    fn reports(&self, node: usize) -> Vec<pb::RunReport> {
        let report = |(&(job, attempt), run): (&(u64, u32), &Run)| pb::RunReport {
            job,
            attempt,
            phase: run.phase.into(),
            ..Default::default()
        };
        self.nodes[node].runs.iter().map(report).collect()
    }

    /// An agent asks. Its question, or the answer, may get lost, or the answer be late.
    fn sync(&mut self, node: usize) {
        let at = &self.nodes[node];
        if at.away_until_ms > self.now || at.coming.is_some() {
            return;
        }
        if !self.calm && self.random.one_in(10) {
            return;
        }
        let request = pb::AgentSyncRequest {
            runs: self.reports(node),
            seen_version: at.seen_version,
            seen_orders: at.seen_orders,
            ..Default::default()
        };
        let id = NodeId(node as u32);
        let state = self.machine.view();
        let told = {
            let state = state.read().unwrap_or_else(PoisonError::into_inner);
            self.watch.hear(self.now, id, &request);
            self.watch.facts_of(self.now, &state, id)
        };
        self.log_all(told);
        let (version, runs) = self.look(|state| (state.version(), self.watch.orders(state, id)));
        let hash = orders_hash(&runs);
        let reply = pb::AgentSyncReply {
            version,
            orders_hash: hash,
            lease_ms: LEASE_MS as u32,
            runs,
            ..Default::default()
        };
        let late = if self.calm { 0 } else { self.random.below(4_000) };
        if self.calm || !self.random.one_in(10) {
            self.nodes[node].coming = Some((self.now + late, self.now, request.runs, reply));
        }
    }

    /// Answers that have come are carried out.
    fn deliver(&mut self) {
        for node in 0..self.nodes.len() {
            let at = &mut self.nodes[node];
            if at.coming.as_ref().is_none_or(|coming| coming.0 > self.now) {
                continue;
            }
            let (_, asked_ms, reports, reply) = at.coming.take().unwrap();
            if at.away_until_ms > self.now {
                continue;
            }
            let until_ms = asked_ms + u64::from(reply.lease_ms);
            for run in at.runs.values_mut().filter(|run| run.phase == RunPhase::RunRunning) {
                run.until_ms = run.until_ms.max(until_ms);
            }
            for action in actions(&reports, &reply.runs) {
                match action {
                    Action::Start(order) => {
                        // Of what runs now, not of what was told: the question is older.
                        let live = at.runs.values().filter(|r| r.phase == RunPhase::RunRunning);
                        let used: u32 = live.map(|run| run.gpus).sum();
                        let gpus = order.gpus * order.tasks;
                        if used + gpus > GPUS {
                            continue;
                        }
                        let run =
                            Run { phase: RunPhase::RunRunning, gpus, until_ms, stops_ms: None };
                        at.runs.insert((order.job, order.attempt), run);
                    }
                    Action::Suspend { job, attempt, .. } => {
                        let takes = self.random.below(3_000);
                        if let Some(run) = at.runs.get_mut(&(job, attempt)) {
                            run.stops_ms.get_or_insert(self.now + takes);
                        }
                    }
                    Action::End { job, attempt } => {
                        let takes = self.random.below(500);
                        if let Some(run) = at.runs.get_mut(&(job, attempt)) {
                            run.stops_ms = Some(self.now + takes);
                        }
                    }
                    Action::Slot { .. } => {}
                    Action::Forget { job, attempt } => drop(at.runs.remove(&(job, attempt))),
                }
            }
            (at.seen_version, at.seen_orders) = (reply.version, reply.orders_hash);
        }
    }

    /// Runs end: by themselves, as they were told to, or because their time is over.
    fn keepers(&mut self) {
        for node in &mut self.nodes {
            for run in node.runs.values_mut().filter(|run| run.phase == RunPhase::RunRunning) {
                if run.stops_ms.is_some_and(|at| at <= self.now) {
                    run.phase = RunPhase::RunStopped;
                } else if self.now >= run.until_ms + KEEPER_MS {
                    run.phase = RunPhase::RunLost;
                } else if self.random.one_in(if self.calm { 20 } else { 60 }) {
                    run.phase = match self.random.below(if self.calm { 1 } else { 6 }) {
                        0..4 => RunPhase::RunSucceeded,
                        4 => RunPhase::RunFailed,
                        _ => RunPhase::RunLost,
                    };
                }
            }
        }
    }

    fn submit(&mut self) {
        let spec = JobSpec {
            tasks: [1, 1, 2, 3, 6][self.random.below(5) as usize],
            task: Resources { gpus: [1, 4, 8][self.random.below(3) as usize], cpus: 0, memory: 0 },
            priority: [Priority::Normal, Priority::Normal, Priority::High]
                [self.random.below(3) as usize],
            grace_ms: [0, 5_000][self.random.below(2) as usize],
            restarts: self.random.below(2) as u32,
            ..JobSpec::default()
        };
        let key = format!("k{}", self.index);
        let submission = Submission { key, spec, order: String::new() };
        if let Answer::Accepted { first, count } =
            self.log(Fact::Submitted(Box::new(submission)), String::new())
        {
            self.accepted += u64::from(count);
            self.last = first;
        }
    }

    fn trouble(&mut self) {
        let node = self.random.below(u64::from(NODES)) as usize;
        match self.random.below(12) {
            // The agent's process dies: what it kept in mind is gone, its runs go on.
            0 | 1 => {
                let away = self.random.below(40_000);
                let at = &mut self.nodes[node];
                (at.seen_version, at.seen_orders) = (0, 0);
                (at.away_until_ms, at.coming) = (self.now + away, None);
            }
            // It is cut off.
            2 | 3 => self.nodes[node].away_until_ms = self.now + self.random.below(40_000),
            // The whole node loses power.
            4 if self.random.one_in(2) => {
                let away = self.now + self.random.below(60_000);
                self.nodes[node] = Node { away_until_ms: away, ..Node::default() };
            }
            5 | 6 => self.watch = Watch::new(self.now, LEASE_MS, String::new()),
            7 => {
                self.machine = SchedMachine::new(Config::default());
                self.machine.restore(&self.kv);
                self.watch = Watch::new(self.now, LEASE_MS, String::new());
            }
            8 => {
                let job = JobId(1 + self.random.below(self.last + 1));
                let event = match self.random.below(4) {
                    0 => Event::Cancel(job),
                    1 => Event::Suspend(job),
                    2 => Event::Resume(job),
                    _ => Event::Requeue(job),
                };
                self.log(Fact::Event(event), String::new());
            }
            9 => {
                let states = [NodeState::Up, NodeState::Draining, NodeState::Cordoned];
                let state = states[self.random.below(3) as usize];
                // People say nothing of nodes that are down: when these come back, that is seen.
                let id = NodeId(node as u32);
                let is_down =
                    self.look(|of| of.scheduler().node_state(id) == Some(NodeState::Down));
                if !is_down {
                    let scope = Scope::Node(id);
                    self.log(Fact::Event(Event::Node { scope, state }), String::new());
                }
            }
            _ => self.submit(),
        }
    }

    fn check(&self) {
        let mut alive: BTreeMap<u64, u32> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let mut gpus = 0;
            for (&(job, attempt), run) in &node.runs {
                if run.phase != RunPhase::RunRunning {
                    continue;
                }
                gpus += run.gpus;
                let other = *alive.entry(job).or_insert(attempt);
                assert_eq!(other, attempt, "job {job} runs twice at once, at {}", self.now);
            }
            assert!(gpus <= GPUS, "node {number} runs jobs with {gpus} GPUs");
        }
    }

    fn step(&mut self) {
        self.now += 1 + self.random.below(1_000);
        self.keepers();
        self.deliver();
        if !self.calm && self.random.one_in(4) {
            self.trouble();
        }
        for node in 0..self.nodes.len() {
            if self.calm || self.random.one_in(2) {
                self.sync(node);
                self.check();
            }
        }
        if self.random.one_in(2) {
            self.round();
        }
        self.check();
    }

    /// All is well for long enough: everybody's turn comes.
    fn drain(&mut self) {
        self.calm = true;
        for node in 0..NODES {
            self.nodes[node as usize].away_until_ms = 0;
            let event = Event::Node { scope: Scope::Node(NodeId(node)), state: NodeState::Up };
            self.log(Fact::Event(event), String::new());
        }
        let held = self.look(|state| {
            let held = state.scheduler().jobs().filter(|job| job.on_hold);
            held.map(|job| job.id).collect::<Vec<_>>()
        });
        for job in held {
            self.log(Fact::Event(Event::Resume(job)), String::new());
        }
        for _ in 0..200_000 {
            if self.look(|state| state.scheduler().jobs().next().is_none()) {
                let accounts = self.look(|state| state.scheduler().accounts().clone());
                let users = accounts.values().flat_map(|users| users.values());
                let ended: u64 = users.map(|account| account.jobs_ended).sum();
                assert_eq!(ended, self.accepted, "each job ended once");
                return;
            }
            self.step();
        }
        let left = self.look(|state| state.scheduler().jobs().cloned().collect::<Vec<_>>());
        panic!("these never end: {left:?}");
    }
}

#[test]
fn no_job_runs_twice_at_once_whatever_fails() {
    let seeds: u64 = std::env::var("FF2_SCHED_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    let (mut jobs, mut fenced, mut lost, mut stopped) = (0, 0, 0, 0);
    for seed in 1..=seeds {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..400 {
                world.step();
            }
            world.drain();
        }));
        assert!(run.is_ok(), "seed {seed}: see above");
        jobs += world.accepted;
        (fenced, lost, stopped) =
            (fenced + world.fenced, lost + world.lost, stopped + world.stopped);
    }
    println!(
        "{seeds} seeds: {jobs} jobs; {fenced} nodes fenced, {lost} runs lost, {stopped} stopped"
    );
    let enough = seeds / 2;
    assert!(fenced > enough && lost > enough && stopped > enough, "the test looks away");
}
