//! What a router counts.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::replicas::Replicas;
use crate::exposition::{self, Exposition};

/// See the module.
#[derive(Debug)]
pub struct Figures {
    /// That were let in.
    pub requests: Counter<u64, AtomicU64>,
    pub retried: Counter<u64, AtomicU64>,
    /// To the router that leads.
    pub handed_on: Counter<u64, AtomicU64>,
    in_flight: Gauge<i64, AtomicI64>,
    waiting: Gauge<i64, AtomicI64>,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    exposition: Exposition,
}

impl Figures {
    pub fn new(replicas: Arc<Replicas>) -> Self {
        let (requests, retried, handed_on) =
            (Counter::default(), Counter::default(), Counter::default());
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
        let handed_on_: Counter<u64, AtomicU64> = Counter::clone(&handed_on);
        registry.register(
            "ff2_route_handed_on",
            "Requests that this router handed on to the one that leads, which counts them as let in",
            handed_on_,
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
        let exposition = Exposition::new(registry);
        Self { requests, retried, handed_on, in_flight, waiting, refused, exposition }
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
        self.exposition.encode()
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
        let gauges = [
            ("ff2_route_replicas", "Replicas that are announced", members.len() as f64),
            ("ff2_route_replicas_ready", "Replicas that take requests", ready as f64),
        ];
        let tokens = self.0.tokens();
        let counters = [
            ("ff2_route_tokens_generated", "Tokens that replicas generated", tokens.generated),
            (
                "ff2_route_prefix_queries",
                "Tokens that replicas looked up in prefix caches",
                tokens.looked_up,
            ),
            ("ff2_route_prefix_hits", "Of these, tokens that were found", tokens.found),
        ];
        exposition::write(&mut encoder, &gauges, &counters)
    }
}
