//! Figures as Prometheus reads them: one registry, written when somebody asks.

use std::fmt;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// Of what kind the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures of a process.
pub struct Exposition(Mutex<Registry>);

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl Exposition {
    pub fn new(registry: Registry) -> Self {
        Self(Mutex::new(registry))
    }

    pub fn encode(&self) -> String {
        let mut written = String::new();
        text::encode(&mut written, &self.0.lock()).expect("a String takes any text");
        written
    }
}

/// Figures that something else keeps, for a collector: gauges and counters by name, with what they mean.
///
/// # Errors
/// The encoder's.
pub fn write(
    encoder: &mut DescriptorEncoder<'_>,
    gauges: &[(&str, &str, f64)],
    counters: &[(&str, &str, u64)],
) -> Result<(), fmt::Error> {
    for (name, help, value) in gauges {
        let gauge = ConstGauge::<f64>::new(*value);
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    for (name, help, value) in counters {
        let counter = ConstCounter::<u64>::new(*value);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}
