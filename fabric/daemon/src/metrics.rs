//! The metrics of one process, named `ff2_<component>_<noun>_<unit>`, in the Prometheus text format.

use std::{fmt, sync::atomic::AtomicU64};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

use crate::process::ProcessMetrics;

/// Latencies from 16 us, a read from memory, in steps of two to 8 s, where time-outs begin.
const LATENCY_FIRST_S: f64 = 16e-6;
const LATENCY_STEPS: u16 = 20;

/// The label of metrics that exist once for each operation.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OpLabel {
    pub op: &'static str,
}

/// Makes latency histograms, in seconds; for families with labels of their own.
#[derive(Clone, Copy, Debug)]
pub struct LatencyBuckets;

impl MetricConstructor<Histogram> for LatencyBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(LATENCY_FIRST_S, 2.0, LATENCY_STEPS))
    }
}

/// A latency histogram for each operation, in seconds.
pub type Latency = Family<OpLabel, Histogram, LatencyBuckets>;

/// The registry of one process. Registering a name twice is a bug of the caller and shows as two
/// metrics of the same name.
pub struct Metrics {
    registry: Mutex<Registry>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// `component` is the daemon's name, for example `ff2-metad`: names then begin with `ff2_metad_`.
    pub fn new(component: &str, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix(component.replace('-', "_"));
        registry.register_collector(Box::new(ProcessMetrics::new()));
        let build = Family::<[(&'static str, &'static str); 1], Gauge>::default();
        build.get_or_create(&[("version", version)]).set(1);
        registry.register("build", "Always 1; the label tells the version of the program", build);
        Self { registry: Mutex::new(registry) }
    }

    /// Registers any metric and returns it. `name` is `<noun>_<unit>`; a counter's name gets `_total`.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        assert!(!help.is_empty(), "every metric says what it means");
        let help = help.trim_end_matches('.');
        self.registry.lock().register(name, help, metric.clone());
        metric
    }

    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A gauge of fractions.
    pub fn gauge_f64(&self, name: &str, help: &str) -> Gauge<f64, AtomicU64> {
        self.register(name, help, Gauge::default())
    }

    /// A counter for each operation.
    pub fn op_counter(&self, name: &str, help: &str) -> Family<OpLabel, Counter> {
        self.register(name, help, Family::default())
    }

    /// A latency histogram for each operation; `name` ends in `_seconds`.
    pub fn latency(&self, name: &str, help: &str) -> Latency {
        assert!(name.ends_with("_seconds"), "the unit is the last word: {name}");
        self.register(name, help, Latency::new_with_constructor(LatencyBuckets))
    }

    /// Figures that are read when somebody asks.
    pub fn collector(&self, collector: impl Collector) {
        self.registry.lock().register_collector(Box::new(collector));
    }

    /// Everything, as Prometheus reads it.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock()).expect("a String takes any text");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_prefix_and_help() {
        let metrics = Metrics::new("ff2-metad", "1.2.3");
        metrics.counter("proposals", "Commands proposed.").inc_by(3);
        metrics.gauge("sessions", "Open sessions").set(7);
        let latency = metrics.latency("op_latency_seconds", "Time of one operation");
        latency.get_or_create(&OpLabel { op: "lookup" }).observe(0.000_1);
        let text = metrics.encode();
        assert!(text.contains("# HELP ff2_metad_proposals Commands proposed.\n"), "{text}");
        assert!(text.contains("ff2_metad_proposals_total 3"), "{text}");
        assert!(text.contains("ff2_metad_sessions 7"));
        assert!(
            text.contains("ff2_metad_op_latency_seconds_bucket{le=\"0.000128\",op=\"lookup\"} 1")
        );
        assert!(text.contains("ff2_metad_build{version=\"1.2.3\"} 1"));
        assert!(text.contains("ff2_metad_process_resident_bytes "));
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(name.starts_with("ff2_metad_"), "{line}");
            assert!(text.contains(&format!("# HELP {name} ")), "no help for {name}");
        }
    }
}
