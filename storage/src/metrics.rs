//! The chunk server's own figures: traffic, and what the disks did.

use std::{
    fmt::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::counter::ConstCounter,
};

use crate::engine::Engine;

/// Traffic since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) read_bytes: AtomicU64,
    pub(crate) read_ops: AtomicU64,
    pub(crate) write_bytes: AtomicU64,
    pub(crate) write_ops: AtomicU64,
}

impl Traffic {
    pub(crate) fn read(&self, bytes: u64) {
        self.read_ops.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.write_ops.fetch_add(1, Ordering::Relaxed);
        self.write_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Reads the counters of traffic and engines when somebody asks.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) engines: Vec<Engine>,
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats: Vec<_> = self.engines.iter().map(Engine::stats).collect();
        let sum = |of: fn(&crate::engine::EngineStats) -> u64| stats.iter().map(of).sum::<u64>();
        let counters = [
            ("read_bytes", "Bytes sent to readers", load(&self.traffic.read_bytes)),
            ("reads", "Parts of chunks read for clients", load(&self.traffic.read_ops)),
            (
                "write_bytes",
                "Payload bytes of updates and forwards",
                load(&self.traffic.write_bytes),
            ),
            ("writes", "Updates and forwards taken", load(&self.traffic.write_ops)),
            ("engine_prepares", "Updates made durable", sum(|s| s.prepares)),
            ("engine_commits", "Updates committed", sum(|s| s.commits)),
            ("engine_aborts", "Updates dropped", sum(|s| s.aborts)),
            ("engine_reads", "Reads of the engines", sum(|s| s.reads)),
            ("engine_no_space", "Updates refused for lack of space", sum(|s| s.refused_for_space)),
            (
                "engine_corrupt_sectors",
                "Sectors whose checksum did not match",
                sum(|s| s.corrupt_sectors),
            ),
            ("engine_index_syncs", "Syncs of the index log", sum(|s| s.index_syncs)),
            ("index_log_bytes", "Bytes written to the index log", sum(|s| s.index.log_bytes)),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let (mut used, mut capacity) = (0, 0);
        for engine in &self.engines {
            let space = engine.space();
            used += space.used_bytes;
            capacity += space.capacity_bytes;
        }
        let gauges = [
            ("used_bytes", "Bytes of the disks in use", used),
            ("capacity_bytes", "Bytes of the disks", capacity),
        ];
        for (name, help, value) in gauges {
            let gauge = prometheus_client::metrics::gauge::ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
