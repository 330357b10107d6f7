//! Metrics of metad beside the latencies of its operations.

use std::time::Duration;

use ff2_daemon::{LatencyBuckets, Metrics};
use ff2_group::Group;
use ff2_meta_core::{callbacks::CallbackCounts, cluster::ClusterMachine, namespace::Namespace};
use ff2_proto::{Routing, pb};
use pb::{NodeRole, PublicState};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::Counter,
        family::MetricConstructor,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
};

/// Figures of the cluster as this replica knows it.
#[derive(Debug)]
pub(crate) struct Gauges {
    version: Gauge,
    alive: Gauge,
    dead: Gauge,
    full: Gauge,
    degraded: Gauge,
    down: Gauge,
    moving: Gauge,
}

impl Gauges {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.gauge(name, help);
        Self {
            version: gauge("routing_version", "Version of the routing that this replica applied"),
            alive: gauge("storage_nodes_alive", "Storage nodes that hold a lease"),
            dead: gauge("storage_nodes_dead", "Storage nodes whose lease ended"),
            full: gauge("chains_full", "Chains of which all replicas serve"),
            degraded: gauge("chains_degraded", "Chains that serve with less than all replicas"),
            moving: gauge("targets_moving", "Targets that come to their chain or leave it"),
            down: gauge("chains_down", "Chains of which no replica serves"),
        }
    }

    pub(crate) fn show(&self, routing: &Routing) {
        let storage = routing.nodes.values().filter(|node| node.role() == NodeRole::Storaged);
        let (alive, dead): (Vec<_>, Vec<_>) = storage.partition(|node| node.alive);
        let (mut full, mut degraded, mut down) = (0, 0, 0);
        for chain in routing.chains.values() {
            let serving =
                chain.members.iter().filter(|m| m.state() == PublicState::Serving).count();
            match serving {
                0 => down += 1,
                serving if serving >= routing.staying(chain).count() => full += 1,
                _ => degraded += 1,
            }
        }
        self.version.set(i64::try_from(routing.version.0).unwrap_or(i64::MAX));
        self.alive.set(alive.len() as i64);
        self.dead.set(dead.len() as i64);
        self.full.set(full);
        self.degraded.set(degraded);
        self.down.set(down);
        let moves = |target: &&pb::Target| target.replaces != 0 || target.leaving;
        self.moving.set(routing.targets.values().filter(moves).count() as i64);
    }
}

/// What mounts cache, as the namespace's leader knows it.
#[derive(Clone, Debug)]
pub(crate) struct CallbackMetrics {
    held: Gauge,
    invalidations: Counter,
    evictions: Counter,
    lapses: Counter,
    looks: Counter,
    waits: Histogram,
}

impl CallbackMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |name: &str, help: &str| metrics.counter(name, help);
        Self {
            held: metrics
                .gauge("callbacks_held", "Inodes that sessions cache, one for each session"),
            invalidations: counter("callback_invalidations", "Invalidations sent to sessions"),
            evictions: counter("callback_evictions", "Of them, those that made room for others"),
            looks: counter(
                "callback_looks",
                "Questions of sessions that waited for what another one had not told yet",
            ),
            lapses: counter(
                "callback_lapses",
                "Sessions whose cache lease ended with something held",
            ),
            waits: metrics.register(
                "callback_wait_seconds",
                "Time that changes waited for sessions to drop what they cached",
                LatencyBuckets.new_metric(),
            ),
        }
    }

    /// What a step changed.
    pub(crate) fn counted(&self, before: CallbackCounts, after: CallbackCounts) {
        if before == after {
            return;
        }
        self.held.inc_by(after.held.cast_signed() - before.held.cast_signed());
        self.invalidations.inc_by(after.invalidations - before.invalidations);
        self.evictions.inc_by(after.evictions - before.evictions);
        self.lapses.inc_by(after.lapses - before.lapses);
        self.looks.inc_by(after.looks - before.looks);
    }

    pub(crate) fn term_ended(&self, held: u64) {
        self.held.dec_by(held.cast_signed());
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.waits.observe(time.as_secs_f64());
    }
}

/// Figures of the groups, read when somebody asks.
#[derive(Debug)]
pub(crate) struct Figures {
    cluster: Group<ClusterMachine>,
    namespace: Group<Namespace>,
}

impl Figures {
    pub(crate) fn new(cluster: Group<ClusterMachine>, namespace: Group<Namespace>) -> Self {
        Self { cluster, namespace }
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let groups = [self.cluster.status(), self.namespace.status()];
        let leads = [self.cluster.leadership(), self.namespace.leadership()]
            .map(|leadership| u64::from(leadership.borrow().is_leader));
        let figures: [(&str, &str, [u64; 2]); 4] = [
            ("group_leads", "1 if this metad leads the group", leads),
            ("group_term", "Raft term of the group", groups.each_ref().map(|g| g.term)),
            (
                "group_commit",
                "Index up to which the log is committed",
                groups.each_ref().map(|g| g.commit_index),
            ),
            (
                "group_applied",
                "Index up to which the log is applied",
                groups.each_ref().map(|g| g.applied_index),
            ),
        ];
        for (name, help, values) in figures {
            let mut family = encoder.encode_descriptor(
                name,
                help,
                None,
                ConstGauge::new(0_u64).metric_type(),
            )?;
            for (group, value) in groups.iter().zip(values) {
                let labels = [("group", group.group)];
                let metric = family.encode_family(&labels)?;
                ConstGauge::new(value).encode(metric)?;
            }
        }
        Ok(())
    }
}
