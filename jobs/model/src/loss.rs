//! Cross-entropy of next tokens.

use rayon::prelude::*;

use crate::{
    Tensor, Tokens,
    vector::{maximum, softmax, vectorized},
};

/// Of one step, in nats a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// Mean cross-entropy of each next token.
    pub main: f64,
    /// Mean over the modules for multi-token prediction; 0 without.
    pub mtp: f64,
    /// Tokens that each routed expert got, one list for each layer with experts, those of MTP modules last.
    pub loads: Vec<Vec<u64>>,
}

/// What the rows of each sequence should say: the token `ahead` places later, while there is one that is learned.
pub(crate) fn targets(tokens: &Tokens, rows: usize, ahead: usize) -> Vec<Option<u32>> {
    let len = tokens.tokens();
    let target = |sequence: usize, row: usize| {
        let place = sequence * len + row + ahead;
        (row + ahead < len && tokens.is_learned(place)).then(|| tokens.ids()[place])
    };
    (0..tokens.batch()).flat_map(|s| (0..rows).map(move |row| target(s, row))).collect()
}

/// Mean of -log softmax(logits)[target] over the rows that have a target, and its gradient times `weight`.
/// The logits, [n, vocab], become the gradient.
pub(crate) fn cross_entropy(logits: &mut Tensor, targets: &[Option<u32>], weight: f32) -> f64 {
    let count = targets.iter().flatten().count().max(1);
    let losses = cross_entropies(logits, targets, weight / count as f32);
    // In order of rows, so that the sum does not depend on threads.
    losses.iter().sum::<f64>() / count as f64
}

/// -log softmax(logits)[target] of each row, 0 of those without a target. The logits, [n, vocab], become the gradient
/// of the sum, times `scale`.
pub(crate) fn cross_entropies(
    logits: &mut Tensor,
    targets: &[Option<u32>],
    scale: f32,
) -> Vec<f64> {
    assert_eq!(logits.rows(), targets.len(), "a target a row");
    let vocab = logits.cols();
    let rows = logits.data_mut().par_chunks_mut(vocab).zip(targets);
    rows.map(|(row, target)| {
        let Some(target) = target else {
            row.fill(0.0);
            return 0.0;
        };
        let logit = row[*target as usize];
        vectorized(
            #[inline(always)]
            || log_sum_exp_and_gradient(row, *target as usize, scale),
        ) - f64::from(logit)
    })
    .collect()
}

#[inline(always)]
fn log_sum_exp_and_gradient(row: &mut [f32], target: usize, scale: f32) -> f64 {
    let max = maximum(row);
    softmax(row);
    // log sum = max - log p(max); the largest share is never tiny, so its logarithm is exact enough.
    let largest = maximum(row);
    let log_sum = f64::from(max) - f64::from(largest).ln();
    row.iter_mut().for_each(|p| *p *= scale);
    row[target] -= scale;
    log_sum
}
