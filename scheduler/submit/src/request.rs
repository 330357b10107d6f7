//! The job that a user asks for.

use std::{collections::BTreeMap, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{
    array::Array,
    checkpoint::Checkpoint,
    dependency::Dependencies,
    gpus::Gpus,
    inherit::Inherit,
    memory::Memory,
    pattern::FilePattern,
    priority::Priority,
    signal::{Grace, Signal},
    text::count,
    time::TimeLimit,
};

/// All that a user can say of a job. What was not said is `None` (or empty) and left out of YAML; what it
/// then is, is decided by who takes the job, but for what [`layout`](Self::layout) says.
///
/// Each part is sound by itself. Whether they agree is told by [`check`](Self::check).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JobRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The partition that it runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Who is charged; Slurm's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,

    #[serde(with = "count", skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NonZeroU32>,
    /// Processes in all; Slurm's tasks.
    #[serde(with = "count", skip_serializing_if = "Option::is_none")]
    pub ranks: Option<NonZeroU32>,
    /// At most so many on each node.
    #[serde(with = "count", skip_serializing_if = "Option::is_none")]
    pub ranks_per_node: Option<NonZeroU32>,
    /// In all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_per_node: Option<Gpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_per_rank: Option<Gpus>,
    /// Cores.
    #[serde(with = "count", skip_serializing_if = "Option::is_none")]
    pub cpus_per_rank: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_per_node: Option<Memory>,
    /// Nothing of anybody else runs on its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// Tags that all of its nodes have; Slurm's features.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<TimeLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<Array>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependency: Option<Dependencies>,
    /// Of a service: so many replicas that are not preempted.
    #[serde(with = "count", skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<NonZeroU32>,
    /// Of a service: so many replicas where there is room.
    #[serde(with = "count", skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<NonZeroU32>,
    /// Whether it may be started again from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Grace>,
    /// How often it saves, so that it has a slot for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,

    /// Paths that it reads, so that it may run where they are cached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<FilePattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FilePattern>,
    /// Which variables it has from the submitter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inherit: Option<Inherit>,
    /// Variables that it has besides.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,

    /// What runs: a program and its arguments. Either this or a script.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Of the script.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// What runs: the text of a script, from its `#!` line on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// Slurm's grace for a signal without one.
const SIGNAL_GRACE_SECONDS: u16 = 60;

impl JobRequest {
    /// How long it has after the signal: as was said, or 60 seconds if only a signal was named.
    pub fn grace(&self) -> Option<Grace> {
        let of_signal = || {
            let signal = self.signal?;
            signal.grace().or_else(|| Grace::from_seconds(SIGNAL_GRACE_SECONDS))
        };
        self.grace.or_else(of_signal)
    }

    /// The least and the most replicas, if it is a service. Where the most were not said there are no more
    /// than the least; where the least were not said it is one.
    pub fn replicas(&self) -> Option<(NonZeroU32, NonZeroU32)> {
        match (self.min_replicas, self.max_replicas) {
            (None, None) => None,
            (Some(min), None) => Some((min, min)),
            (None, Some(max)) => Some((NonZeroU32::MIN, max)),
            (Some(min), Some(max)) => Some((min, max)),
        }
    }
}
