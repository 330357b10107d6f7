//! Which token comes next: logits in, one token out. Depends on nothing but the logits, the choice's own history and
//! its seed, so what runs beside it changes no text.

mod bans;

use std::collections::BTreeMap;

use bans::Bans;

use crate::{Constraint, Sampling, TokenSet};

/// One choice's way from logits to tokens.
pub(crate) struct Sampler {
    sampling: Sampling,
    seed: u64,
    /// How often the answer has each token, and which the prompt has.
    answer: BTreeMap<u32, u32>,
    prompt: Vec<u32>,
    bans: Bans,
    constraint: Option<Box<dyn Constraint>>,
    allowed: TokenSet,
    logprobs: usize,
    drawn: u64,
}

/// A token with natural log-probabilities of the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    pub(crate) logprob: f32,
    pub(crate) top: Vec<(u32, f32)>,
}

impl Sampler {
    pub(crate) fn new(
        sampling: Sampling,
        seed: u64,
        prompt: &[u32],
        constraint: Option<Box<dyn Constraint>>,
        logprobs: usize,
        vocab: usize,
    ) -> Self {
        let penalizes = sampling.repetition_penalty != 1.0;
        let mut known = if penalizes { prompt.to_vec() } else { Vec::new() };
        known.sort_unstable();
        known.dedup();
        Self {
            bans: Bans::new(&sampling),
            sampling,
            seed,
            answer: BTreeMap::new(),
            prompt: known,
            constraint,
            allowed: TokenSet::all(vocab),
            logprobs,
            drawn: 0,
        }
    }

    /// Before `least` tokens, those that end the answer come only where no other may.
    pub(crate) fn ends_after(mut self, least: usize, ends: Vec<u32>) -> Self {
        self.bans.ends_after(least, ends);
        self
    }

    /// Chooses the next token and remembers it.
    ///
    /// # Errors
    /// The constraint's, or that it allows no token.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> Result<Chosen, String> {
        let mut adjusted = logits.to_vec();
        self.penalize(&mut adjusted);
        self.bans.forbid(&mut adjusted);
        if let Some(constraint) = &mut self.constraint {
            self.allowed.fill();
            constraint.mask(&mut self.allowed)?;
            if self.allowed.is_empty() {
                return Err("the constraint allows no token here".to_owned());
            }
            for (token, logit) in (0..).zip(&mut adjusted) {
                if !self.allowed.contains(token) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        self.bans.hold_ends(&mut adjusted);
        if adjusted.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            return Err(
                "no token may come here: bad_words, allowed tokens and the constraint exclude all"
                    .to_owned(),
            );
        }
        let token = if self.sampling.temperature == 0.0 {
            largest(&adjusted)
        } else {
            self.draw(&adjusted)
        };
        self.drawn += 1;
        self.bans.chosen(token);
        *self.answer.entry(token).or_insert(0) += 1;
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token)?;
        }
        let (logprob, top) = logprobs(logits, token, self.logprobs);
        Ok(Chosen { token, logprob, top })
    }

    /// Whether the constraint wants nothing more.
    pub(crate) fn done(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.done())
    }

    fn penalize(&self, logits: &mut [f32]) {
        let s = &self.sampling;
        for (token, bias) in &s.logit_bias {
            logits[*token as usize] += bias;
        }
        if s.repetition_penalty != 1.0 {
            let only_prompt = self.prompt.iter().filter(|token| !self.answer.contains_key(token));
            for token in self.answer.keys().chain(only_prompt) {
                let logit = &mut logits[*token as usize];
                let favoured = *logit > 0.0;
                *logit *=
                    if favoured { s.repetition_penalty.recip() } else { s.repetition_penalty };
            }
        }
        for (token, count) in &self.answer {
            logits[*token as usize] -= s.presence_penalty + s.frequency_penalty * *count as f32;
        }
    }

    fn draw(&self, logits: &[f32]) -> u32 {
        let s = &self.sampling;
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Shares relative to the likeliest token's, whose is 1.
        let share = |logit: f32| f64::from((logit - best) / s.temperature).exp();
        let mut candidates: Vec<(u32, f64)> = (0..)
            .zip(logits)
            .map(|(token, logit)| (token, share(*logit)))
            .filter(|(_, share)| *share > 0.0 && *share >= f64::from(s.min_p))
            .collect();
        if s.top_k > 0 || s.top_p < 1.0 {
            candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            if s.top_k > 0 {
                candidates.truncate(s.top_k);
            }
            let total: f64 = candidates.iter().map(|(_, share)| share).sum();
            let mut sum = 0.0;
            let enough = candidates.iter().position(|(_, share)| {
                sum += share;
                sum >= total * f64::from(s.top_p)
            });
            candidates.truncate(enough.map_or(candidates.len(), |at| at + 1));
        }
        let total: f64 = candidates.iter().map(|(_, share)| share).sum();
        let mut rest = uniform(self.seed, self.drawn) * total;
        for (token, share) in &candidates {
            rest -= share;
            if rest < 0.0 {
                return *token;
            }
        }
        // Only by rounding, or of logits that are no numbers.
        candidates.last().map_or_else(|| largest(logits), |(token, _)| *token)
    }
}

/// The likeliest token; of equals the first.
pub(crate) fn largest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in (0..).zip(logits) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0
}

/// The log-probability of `token`, and the `count` likeliest with theirs.
pub(crate) fn logprobs(logits: &[f32], token: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - best).exp()).sum();
    let norm = best + total.ln();
    let mut top: Vec<(u32, f32)> = Vec::new();
    if count > 0 {
        top = (0..).zip(logits.iter().map(|logit| logit - norm)).collect();
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if count < top.len() {
            top.select_nth_unstable_by(count, order);
            top.truncate(count);
        }
        top.sort_unstable_by(order);
    }
    (logits[token as usize] - norm, top)
}

/// In [0, 1): the `number`-th draw of a seed, by SplitMix64's output function (Steele et al. 2014).
fn uniform(seed: u64, number: u64) -> f64 {
    (mix(mix(seed).wrapping_add(number)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Scatters a number over all 64 bits.
pub(crate) fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
