//! Figures of a server. Where one means the same as vLLM's it has that name, so that dashboards fit both; ours begin
//! with `ff2_serve_`.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ff2_engine::Engine;
use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{
    api::usage::Usage,
    exposition::{self, Exposition},
    net::serve::Connections,
};

/// Times from 1 ms in steps of two to 9 minutes.
const SECONDS: (f64, u16) = (0.001, 20);
/// Tokens from 1 in steps of two to 128 Ki.
const TOKENS: (f64, u16) = (1.0, 18);

/// What requests tell as they go on.
#[derive(Debug)]
pub struct RequestMetrics {
    first_token: Histogram,
    next_token: Histogram,
    whole: Histogram,
    prompt: Histogram,
    completion: Histogram,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    ended: Family<[(&'static str, &'static str); 1], Counter>,
}

fn histogram((first, steps): (f64, u16)) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, steps))
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            first_token: histogram(SECONDS),
            next_token: histogram(SECONDS),
            whole: histogram(SECONDS),
            prompt: histogram(TOKENS),
            completion: histogram(TOKENS),
            prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            ended: Family::default(),
        }
    }
}

impl RequestMetrics {
    pub fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    pub fn next_token(&self, after: Duration) {
        self.next_token.observe(after.as_secs_f64());
    }

    /// A choice ended by one of vLLM's reasons: stop, length, abort, error.
    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&[("finished_reason", reason)]).inc();
    }

    pub fn finished(&self, usage: Usage, after: Duration) {
        self.whole.observe(after.as_secs_f64());
        self.prompt.observe(usage.prompt as f64);
        self.completion.observe(usage.completion as f64);
        self.prompt_tokens.inc_by(usage.prompt as u64);
        self.completion_tokens.inc_by(usage.completion as u64);
    }

    fn register(&self, registry: &mut Registry) {
        let mut time = |name: &str, help: &str, metric: &Histogram| {
            registry.register(name, help, metric.clone())
        };
        time(
            "vllm:time_to_first_token_seconds",
            "From a request to its first token",
            &self.first_token,
        );
        time(
            "vllm:inter_token_latency_seconds",
            "Between two tokens of a request",
            &self.next_token,
        );
        time("vllm:e2e_request_latency_seconds", "From a request to its end", &self.whole);
        time("vllm:request_prompt_tokens", "Tokens of a prompt", &self.prompt);
        time("vllm:request_generation_tokens", "Tokens generated for a prompt", &self.completion);
        let mut count = |name: &str, help: &str, metric: &Counter| {
            registry.register(name, help, metric.clone())
        };
        count("vllm:prompt_tokens", "Tokens of all prompts", &self.prompt_tokens);
        count("vllm:generation_tokens", "Tokens generated", &self.completion_tokens);
        registry.register("vllm:request_success", "Choices that ended, by why", self.ended.clone());
    }
}

/// All figures of a process.
#[derive(Debug)]
pub struct ServerMetrics {
    exposition: Exposition,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
}

impl ServerMetrics {
    pub fn new(
        model: &str,
        engine: Engine,
        requests: &RequestMetrics,
        connections: Arc<Connections>,
    ) -> Self {
        let mut registry = Registry::default();
        let refused = Family::default();
        let of_model =
            registry.sub_registry_with_label(("model_name".into(), model.to_owned().into()));
        requests.register(of_model);
        of_model.register(
            "ff2_serve_refused",
            "Requests that were refused, by the error's code",
            refused.clone(),
        );
        of_model.register_collector(Box::new(EngineFigures { engine, connections }));
        Self { exposition: Exposition::new(registry), refused }
    }

    pub fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&[("code", code)]).inc();
    }

    /// As Prometheus reads it.
    pub fn encode(&self) -> String {
        self.exposition.encode()
    }
}

/// Figures that the engine keeps, read when somebody asks.
struct EngineFigures {
    engine: Engine,
    connections: Arc<Connections>,
}

impl fmt::Debug for EngineFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineFigures").finish_non_exhaustive()
    }
}

impl Collector for EngineFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.engine.figures();
        let used =
            (figures.blocks_used + figures.blocks_cached) as f64 / figures.blocks.max(1) as f64;
        let gauges = [
            ("vllm:num_requests_running", "Choices under way", figures.running as f64),
            ("vllm:num_requests_waiting", "Requests in the queue", figures.waiting as f64),
            ("vllm:kv_cache_usage_perc", "Part of the KV blocks that hold anything, 0 to 1", used),
            ("ff2_serve_kv_blocks", "KV blocks there are", figures.blocks as f64),
            (
                "ff2_serve_kv_blocks_used",
                "KV blocks of sequences under way",
                figures.blocks_used as f64,
            ),
            (
                "ff2_serve_kv_blocks_cached",
                "KV blocks that only the prefix cache holds",
                figures.blocks_cached as f64,
            ),
            (
                "ff2_serve_kv_bytes_per_token",
                "Memory of one token's keys and values",
                figures.kv_bytes_per_token as f64,
            ),
            (
                "ff2_serve_connections",
                "Open connections",
                self.connections.open.load(Ordering::Relaxed) as f64,
            ),
        ];
        let counters = [
            (
                "vllm:prefix_cache_queries",
                "Tokens looked up in the prefix cache",
                figures.prefix_queries,
            ),
            ("vllm:prefix_cache_hits", "Tokens found in the prefix cache", figures.prefix_hits),
            (
                "vllm:num_preemptions",
                "Choices that gave their blocks to others",
                figures.preemptions,
            ),
            ("vllm:spec_decode_num_draft_tokens", "Tokens drafted", figures.tokens_drafted),
            (
                "vllm:spec_decode_num_accepted_tokens",
                "Drafted tokens that were right",
                figures.tokens_accepted,
            ),
            (
                "ff2_serve_prefix_hits_disk",
                "Of the prefix cache's hits, tokens read from disk",
                figures.prefix_hits_disk,
            ),
            (
                "ff2_serve_tokens_prefilled",
                "Tokens of prompts that were computed",
                figures.tokens_prefilled,
            ),
        ];
        exposition::write(&mut encoder, &gauges, &counters)
    }
}
