//! Tokens that may not come next, whatever the model says.

use std::collections::BTreeSet;

use crate::Sampling;

/// Of one choice.
pub(super) struct Bans {
    allowed: Option<BTreeSet<u32>>,
    words: Vec<Vec<u32>>,
    /// The answer, as far as a bad word may reach back.
    answer: Vec<u32>,
    count: usize,
    ends: Vec<u32>,
    least: usize,
}

impl Bans {
    pub(super) fn new(sampling: &Sampling) -> Self {
        Self {
            allowed: sampling.allowed_tokens.as_ref().map(|it| it.iter().copied().collect()),
            words: sampling.bad_words.iter().filter(|word| !word.is_empty()).cloned().collect(),
            answer: Vec::new(),
            count: 0,
            ends: Vec::new(),
            least: 0,
        }
    }

    pub(super) fn ends_after(&mut self, least: usize, ends: Vec<u32>) {
        (self.least, self.ends) = (least, ends);
    }

    /// Tokens that are not allowed, and the last of a bad word behind all others of it.
    pub(super) fn forbid(&self, logits: &mut [f32]) {
        if let Some(allowed) = &self.allowed {
            for (token, logit) in (0..).zip(logits.iter_mut()) {
                if !allowed.contains(&token) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        for word in &self.words {
            let Some((last, before)) = word.split_last() else { continue };
            if self.answer.ends_with(before) {
                logits[*last as usize] = f32::NEG_INFINITY;
            }
        }
    }

    /// Ends do not come too early, but for where all else is excluded: a constrained answer that is whole ends.
    pub(super) fn hold_ends(&self, logits: &mut [f32]) {
        let is_other =
            |(token, logit): (u32, &f32)| *logit > f32::NEG_INFINITY && !self.ends.contains(&token);
        if self.count < self.least && (0..).zip(logits.iter()).any(is_other) {
            self.ends.iter().for_each(|end| logits[*end as usize] = f32::NEG_INFINITY);
        }
    }

    pub(super) fn chosen(&mut self, token: u32) {
        self.count += 1;
        let reach = self.words.iter().map(Vec::len).max().unwrap_or(0);
        if reach > 1 {
            self.answer.push(token);
            let excess = self.answer.len().saturating_sub(reach - 1);
            self.answer.drain(..excess);
        }
    }
}
