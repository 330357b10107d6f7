//! Whether reading blocks is faster than computing them, by what both took lately. Pure.

/// Recent means, the latest counting an eighth.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// None: not yet known.
    read_s_per_byte: Option<f64>,
    prefill_s_per_token: Option<f64>,
    /// Decisions against the disk since it was last tried.
    declined: u32,
}

/// So often the disk is tried although it was slower: it may have become faster.
const TRY_AGAIN: u32 = 64;

impl Rates {
    pub(crate) fn read(&mut self, bytes: usize, seconds: f64) {
        if bytes > 0 {
            mean(&mut self.read_s_per_byte, seconds / bytes as f64);
        }
    }

    pub(crate) fn prefilled(&mut self, tokens: usize, seconds: f64) {
        if tokens > 0 {
            mean(&mut self.prefill_s_per_token, seconds / tokens as f64);
        }
    }

    /// Seconds that computing so many tokens takes; 0 if that is not known.
    pub(crate) fn prefill_s(&self, tokens: usize) -> f64 {
        self.prefill_s_per_token.unwrap_or(0.0) * tokens as f64
    }

    /// Whether to read so many bytes for so many tokens. Without a measurement it is tried.
    pub(crate) fn should_read(&mut self, bytes: usize, tokens: usize) -> bool {
        let (Some(read), Some(prefill)) = (self.read_s_per_byte, self.prefill_s_per_token) else {
            return true;
        };
        if read * (bytes as f64) < prefill * tokens as f64 || self.declined >= TRY_AGAIN {
            self.declined = 0;
            return true;
        }
        self.declined += 1;
        false
    }
}

fn mean(mean: &mut Option<f64>, new: f64) {
    *mean = Some(mean.map_or(new, |old| old + (new - old) / 8.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_way_is_taken_and_the_other_tried_again_at_times() {
        let mut rates = Rates::default();
        assert!(rates.should_read(1000, 10));
        rates.prefilled(100, 1.0);
        rates.read(1000, 0.01);
        assert!(rates.should_read(1000, 10));
        for _ in 0..40 {
            rates.read(1000, 1.0);
        }
        let tried = (0..130).filter(|_| rates.should_read(1000, 10)).count();
        assert_eq!(tried, 2);
        assert!((rates.prefill_s(50) - 0.5).abs() < 1e-9);
    }
}
