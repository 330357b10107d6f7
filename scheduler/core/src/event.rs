//! What the machine is told, and what it decides.

use ff2_topology::{LeafId, NodeId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::NodeState,
    job::{Cause, Job, JobId, JobSpec, Many, Outcome},
    placement::Placement,
    quota::QuotaKey,
};

/// A fact, in the order in which facts are logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Submit(Box<JobSpec>),
    /// A job, or with the first of an array or service all of it.
    Cancel(JobId),
    /// Holds back a job, or with the first of an array or service all of it, until it is resumed; a run of it is
    /// suspended.
    Suspend(JobId),
    Resume(JobId),
    /// Suspends a run; the job waits for its turn again.
    Requeue(JobId),
    /// Time passed.
    Tick,
    /// A job's tasks ended by themselves.
    Exited {
        job: JobId,
        attempt: u32,
        succeeded: bool,
    },
    /// A run was cut off on some node by no fault of its own, and nothing of it is left on any.
    Lost {
        job: JobId,
        attempt: u32,
    },
    /// Nothing of a run is left on any node: what a suspension or a kill is acknowledged with.
    Stopped {
        job: JobId,
        attempt: u32,
    },
    Node {
        scope: Scope,
        state: NodeState,
    },
    /// All tags that a node has from now on.
    Tags {
        node: NodeId,
        tags: Vec<String>,
    },
    /// Cores and memory (MiB) of a node that jobs may have from now on. Where jobs hold more than that, they go on and
    /// nothing new comes until it fits again.
    Size {
        node: NodeId,
        cpus: u32,
        memory: u32,
    },
    /// How many nodes are kept free for those that fail.
    Spares {
        count: u32,
    },
    /// GPUs that may be used at once; none: no limit.
    Quota {
        key: QuotaKey,
        limit: Option<u64>,
    },
    /// A group's weight in the fair share, 1 if nothing is said.
    Share {
        group: String,
        weight: u32,
    },
    /// Other numbers of replicas for a service.
    Scale {
        service: JobId,
        min: u32,
        max: u32,
    },
    /// Bytes/s of checkpoints that storage takes without anybody noticing: up to it they may come as they come.
    Storage {
        calm_bytes_per_s: u64,
    },
    /// Which nodes' caches hold an input now.
    Cached {
        input: String,
        nodes: Vec<NodeId>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    Node(NodeId),
    Leaf(LeafId),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The jobs of a submission have the numbers from `first` on.
    Accepted {
        first: JobId,
        count: u32,
    },
    Refused(Refusal),
    /// Starts all tasks of a job; `resumes` if it ran before.
    Place {
        job: JobId,
        attempt: u32,
        resumes: bool,
        placement: Placement,
        /// Each node reads and writes storage by its own zone's network; these are the zones of the job.
        zones: Vec<ZoneId>,
    },
    /// Tells a job to save what it needs and end. Answered by [`Event::Stopped`].
    Suspend {
        job: JobId,
        attempt: u32,
        grace_ms: u64,
        cause: Cause,
    },
    /// Ends a run at once. Answered by [`Event::Stopped`].
    Kill {
        job: JobId,
        attempt: u32,
        cause: Cause,
    },
    Ended {
        job: JobId,
        outcome: Outcome,
        /// What it was: nothing else is kept of it here.
        last: Box<Job>,
    },
}

/// Why a submission is none, or a service is not scaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    #[error("a job has at least one task, and a task at least a GPU or a core")]
    Empty,
    #[error("no node has what one task asks for")]
    TaskTooLarge,
    #[error("no node was ever tagged {0:?}")]
    NoSuchTag(String),
    #[error("{wanted} tasks: the cluster has room for {most} of them if nothing else runs")]
    GangTooLarge { wanted: u32, most: u64 },
    #[error("{waiting} jobs wait already")]
    QueueFull { waiting: u64 },
    #[error("there is no job {} to come after", .0.0)]
    NoSuchDependency(JobId),
    #[error("{gpus} GPUs are more than the quota of {key} ever allows: {limit}")]
    AboveQuota { key: QuotaKey, gpus: u64, limit: u64 },
    #[error(
        "a replica with {gpus} GPUs would go to the quota of {key}, which may have {limit} at once and has {used}"
    )]
    ScaledAboveQuota { key: QuotaKey, gpus: u64, used: u64, limit: u64 },
    #[error("{0:?} is no sensible number of members")]
    Members(Many),
}
