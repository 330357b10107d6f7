//! What a job asks for, and what it is at a moment.

use ff2_topology::{NodeId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::{
    dependency::After,
    per_node::PerNode,
    placement::Placement,
    slots::{Checkpoint, CheckpointSlot},
    tags::TagSet,
};

/// A job's name for as long as it lives: it stays the same over suspensions and restarts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct JobId(pub u64);

/// Of a task, of a node, or of what is free of it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Resources {
    pub gpus: u32,
    /// Cores.
    pub cpus: u32,
    /// MiB.
    pub memory: u32,
}

/// The classes of HAI's platform; those of a higher one go first and may preempt.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Takes what nobody else wants.
    Idle,
    UnderNormal,
    #[default]
    Normal,
    AboveNormal,
    High,
    VeryHigh,
    Extreme,
}

/// All that a user says of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSpec {
    pub name: String,
    pub user: String,
    pub group: String,
    pub priority: Priority,
    /// They run at once or not at all.
    pub tasks: u32,
    /// Of each task, which lies on one node.
    pub task: Resources,
    /// Each task has a whole node to itself, whatever that has: `task` is what it must have at least.
    pub exclusive: bool,
    /// How long it may run in all. Needed to be backfilled; never looked at by bands.
    pub limit_ms: Option<u64>,
    /// From the order to suspend until it is killed.
    pub grace_ms: u64,
    /// The same, if that is longer, where it makes room and goes on later: time to save evenly.
    pub room_ms: u64,
    /// At least as long it runs before it is preempted; the larger of this and the policy's counts.
    pub min_run_ms: u64,
    pub preemptible: bool,
    /// How many failures of its own it is started again after. Failures of nodes do not count.
    pub restarts: u32,
    /// What of it is still open.
    pub after: After,
    pub many: Many,
    /// Names of data that caches may hold ([`crate::Event::Cached`]).
    pub inputs: Vec<String>,
    /// It is bound by reads from storage: its nodes are spread over leaves.
    pub reads_much: bool,
    pub zone: Option<ZoneId>,
    /// Tags that all of its nodes have ([`crate::Event::Tags`]).
    pub needs: Vec<String>,
    /// It writes checkpoints, and gets a slot for them.
    pub checkpoint: Option<Checkpoint>,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            user: String::new(),
            group: String::new(),
            priority: Priority::Normal,
            tasks: 1,
            task: Resources { gpus: 1, cpus: 0, memory: 0 },
            exclusive: false,
            limit_ms: None,
            grace_ms: 30_000,
            room_ms: 0,
            min_run_ms: 0,
            preemptible: true,
            restarts: 0,
            after: After::default(),
            many: Many::One,
            inputs: Vec::new(),
            reads_much: false,
            zone: None,
            needs: Vec::new(),
            checkpoint: None,
        }
    }
}

impl JobSpec {
    /// How long a run has from the request to its end, ms.
    pub(crate) fn grace(&self, cause: Cause) -> u64 {
        match cause {
            Cause::Preempted { .. }
            | Cause::Moved { .. }
            | Cause::Drained { .. }
            | Cause::Asked => self.grace_ms.max(self.room_ms),
            Cause::NodeFailed { .. } | Cause::Cancelled | Cause::Overdue | Cause::GracePassed => {
                self.grace_ms
            }
        }
    }

    /// That it asks for; with whole nodes it may get more ([`Job::gpus`]).
    pub fn gpus(&self) -> u64 {
        u64::from(self.tasks) * u64::from(self.task.gpus)
    }

    pub(crate) fn per_node(&self) -> PerNode {
        PerNode { task: self.task, whole: self.exclusive }
    }
}

/// What decides whether a job fits: those of one shape fit alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shape {
    pub tasks: u32,
    pub task: Resources,
    pub zone: Option<ZoneId>,
    #[serde(default)]
    pub needs: TagSet,
    /// Of whole nodes.
    #[serde(default)]
    pub exclusive: bool,
}

impl Shape {
    pub(crate) fn per_node(&self) -> PerNode {
        PerNode { task: self.task, whole: self.exclusive }
    }

    pub(crate) fn gpus(&self) -> u64 {
        u64::from(self.tasks) * u64::from(self.task.gpus)
    }
}

