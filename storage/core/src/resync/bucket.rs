//! A token bucket that is told the time.

use std::time::Duration;

/// Lets a steady number of bytes a second through. What is larger than the bucket goes when it is
/// full, and is paid off afterwards.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    bytes_per_s: u64,
    /// Tokens, at most one second's worth; negative while a large one is paid off.
    level: i64,
    filled_at: Option<Duration>,
}

impl TokenBucket {
    pub fn new(bytes_per_s: u64) -> Self {
        let bytes_per_s = bytes_per_s.clamp(1, i64::MAX as u64 / 2);
        Self { bytes_per_s, level: burst(bytes_per_s), filled_at: None }
    }

    pub fn set_rate(&mut self, bytes_per_s: u64) {
        self.bytes_per_s = bytes_per_s.clamp(1, i64::MAX as u64 / 2);
        self.level = self.level.min(burst(self.bytes_per_s));
    }

    /// Takes tokens for `bytes` if any are left.
    pub fn take(&mut self, now: Duration, bytes: u32) -> bool {
        self.fill(now);
        if self.level <= 0 {
            return false;
        }
        self.level -= i64::from(bytes);
        true
    }

    fn fill(&mut self, now: Duration) {
        let since = now.saturating_sub(self.filled_at.unwrap_or(now));
        let gained = u128::from(self.bytes_per_s) * since.as_nanos() / 1_000_000_000;
        if gained == 0 && self.filled_at.is_some() {
            // Too short a while for a whole token: leave it to grow.
            return;
        }
        self.filled_at = Some(now);
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(gained).min(burst(self.bytes_per_s));
    }
}

/// A tenth of a second's worth may go at once.
fn burst(bytes_per_s: u64) -> i64 {
    i64::try_from(bytes_per_s / 10).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time_whatever_the_sizes() {
        for size in [4_096, 1 << 20, 64 << 20] {
            let rate = 100 << 20;
            let mut bucket = TokenBucket::new(rate);
            let mut sent = 0u64;
            for ms in 0..10_000 {
                while bucket.take(Duration::from_millis(ms), size) {
                    sent += u64::from(size);
                }
            }
            let allowed = 10 * rate + rate / 10 + u64::from(size);
            assert!(sent <= allowed, "{size}: {sent} > {allowed}");
            assert!(sent >= 9 * rate, "{size}: {sent} is too slow");
        }
    }

    #[test]
    fn slow_rates_still_flow() {
        let mut bucket = TokenBucket::new(3);
        assert!(bucket.take(Duration::ZERO, 1));
        let mut sent = 0;
        for ms in 0..10_000 {
            sent += u32::from(bucket.take(Duration::from_millis(ms), 1));
        }
        assert!((29..=31).contains(&sent), "{sent}");
    }
}
