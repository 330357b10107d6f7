//! The metrics of the chunk server.

use std::sync::atomic::{AtomicU64, Ordering};

use ff2_daemon::{Latency, Metrics, OpLabel};
use ff2_storage_core::target::StoreOp;

use crate::payload::Payload;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

/// Figures of one process; each part updates its own.
#[derive(Debug)]
pub struct StorageMetrics {
    read_bytes: Counter,
    write_bytes: Counter,
    store_latency: Latency,
    copied_chunks: Counter,
    copied_bytes: Counter,
    copy_failures: Counter,
    pub(crate) scrubbed_bytes: Counter,
    pub(crate) scrubbed_chunks: Counter,
    pub(crate) scrub_damaged_chunks: Counter,
    pub(crate) chunks: Gauge,
    pub(crate) capacity_bytes: Gauge,
    pub(crate) used_bytes: Gauge,
    pub(crate) serving_targets: Gauge,
    pub(crate) syncing_targets: Gauge,
    pub(crate) failed_disks: Gauge,
    /// The same again, for heartbeats.
    totals: Totals,
}

#[derive(Debug, Default)]
struct Totals {
    read_bytes: AtomicU64,
    write_bytes: AtomicU64,
    read_ops: AtomicU64,
    write_ops: AtomicU64,
}

/// What a heartbeat says of the work done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}

impl StorageMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help);
        let gauge = |name, help| metrics.gauge(name, help);
        Self {
            read_bytes: counter("read_bytes", "Bytes read by clients"),
            write_bytes: counter("write_bytes", "Payload bytes of clients' writes"),
            store_latency: metrics.latency("store_latency_seconds", "Time of a store operation"),
            copied_chunks: counter("resync_chunks", "Chunks copied to syncing targets"),
            copied_bytes: counter("resync_bytes", "Bytes copied to syncing targets"),
            copy_failures: counter("resync_failures", "Copies that must be tried again"),
            scrubbed_bytes: counter("scrub_bytes", "Bytes read by scrubs"),
            scrubbed_chunks: counter("scrub_chunks", "Chunks read by scrubs"),
            scrub_damaged_chunks: counter("scrub_damaged_chunks", "Damage that scrubs found"),
            chunks: gauge("chunks", "Committed chunks of all targets"),
            capacity_bytes: gauge("capacity_bytes", "Size of all disks"),
            used_bytes: gauge("used_bytes", "Used bytes of all disks"),
            serving_targets: gauge("serving_targets", "Targets that serve"),
            syncing_targets: gauge("syncing_targets", "Targets that receive a resync"),
            failed_disks: gauge("failed_disks", "Disks that refused a write for good"),
            totals: Totals::default(),
        }
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.read_bytes.inc_by(bytes);
        self.totals.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.totals.read_ops.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.write_bytes.inc_by(bytes);
        self.totals.write_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.totals.write_ops.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn copied(&self, bytes: u32, is_ok: bool) {
        if is_ok {
            self.copied_chunks.inc();
            self.copied_bytes.inc_by(bytes.into());
        } else {
            self.copy_failures.inc();
        }
    }

    /// Measures a store operation until it is dropped.
    pub(crate) fn store_timer(&self, op: &StoreOp<Payload>) -> StoreTimer {
        let op = match op {
            StoreOp::Prepare { .. } => "prepare",
            StoreOp::Commit { .. } => "commit",
            StoreOp::Abort { .. } => "abort",
        };
        StoreTimer { op, began: std::time::Instant::now(), latency: self.store_latency.clone() }
    }

    pub fn work(&self) -> Work {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Work {
            read_bytes: get(&self.totals.read_bytes),
            write_bytes: get(&self.totals.write_bytes),
            read_ops: get(&self.totals.read_ops),
            write_ops: get(&self.totals.write_ops),
        }
    }
}

pub(crate) struct StoreTimer {
    op: &'static str,
    began: std::time::Instant,
    latency: Latency,
}

impl Drop for StoreTimer {
    fn drop(&mut self) {
        let took = self.began.elapsed().as_secs_f64();
        self.latency.get_or_create(&OpLabel { op: self.op }).observe(took);
    }
}
