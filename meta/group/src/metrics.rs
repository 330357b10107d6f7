//! What a group measures of itself: names, help texts and buckets.
//!
//! A process registers one [`RaftMetrics`]; each of its groups measures into its own part.

use ff2_daemon::{LatencyBuckets, Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        histogram::{Histogram, exponential_buckets},
    },
};

/// Counts from 1 in steps of two to 4096, the most that one wake-up can take.
const COUNT_STEPS: u16 = 13;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GroupLabel {
    group: u32,
}

#[derive(Clone, Copy, Debug)]
struct CountBuckets;

impl MetricConstructor<Histogram> for CountBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(1.0, 2.0, COUNT_STEPS))
    }
}

type Latencies = Family<GroupLabel, Histogram, LatencyBuckets>;
type Counts = Family<GroupLabel, Histogram, CountBuckets>;

/// The figures of all groups of a process.
#[derive(Clone, Debug)]
pub struct RaftMetrics {
    propose: Latencies,
    sync: Latencies,
    entries: Counts,
    commands: Counts,
    snapshots: Family<GroupLabel, Counter>,
}

impl RaftMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        let unregistered = Self::unregistered();
        let Self { propose, sync, entries, commands, snapshots } = unregistered.clone();
        metrics.register(
            "raft_propose_latency_seconds",
            "Time from a command's proposal on the leader until it is applied there",
            propose,
        );
        metrics.register(
            "raft_log_sync_latency_seconds",
            "Time of one synced write of the log",
            sync,
        );
        metrics.register("raft_sync_entries", "Log entries that one sync made durable", entries);
        metrics.register(
            "raft_batch_commands",
            "Commands taken at one wake-up: they share an entry and a sync",
            commands,
        );
        metrics.register(
            "raft_snapshots_installed",
            "Snapshots that took the place of this replica's state, because it was away for too long",
            snapshots,
        );
        unregistered
    }

    fn unregistered() -> Self {
        Self {
            propose: Family::new_with_constructor(LatencyBuckets),
            sync: Family::new_with_constructor(LatencyBuckets),
            entries: Family::new_with_constructor(CountBuckets),
            commands: Family::new_with_constructor(CountBuckets),
            snapshots: Family::default(),
        }
    }

    /// The part of one group.
    pub fn of(&self, group: u32) -> GroupMetrics {
        let label = GroupLabel { group };
        GroupMetrics {
            propose: self.propose.get_or_create_owned(&label),
            sync: self.sync.get_or_create_owned(&label),
            entries: self.entries.get_or_create_owned(&label),
            commands: self.commands.get_or_create_owned(&label),
            snapshots: self.snapshots.get_or_create_owned(&label),
        }
    }
}

/// The figures of one group; clones share them.
#[derive(Clone, Debug)]
pub struct GroupMetrics {
    pub(crate) propose: Histogram,
    pub(crate) sync: Histogram,
    pub(crate) entries: Histogram,
    pub(crate) commands: Histogram,
    pub(crate) snapshots: Counter,
}

/// Measures that nobody reads, for tools and tests.
impl Default for GroupMetrics {
    fn default() -> Self {
        RaftMetrics::unregistered().of(0)
    }
}
