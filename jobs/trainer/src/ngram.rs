//! Models of text that count: what a trained model has to beat. Knows tokens, not files.

use std::collections::HashMap;

/// Tokens of 32 bits that fit into a [`Gram`].
const ORDER_MAX: usize = 4;

/// A run of tokens, the last one in the lowest 32 bits.
type Gram = u128;

/// An n-gram model with interpolated Kneser-Ney smoothing (Chen and Goodman, "An Empirical Study of Smoothing
/// Techniques for Language Modeling", TR-10-98, sections 2.6 and 2.7): behind a context h, h' being h without its
/// first token,
///
/// ```text
/// p(w | h) = max(c(h w) - D, 0) / c(h) + D followers(h) / c(h) p(w | h')
/// ```
///
/// with one discount D an order, and the uniform distribution below single tokens.
#[derive(Debug)]
pub(crate) struct NGram {
    vocab: u32,
    /// Of runs of 1, 2, ... tokens.
    levels: Vec<Level>,
}

/// What is known of runs of one length.
#[derive(Debug, Default)]
struct Level {
    /// Of the highest order how often a run occurs; of lower ones how many different tokens it stands behind.
    counts: HashMap<Gram, u64>,
    /// By all tokens of a run but the last.
    contexts: HashMap<Gram, Context>,
    discount: f64,
}

#[derive(Debug, Default)]
struct Context {
    /// Sum of the counts of its runs.
    total: u64,
    /// Number of its runs.
    followers: u64,
}

/// Counts runs of tokens, block by block.
#[derive(Debug)]
pub(crate) struct Counter {
    order: usize,
    counts: HashMap<Gram, u64>,
    /// The last tokens, at most `order` of them, and how many.
    last: Gram,
    seen: usize,
}

impl Counter {
    /// Of runs of `order` tokens, 1 to 4.
    pub(crate) fn new(order: usize) -> Self {
        assert!((1..=ORDER_MAX).contains(&order), "runs of 1 to {ORDER_MAX} tokens");
        Self { order, counts: HashMap::new(), last: 0, seen: 0 }
    }

    /// The tokens that follow on those of earlier calls.
    pub(crate) fn add(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.last = self.last << 32 & mask(self.order) | Gram::from(token);
            self.seen += 1;
            if self.seen >= self.order {
                *self.counts.entry(self.last).or_default() += 1;
            }
        }
    }

    /// Of tokens below `vocab`.
    pub(crate) fn model(self, vocab: u32) -> NGram {
        let mut levels = vec![Level::new(self.counts)];
        for order in (1..self.order).rev() {
            let mut counts: HashMap<Gram, u64> = HashMap::new();
            let above = &levels[levels.len() - 1].counts;
            above.keys().for_each(|gram| *counts.entry(gram & mask(order)).or_default() += 1);
            levels.push(Level::new(counts));
        }
        levels.reverse();
        NGram { vocab, levels }
    }
}

impl NGram {
    /// Probability of `token` behind `before`, of which the last `order - 1` tokens count. More than 0, and over all
    /// tokens of the vocabulary the sum is 1.
    pub(crate) fn probability(&self, before: &[u32], token: u32) -> f64 {
        let mut gram: Gram = 0;
        let known = before.len().min(self.levels.len() - 1);
        let mut lower = 1.0 / f64::from(self.vocab);
        for (length, level) in self.levels[..=known].iter().enumerate() {
            if length > 0 {
                let earlier = before[before.len() - length];
                gram |= Gram::from(earlier) << (32 * (length - 1));
            }
            // Longer contexts than one that never occurred did not occur either.
            let Some(context) = level.contexts.get(&gram) else { break };
            let count = level.counts.get(&(gram << 32 | Gram::from(token))).copied().unwrap_or(0);
            let total = context.total as f64;
            let held_back = level.discount * context.followers as f64 / total;
            lower = (count as f64 - level.discount).max(0.0) / total + held_back * lower;
        }
        lower
    }
}

