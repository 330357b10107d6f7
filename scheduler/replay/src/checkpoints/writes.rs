//! What is written in each second.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes by the second, within a span of seconds; what is outside is not counted.
#[derive(Clone, Debug)]
pub(super) struct Writes {
    span: Range<u64>,
    bytes: Vec<f64>,
}

/// How even that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evenness {
    pub mean_bytes_per_s: f64,
    /// The most that was written within any second, as a multiple of the mean, and within any ten.
    pub peak_1s: f64,
    pub peak_10s: f64,
    /// Over all seconds, as a part of the mean.
    pub deviation: f64,
}

impl Writes {
    pub(super) fn of(span: Range<u64>) -> Self {
        let bytes = vec![0.0; (span.end - span.start) as usize];
        Self { span, bytes }
    }

    /// Something wrote at this rate from one moment, in ms, to another.
    pub(super) fn add(&mut self, from_ms: u64, to_ms: u64, bytes_per_s: u64) {
        let first = (from_ms / 1_000).max(self.span.start);
        let end = to_ms.div_ceil(1_000).min(self.span.end);
        for second in first..end {
            let ms = to_ms.min((second + 1) * 1_000) - from_ms.max(second * 1_000);
            let at = (second - self.span.start) as usize;
            self.bytes[at] += bytes_per_s as f64 * ms as f64 / 1e3;
        }
    }

    /// Of the same span.
    pub(super) fn with(&self, other: &Self) -> Self {
        assert_eq!(self.span, other.span, "they are of the same time");
        let sums = self.bytes.iter().zip(&other.bytes).map(|(one, other)| one + other);
        Self { span: self.span.clone(), bytes: sums.collect() }
    }

    /// The most within any ten seconds, as a multiple of what another one has then.
    pub(super) fn peak_over(&self, other: &Self) -> f64 {
        assert_eq!(self.span, other.span, "they are of the same time");
        let sums = |bytes: &[f64]| -> Vec<f64> {
            bytes.windows(10).map(|window| window.iter().sum::<f64>()).collect()
        };
        let (sums, others) = (sums(&self.bytes), sums(&other.bytes));
        sums.iter().zip(&others).map(|(sum, other)| sum / other.max(1.0)).fold(0.0, f64::max)
    }

    pub(super) fn evenness(&self) -> Evenness {
        let mean = self.bytes.iter().sum::<f64>() / self.bytes.len() as f64;
        let most = |seconds: usize| {
            let sums = self.bytes.windows(seconds).map(|window| window.iter().sum::<f64>());
            sums.fold(0.0, f64::max) / seconds as f64 / mean
        };
        let squares = self.bytes.iter().map(|bytes| (bytes / mean - 1.0).powi(2));
        let deviation = (squares.sum::<f64>() / self.bytes.len() as f64).sqrt();
        Evenness { mean_bytes_per_s: mean, peak_1s: most(1), peak_10s: most(10), deviation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_span_is_counted_to_the_millisecond() {
        let mut writes = Writes::of(10..30);
        writes.add(0, 10_500, 1_000);
        writes.add(12_250, 12_750, 4_000);
        writes.add(29_000, 99_000, 1_000);
        let total: f64 = writes.bytes.iter().sum();
        assert_eq!((writes.bytes[0], writes.bytes[2], total), (500.0, 2_000.0, 3_500.0));
        let evenness = writes.evenness();
        assert_eq!((evenness.mean_bytes_per_s, evenness.peak_1s), (175.0, 2_000.0 / 175.0));
        assert_eq!(evenness.peak_10s, 250.0 / 175.0);
    }

    #[test]
    fn what_never_changes_has_no_peak() {
        let mut writes = Writes::of(0..60);
        writes.add(0, 60_000, 7);
        let even = Evenness { mean_bytes_per_s: 7.0, peak_1s: 1.0, peak_10s: 1.0, deviation: 0.0 };
        assert_eq!(writes.evenness(), even);
    }
}
