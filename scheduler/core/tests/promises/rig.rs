//! A small cluster, and words to tell the machine what happens.

use ff2_sched_core::{
    Cause, Config, Decision, Event, JobId, JobSpec, NodeState, Outcome, Placement, Policy,
    Resources, Scheduler, Scope, State,
};
use ff2_topology::{FatTree, NodeId, Topology};

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;

pub(crate) struct Rig {
    pub(crate) machine: Scheduler,
    pub(crate) now: u64,
    /// Of the last step.
    pub(crate) decisions: Vec<Decision>,
}

/// `zones` of `leaves` with `nodes` each, eight GPUs a node.
pub(crate) fn network(zones: u32, leaves: u32, nodes: u32) -> Topology {
    let tree = FatTree {
        zones,
        leaves,
        ports: nodes,
        compute: leaves * nodes,
        gpus: 8,
        storage: 0,
        gbit_per_s: 200,
    };
    Topology::new(&tree.describe().unwrap()).unwrap()
}

/// One task with so many GPUs.
pub(crate) fn gpus(gpus: u32) -> JobSpec {
    JobSpec { task: Resources { gpus, cpus: 0, memory: 0 }, ..JobSpec::default() }
}

/// So many whole nodes.
pub(crate) fn nodes(tasks: u32) -> JobSpec {
    JobSpec { tasks, ..gpus(8) }
}

impl Rig {
    pub(crate) fn new(policy: Policy, topology: &Topology) -> Self {
        let config = Config { policy, ..Config::default() };
        Self { machine: Scheduler::new(topology, config), now: 0, decisions: Vec::new() }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.decisions.clear();
        self.machine.step(self.now, event, &mut self.decisions);
        self.machine.check();
    }

    /// Lets time pass, with a tick whenever one is due.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<Decision> {
        let end = self.now + ms;
        let mut all = Vec::new();
        while let Some(due) = self.machine.next_due().filter(|due| *due < end) {
            self.now = self.now.max(due);
            self.tell(Event::Tick);
            all.append(&mut self.decisions.clone());
        }
        self.now = end;
        self.tell(Event::Tick);
        all.append(&mut self.decisions.clone());
        all
    }

    pub(crate) fn submit(&mut self, spec: JobSpec) -> JobId {
        self.tell(Event::Submit(Box::new(spec)));
        match &self.decisions[0] {
            Decision::Accepted { first, .. } => *first,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) fn attempt(&self, job: JobId) -> u32 {
        self.machine.job(job).unwrap().attempt
    }

    pub(crate) fn exit(&mut self, job: JobId) {
        let attempt = self.attempt(job);
        self.tell(Event::Exited { job, attempt, succeeded: true });
    }

    pub(crate) fn fail(&mut self, job: JobId) {
        let attempt = self.attempt(job);
        self.tell(Event::Exited { job, attempt, succeeded: false });
    }

    pub(crate) fn stopped(&mut self, job: JobId) {
        let attempt = self.attempt(job);
        self.tell(Event::Stopped { job, attempt });
    }

    pub(crate) fn node(&mut self, node: u32, state: NodeState) {
        self.tell(Event::Node { scope: Scope::Node(NodeId(node)), state });
    }

    pub(crate) fn runs(&self, job: JobId) -> bool {
        let job = self.machine.job(job);
        job.is_some_and(|job| matches!(job.state, State::Running { .. }))
    }

    pub(crate) fn waits(&self, job: JobId) -> bool {
        self.machine.job(job).is_some_and(|job| job.state == State::Pending)
    }

    pub(crate) fn placement(&self, job: JobId) -> Placement {
        self.machine.job(job).unwrap().placement().expect("it has nodes").clone()
    }

    pub(crate) fn on(&self, job: JobId) -> Vec<u32> {
        self.placement(job).nodes().map(|node| node.0).collect()
    }

    pub(crate) fn ended(&self, job: JobId) -> Option<Outcome> {
        self.machine.outcome(job)
    }
}

/// Who is told to suspend, and why.
pub(crate) fn suspended(decisions: &[Decision]) -> Vec<(JobId, Cause)> {
    let suspended = decisions.iter().filter_map(|decision| match decision {
        Decision::Suspend { job, cause, .. } => Some((*job, *cause)),
        _ => None,
    });
    suspended.collect()
}
