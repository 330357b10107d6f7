//! The least peak that checkpoints can have, whatever slots jobs are given.
//!
//! A job that saves once in an interval writes one checkpoint in any interval of its life, but for the first, in which
//! it may begin late. So it writes as many of them in a span as whole intervals of its life lie in that, and somewhere
//! in the span at least the mean of it is written. A last save lies between the request and the end of the grace.

/// Something writes so many bytes in each `every_ms` from one moment on to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) every_ms: u64,
    pub(super) bytes: u64,
}

const LOOK_EVERY_MS: u64 = 60_000;

impl Due {
    fn within(&self, from_ms: u64, to_ms: u64) -> f64 {
        let whole = self.to_ms.min(to_ms).saturating_sub(self.from_ms.max(from_ms)) / self.every_ms;
        (whole * self.bytes) as f64
    }
}

/// Bytes/s that are reached at some moment between these two, at least. Spans of these lengths are looked at, from each
/// minute on and from where something begins.
pub(super) fn peak(due: &[Due], lengths_ms: &[u64], from_ms: u64, to_ms: u64) -> f64 {
    let of = |length: u64| {
        let all = from_ms..(to_ms + 1).saturating_sub(length);
        let begins = due.iter().map(|due| due.from_ms).filter(|at| all.contains(at));
        let starts = all.clone().step_by(LOOK_EVERY_MS as usize).chain(begins.collect::<Vec<_>>());
        let written = |start| due.iter().map(|due| due.within(start, start + length)).sum::<f64>();
        starts.map(move |start| written(start) * 1e3 / length as f64).fold(0.0, f64::max)
    };
    lengths_ms.iter().copied().map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn whole_intervals_count() {
        let due = Due { from_ms: 0, to_ms: 25 * MINUTE, every_ms: 10 * MINUTE, bytes: 600 };
        assert_eq!(due.within(0, 60 * MINUTE), 1_200.0);
        assert_eq!(due.within(6 * MINUTE, 60 * MINUTE), 600.0);
        assert_eq!(due.within(0, 9 * MINUTE), 0.0);
        // In ten minutes 600 bytes are written, in any.
        assert_eq!(peak(&[due], &[5 * MINUTE, 10 * MINUTE], 0, 60 * MINUTE), 1.0);
    }

    #[test]
    fn jobs_of_the_same_time_add_up() {
        let one = Due { from_ms: 0, to_ms: 30 * MINUTE, every_ms: 5 * MINUTE, bytes: 300 };
        let other = Due { from_ms: 20 * MINUTE, to_ms: 60 * MINUTE, ..one };
        assert_eq!(peak(&[one, other], &[5 * MINUTE], 0, 60 * MINUTE), 2.0);
        let longer = peak(&[one, other], &[60 * MINUTE], 0, 60 * MINUTE);
        assert!((longer - 7.0 / 6.0).abs() < 1e-12, "{longer}");
    }
}
