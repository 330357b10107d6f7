//! What an engine tells of itself.

use std::time::Duration;

/// Counters since the start and gauges of now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Choices under way, and requests in the queue.
    pub running: usize,
    pub waiting: usize,
    /// Blocks of sequences under way; such that only the prefix cache holds; all there are.
    pub blocks_used: usize,
    pub blocks_cached: usize,
    pub blocks: usize,
    pub block_tokens: usize,
    pub kv_bytes_per_token: usize,
    /// Tokens looked up in the prefix cache, and found there (in memory or on disk).
    pub prefix_queries: u64,
    pub prefix_hits: u64,
    /// Of the hits, those read from disk.
    pub prefix_hits_disk: u64,
    /// Blocks that the disk was too full or too slow for.
    pub blocks_not_saved: u64,
    pub tokens_prefilled: u64,
    pub tokens_generated: u64,
    pub tokens_drafted: u64,
    pub tokens_accepted: u64,
    pub preemptions: u64,
    pub step_time: Histogram,
}

/// Counts of times by upper bound, not cumulative.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// One more than [`Histogram::BOUNDS_S`]: the last has what is above all.
    pub counts: Vec<u64>,
    pub sum_s: f64,
}

impl Histogram {
    /// Seconds, each inclusive.
    pub const BOUNDS_S: [f64; 12] =
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

    pub(crate) fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.counts[Self::BOUNDS_S.partition_point(|bound| *bound < seconds)] += 1;
        self.sum_s += seconds;
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; Self::BOUNDS_S.len() + 1], sum_s: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_below_the_first_bound_that_reaches_it() {
        let mut histogram = Histogram::default();
        for millis in [1, 2, 9000] {
            histogram.add(Duration::from_millis(millis));
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[12]), (1, 1, 1));
        assert!((histogram.sum_s - 9.003).abs() < 1e-9);
    }
}
