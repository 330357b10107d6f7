//! What a router counts.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use super::replicas::Replicas;

/// See the module.
pub struct Figures {
    /// That were let in.
    pub requests: Counter<u64, AtomicU64>,
    pub retried: Counter<u64, AtomicU64>,
    in_flight: Gauge<i64, AtomicI64>,
    waiting: Gauge<i64, AtomicI64>,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    registry: Mutex<Registry>,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

impl Figures {
    pub fn new(replicas: Arc<Replicas>) -> Self {
        let (requests, retried) = (Counter::default(), Counter::default());
        let (in_flight, waiting) = (Gauge::default(), Gauge::default());
        let refused = Family::default();
        let mut registry = Registry::default();
        let requests_: Counter<u64, AtomicU64> = Counter::clone(&requests);
        registry.register("ff2_route_requests", "Requests that were let in", requests_);
        let retried_: Counter<u64, AtomicU64> = Counter::clone(&retried);
        registry.register(
            "ff2_route_retries",
            "Requests that were sent again, as a replica had not begun to answer",
            retried_,
        );
        let in_flight_: Gauge<i64, AtomicI64> = Gauge::clone(&in_flight);
        registry.register("ff2_route_requests_in_flight", "Requests under way", in_flight_);
        let waiting_: Gauge<i64, AtomicI64> = Gauge::clone(&waiting);
        registry.register(
            "ff2_route_requests_waiting",
            "Requests that wait for any replica to take requests",
            waiting_,
        );
        let refused_ = Family::clone(&refused);
        registry.register(
            "ff2_route_refused",
            "Requests that the router refused, by the error's code",
            refused_,
        );
        registry.register_collector(Box::new(OfReplicas(replicas)));
        Self { requests, retried, in_flight, waiting, refused, registry: Mutex::new(registry) }
    }

    pub fn begin(&self) -> UnderWay {
        self.requests.inc();
        UnderWay { _counted: Arc::new(Counted::of(&self.in_flight)) }
    }

    pub(super) fn wait(&self) -> Counted {
        Counted::of(&self.waiting)
    }

    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    pub fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&[("code", code)]).inc();
    }

    /// As Prometheus reads it.
    pub fn encode(&self) -> String {
        let mut written = String::new();
        text::encode(&mut written, &self.registry.lock()).expect("a String takes any text");
        written
    }
}

/// Counted as under way until the last clone is gone.
#[derive(Debug, Clone)]
pub struct UnderWay {
    _counted: Arc<Counted>,
}

/// One of a gauge, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Gauge<i64, AtomicI64>);

impl Counted {
    fn of(gauge: &Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug)]
struct OfReplicas(Arc<Replicas>);

impl Collector for OfReplicas {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let members = self.0.members();
        let ready = members.iter().filter(|it| it.is_ready).count();
        for (name, help, value) in [
            ("ff2_route_replicas", "Replicas that are announced", members.len()),
            ("ff2_route_replicas_ready", "Replicas that take requests", ready),
        ] {
            let gauge = ConstGauge::<f64>::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let tokens = self.0.tokens();
        for (name, help, value) in [
            ("ff2_route_tokens_generated", "Tokens that replicas generated", tokens.generated),
            (
                "ff2_route_prefix_queries",
                "Tokens that replicas looked up in prefix caches",
                tokens.looked_up,
            ),
            ("ff2_route_prefix_hits", "Of these, tokens that were found", tokens.found),
        ] {
            let counter = ConstCounter::<u64>::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}
