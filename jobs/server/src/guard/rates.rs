//! A bucket that fills with time: so much a minute, a minute's worth at once.

use std::time::{Duration, Instant};

/// Counts requests or tokens. Time comes in as an argument.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_minute: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Full at first.
    pub fn new(per_minute: u32, now: Instant) -> Self {
        let per_minute = f64::from(per_minute);
        Self { per_minute, level: per_minute, at: now }
    }

    /// Takes one, or says when there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.ask(now)?;
        self.level -= 1.0;
        Ok(())
    }

    /// Whether anything may begin: what it will cost is known only later.
    pub fn ask(&mut self, now: Instant) -> Result<(), Duration> {
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        self.level = (self.level + minutes * self.per_minute).min(self.per_minute);
        self.at = now;
        if self.level >= 1.0 {
            return Ok(());
        }
        // A rate of nothing never fills; an hour is as good as never to a client.
        let wait = (1.0 - self.level) / self.per_minute * 60.0;
        Err(Duration::from_secs_f64(wait.clamp(0.001, 3600.0)))
    }

    /// Takes what was used; the level may fall below nothing, and later ones wait for it.
    pub fn charge(&mut self, amount: usize) {
        self.level -= amount as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_at_once_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        assert!((0..60).all(|_| bucket.take(start).is_ok()));
        let wait = bucket.take(start).unwrap_err();
        assert!((wait.as_secs_f64() - 1.0).abs() < 0.01, "{wait:?}");
        assert!(bucket.take(start + Duration::from_secs(1)).is_ok());
        assert!(bucket.take(start + Duration::from_secs(1)).is_err());
        // An hour of silence saves up no more than a minute.
        let later = start + Duration::from_secs(3600);
        assert!((0..60).all(|_| bucket.take(later).is_ok()));
        assert!(bucket.take(later).is_err());
    }

    #[test]
    fn a_debt_is_waited_for() {
        let start = Instant::now();
        let mut bucket = Bucket::new(600, start);
        bucket.charge(1200);
        let wait = bucket.ask(start).unwrap_err();
        assert!((60.0..60.2).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(bucket.ask(start + wait).is_ok());
        assert_eq!(Bucket::new(0, start).ask(start).unwrap_err(), Duration::from_secs(3600));
    }
}