impl Level {
    fn new(counts: HashMap<Gram, u64>) -> Self {
        let mut contexts: HashMap<Gram, Context> = HashMap::new();
        for (gram, count) in &counts {
            let context = contexts.entry(gram >> 32).or_default();
            context.total += count;
            context.followers += 1;
        }
        let with = |wanted: u64| counts.values().filter(|count| **count == wanted).count() as f64;
        // Section 2.6 there. Where no run is rare that estimate is 0, and what was never seen would be
        // impossible; where none occurs twice it is 1, and nothing would be left of what was.
        let discount = match (with(1), with(2)) {
            (once, twice) if once > 0.0 && twice > 0.0 => once / (once + 2.0 * twice),
            _ => 0.5,
        };
        Self { counts, contexts, discount }
    }
}

/// Of the lowest `tokens` tokens.
fn mask(tokens: usize) -> Gram {
    Gram::MAX >> (32 * (ORDER_MAX - tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(order: usize, tokens: &[u32], vocab: u32) -> NGram {
        let mut counter = Counter::new(order);
        counter.add(tokens);
        counter.model(vocab)
    }

    #[test]
    fn probabilities_of_all_tokens_sum_to_one_behind_any_context() {
        let text: Vec<u32> = (0..400u32).map(|n| n * n % 31 % 11).collect();
        for order in 1..=ORDER_MAX {
            let model = learned(order, &text, 13);
            // 11 and 12 never occur; contexts are known, half known, unknown, and too short.
            for before in [&[][..], &[1], &[0, 1], &[4, 9, 5], &[12, 1], &[1, 12], &[7, 8, 9, 10]] {
                let all: Vec<f64> = (0..13).map(|token| model.probability(before, token)).collect();
                let sum: f64 = all.iter().sum();
                assert!((sum - 1.0).abs() < 1e-12, "order {order} behind {before:?}: {sum}");
                assert!(all.iter().all(|p| *p > 0.0), "order {order} behind {before:?}: {all:?}");
            }
        }
    }

    /// Of the text 0 1 0 2 0 1, by hand. Pairs: 01 twice, 10, 02 and 20 once: D = 3 / (3 + 2) = 3/5. Different tokens
    /// before 0: 2, before 1: 1, before 2: 1, in all 4: D = 2 / (2 + 2) = 1/2. Of 4 tokens each has 1/4 below.
    #[test]
    fn a_small_text_is_as_computed_by_hand() {
        let model = learned(2, &[0, 1, 0, 2, 0, 1], 4);
        // Three different tokens take 3 x 1/2 of 4 from the counts.
        let below = 3.0 * 0.5 / 4.0 * 0.25;
        let single = [1.5 / 4.0 + below, 0.5 / 4.0 + below, 0.5 / 4.0 + below, below];
        // Behind 0: three times something, two different.
        let back = 2.0 * 0.6 / 3.0;
        let behind_0 = [
            back * single[0],
            1.4 / 3.0 + back * single[1],
            0.4 / 3.0 + back * single[2],
            back * single[3],
        ];
        for token in 0..4 {
            let (alone, behind) = (model.probability(&[], token), model.probability(&[0], token));
            assert!((alone - single[token as usize]).abs() < 1e-12, "{token}: {alone}");
            assert!((behind - behind_0[token as usize]).abs() < 1e-12, "{token}: {behind}");
            assert_eq!(model.probability(&[3], token), alone, "nothing is known of what follows 3");
            assert_eq!(model.probability(&[1, 0], token), behind, "only the last one counts");
        }
    }

    #[test]
    fn blocks_are_one_text_and_each_order_knows_more() {
        let text: Vec<u32> = (0..3000u32).map(|n| [0, 1, 2, 0, 2, 1][n as usize % 6]).collect();
        let mut counter = Counter::new(3);
        text.chunks(7).for_each(|block| counter.add(block));
        let parts = counter.model(3);
        let models = [learned(1, &text, 3), learned(2, &text, 3), learned(3, &text, 3)];
        let nats = |model: &NGram| -> f64 {
            let nats = |place: usize| -model.probability(&text[..place], text[place]).ln();
            (100..200).map(nats).sum()
        };
        assert_eq!(nats(&parts).to_bits(), nats(&models[2]).to_bits());
        let [one, two, three] = models.each_ref().map(nats);
        assert!(one > two + 10.0 && two > three + 10.0 && three < 1.0, "{one}, {two}, {three}");
    }
}
