//! Metrics of a run for Prometheus, over HTTP at `/metrics`.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicU64},
    thread,
};

use anyhow::{Context, Result};
use axum::{Router, extract::State, http::header::CONTENT_TYPE, routing::get};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Record;

type Number = Gauge<f64, AtomicU64>;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) struct Prometheus {
    step: Gauge,
    tokens: Gauge,
    loss: Number,
    mtp_loss: Number,
    heldout_loss: Number,
    heldout_bits: Number,
    learning_rate: Number,
    grad_norm: Number,
    tokens_per_second: Number,
    mfu: Number,
    violation: Number,
    load: Family<[(&'static str, String); 1], Number>,
    bad_steps: Counter,
    seconds: Number,
}

impl Prometheus {
    /// Serves at `listen` (`host:port`) until the process ends. Returns the address too, port 0 resolved.
    ///
    /// # Errors
    /// An address that cannot be listened at.
    pub(super) fn serve(listen: &str) -> Result<(Self, SocketAddr)> {
        let mut registry = Registry::with_prefix("ff2_train");
        let mut number = |name: &str, help: &str| {
            let metric = Number::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let metrics = Self {
            loss: number("loss_nats", "Loss of the last step, nats a token"),
            mtp_loss: number("mtp_loss_nats", "Loss of multi-token prediction, nats a token"),
            heldout_loss: number("heldout_loss_nats", "Loss of held-out text, nats a token"),
            heldout_bits: number("heldout_bits_per_byte", "Bits for each byte of held-out text"),
            learning_rate: number("learning_rate_ratio", "Learning rate of the last step"),
            grad_norm: number("gradient_norm_ratio", "Norm of the gradients before clipping"),
            tokens_per_second: number("tokens_per_second", "Tokens trained in a second"),
            mfu: number("mfu_ratio", "Model FLOPs utilisation"),
            violation: number("expert_max_violation_ratio", "Most loaded expert above the mean"),
            seconds: number("step_seconds", "Time of the last step"),
            step: Gauge::default(),
            tokens: Gauge::default(),
            load: Family::default(),
            bad_steps: Counter::default(),
        };
        registry.register("step_count", "Steps that are done", metrics.step.clone());
        registry.register("tokens_count", "Tokens that were trained on", metrics.tokens.clone());
        registry.register(
            "expert_load_ratio",
            "Share of choices of each expert",
            metrics.load.clone(),
        );
        let help = "Steps left out because their loss or gradient was no number";
        registry.register("bad_steps", help, metrics.bad_steps.clone());
        let address = listen_at(listen, registry)
            .with_context(|| format!("serve metrics at show.http_listen = {listen:?}"))?;
        Ok((metrics, address))
    }

    pub(super) fn step(&self, record: &Record) {
        self.step.set(record.step as i64);
        self.tokens.set(record.tokens as i64);
        let heldout = record.heldout;
        for (metric, value) in [
            (&self.loss, record.loss),
            (&self.mtp_loss, record.mtp_loss),
            (&self.heldout_loss, heldout.map(|score| score.loss)),
            (&self.heldout_bits, heldout.map(|score| score.bits_per_byte)),
            (&self.learning_rate, Some(record.learning_rate)),
            (&self.grad_norm, record.grad_norm),
            (&self.tokens_per_second, Some(record.tokens_per_second)),
            (&self.mfu, Some(record.mfu)),
            (&self.violation, record.expert_max_violation),
            (&self.seconds, Some(record.seconds)),
        ] {
            if let Some(value) = value {
                metric.set(value);
            }
        }
        for (expert, share) in record.expert_load.iter().enumerate() {
            self.load.get_or_create(&[("expert", expert.to_string())]).set(*share);
        }
        if record.is_bad {
            self.bad_steps.inc();
        }
    }
}

fn listen_at(listen: &str, registry: Registry) -> Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let registry = Arc::new(Mutex::new(registry));
    let answer = async |State(registry): State<Arc<Mutex<Registry>>>| {
        let mut text = String::new();
        // Into a text nothing fails.
        let _ = encode(&mut text, &registry.lock());
        ([(CONTENT_TYPE, TEXT)], text)
    };
    let router = Router::new().route("/metrics", get(answer)).with_state(registry);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        runtime.block_on(async {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                let _ = axum::serve(listener, router).await;
            }
        });
    };
    thread::Builder::new().name("metrics".into()).spawn(serve)?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::watch::record::example;

    #[test]
    fn the_last_step_is_served() {
        let (metrics, address) = Prometheus::serve("127.0.0.1:0").unwrap();
        metrics.step(&example(5));
        metrics.step(&Record { is_bad: true, loss: None, ..example(6) });
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        for line in [
            "ff2_train_step_count 6\n",
            "ff2_train_loss_nats 2.0\n",
            "ff2_train_bad_steps_total 1\n",
            "ff2_train_expert_load_ratio{expert=\"1\"} 0.2\n",
            "ff2_train_mfu_ratio 0.4\n",
        ] {
            assert!(answer.contains(line), "{line}{answer}");
        }
        let taken = Prometheus::serve(&address.to_string()).err().unwrap();
        assert!(format!("{taken:#}").contains("show.http_listen"), "{taken:#}");
    }
}
