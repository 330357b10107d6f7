//! One guard for one operation: it is listed while it runs, timed when it ends, counted when it fails.

use prometheus_client::metrics::{counter::Counter, family::Family};

use crate::{
    inflight::{InFlight, InFlightGuard},
    metrics::{Latency, Metrics, OpLabel},
};

/// The operations that a daemon serves.
#[derive(Clone, Debug)]
pub struct Operations {
    inflight: InFlight,
    latency: Latency,
    failures: Family<OpLabel, Counter>,
}

impl Operations {
    pub fn new(metrics: &Metrics, inflight: InFlight) -> Self {
        Self {
            inflight,
            latency: metrics.latency("op_latency_seconds", "Time from the request to its answer"),
            failures: metrics.op_counter("op_failures", "Operations that ended with an error"),
        }
    }

    pub fn begin(&self, op: &'static str, detail: impl Into<String>) -> Operation {
        Operation {
            guard: self.inflight.begin(op, detail),
            label: OpLabel { op },
            latency: self.latency.clone(),
            failures: self.failures.clone(),
        }
    }
}

/// An operation in progress; dropping it ends it.
#[derive(Debug)]
pub struct Operation {
    guard: InFlightGuard,
    label: OpLabel,
    latency: Latency,
    failures: Family<OpLabel, Counter>,
}

impl Operation {
    /// Says what it waits for, for `/inflight`.
    pub fn waits_for(&self, what: impl Into<String>) {
        self.guard.waits_for(what);
    }

    pub fn goes_on(&self) {
        self.guard.goes_on();
    }

    pub fn failed(&self) {
        self.failures.get_or_create(&self.label).inc();
    }

    /// Ends it by its outcome.
    pub fn end<T, E>(self, outcome: Result<T, E>) -> Result<T, E> {
        if outcome.is_err() {
            self.failed();
        }
        outcome
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let took = self.guard.since().elapsed();
        self.latency.get_or_create(&self.label).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_listed_timed_and_counted() {
        let metrics = Metrics::new("ff2-test", "0");
        let inflight = InFlight::default();
        let operations = Operations::new(&metrics, inflight.clone());
        let read = operations.begin("read", "chunk 1.0");
        assert_eq!(inflight.count(), 1);
        assert!(read.end(Err::<(), _>("no")).is_err());
        assert!(operations.begin("read", "").end(Ok::<_, ()>(1)).is_ok());
        assert_eq!(inflight.count(), 0);
        let text = metrics.encode();
        assert!(text.contains("ff2_test_op_latency_seconds_count{op=\"read\"} 2"), "{text}");
        assert!(text.contains("ff2_test_op_failures_total{op=\"read\"} 1"), "{text}");
    }
}
