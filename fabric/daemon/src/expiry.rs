//! Until when a server's certificate holds, as a metric.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
};

/// Reads the date anew each time: the certificate may have been exchanged.
pub struct Expiry<F>(F);

impl<F> fmt::Debug for Expiry<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expiry")
    }
}

impl<F: Fn() -> Option<u64> + Send + Sync + 'static> Expiry<F> {
    /// `expires_s` tells the Unix time at which the certificate ends.
    pub fn new(expires_s: F) -> Self {
        Self(expires_s)
    }

    fn left_s(&self) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        i64::try_from(self.0()?).ok()?.checked_sub(i64::try_from(now).ok()?)
    }
}

impl<F: Fn() -> Option<u64> + Send + Sync + 'static> Collector for Expiry<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(left_s) = self.left_s() else { return Ok(()) };
        let gauge = ConstGauge::new(left_s);
        let help = "Time until the certificate of this server ends, below 0 after it";
        let metric = encoder.encode_descriptor(
            "certificate_left_seconds",
            help,
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    #[test]
    fn what_is_left_is_told_while_there_is_a_certificate() {
        let metrics = Metrics::new("ff2-metad", "1");
        metrics.collector(Expiry::new(|| Some(0)));
        let text = metrics.encode();
        assert!(text.contains("ff2_metad_certificate_left_seconds -"), "{text}");
        let metrics = Metrics::new("ff2-metad", "1");
        metrics.collector(Expiry::new(|| None));
        assert!(!metrics.encode().contains("certificate"));
    }
}