/// A submission may be for more than one job. Each member has a name of its own; the first stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Many {
    #[default]
    One,
    /// So many, of which so many may run at once (0: all).
    Array { count: u32, at_once: u32 },
    /// Replicas of something that runs until it is cancelled. The first `min` are not preempted, those up to
    /// `max` have the priority [`Priority::Idle`].
    Service { min: u32, max: u32 },
}

/// Of which submission a job is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub first: JobId,
    pub index: u32,
    pub of: Many,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
    /// A job that it had to come after did not succeed.
    DependencyFailed,
}

/// What comes when a run has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    Requeue,
    /// On the nodes that it keeps and a spare for the one that failed, if that can be.
    Replace,
    End(Outcome),
}

/// Why a run was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// For a job that goes first.
    Preempted {
        by: JobId,
    },
    /// To free GPUs elsewhere, so that a job with so many GPUs starts.
    Moved {
        to_start: JobId,
        gpus: u64,
    },
    Drained {
        node: NodeId,
    },
    NodeFailed {
        node: NodeId,
    },
    Cancelled,
    /// Somebody wanted it to stop and go on later.
    Asked,
    /// Its time limit passed.
    Overdue,
    /// It did not stop within its grace.
    GracePassed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// For other jobs, for those of its array, or because somebody holds it.
    Held,
    Pending,
    /// Its nodes are known, and others are stopping there.
    Claiming,
    Running {
        placement: Placement,
        started_ms: u64,
    },
    Stopping {
        placement: Placement,
        started_ms: u64,
        /// When it was told to.
        asked_ms: u64,
        killed: bool,
        cause: Cause,
        then: Then,
    },
}

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub spec: JobSpec,
    pub member: Option<Member>,
    pub state: State,
    /// How often it was placed.
    pub attempt: u32,
    /// Failures of its own.
    pub failures: u32,
    pub submitted_ms: u64,
    /// When it ran for the first time.
    #[serde(default)]
    pub began_ms: Option<u64>,
    /// When it came into the state it is in; of a pending job, since when it waits.
    pub since_ms: u64,
    /// Of runs that are over.
    pub ran_ms: u64,
    /// Of runs that are over: GPUs times ms.
    pub service_gpu_ms: u64,
    /// It lost a node and could not go on at once: it goes before others of its band.
    pub ahead: bool,
    /// It does not run before somebody says so.
    #[serde(default)]
    pub on_hold: bool,
    /// Up to when the current run is in the accounts.
    pub charged_ms: u64,
    pub preemptions: u32,
    pub moves: u32,
    /// Of its checkpoints, while it runs; of the last, while it stops.
    #[serde(default)]
    pub slot: Option<CheckpointSlot>,
    /// Of a job with whole nodes: the GPUs that these have, or while it has none the most that it may get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whole_gpus: Option<u64>,
}

impl Job {
    /// GPUs that it has; while it has none, those that it asks for, or the most that its whole nodes may have.
    pub fn gpus(&self) -> u64 {
        self.whole_gpus.unwrap_or_else(|| self.spec.gpus())
    }

    /// When a run that was told to stop is killed, if it has not stopped by then, ms.
    pub fn killed_at_ms(&self) -> Option<u64> {
        match &self.state {
            State::Stopping { killed: false, asked_ms, cause, .. } => {
                Some(asked_ms + self.spec.grace(*cause))
            }
            State::Stopping { .. } | State::Held | State::Pending | State::Claiming => None,
            State::Running { .. } => None,
        }
    }

    pub fn placement(&self) -> Option<&Placement> {
        match &self.state {
            State::Held | State::Pending | State::Claiming => None,
            State::Running { placement, .. } | State::Stopping { placement, .. } => Some(placement),
        }
    }

    pub fn started_ms(&self) -> Option<u64> {
        match &self.state {
            State::Held | State::Pending | State::Claiming => None,
            State::Running { started_ms, .. } | State::Stopping { started_ms, .. } => {
                Some(*started_ms)
            }
        }
    }

    /// How long it ran in all, ms.
    pub fn run_ms(&self, now: u64) -> u64 {
        self.ran_ms + self.started_ms().map_or(0, |started| now.saturating_sub(started))
    }

    /// What it got in all: GPUs times ms.
    pub fn service(&self, now: u64) -> u64 {
        let current = self.started_ms().map_or(0, |started| now.saturating_sub(started));
        self.service_gpu_ms + current * self.gpus()
    }
}
