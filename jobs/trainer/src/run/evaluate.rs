//! The held-out text: how well the model knows what it never saw.

use std::{f64::consts::LN_2, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Training, ranks::Ranks};
use crate::{
    data::{Dataset, TOKENIZER},
    tokenize::text_bytes,
};

/// Sequences that are computed at once.
const BATCH: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Score {
    /// Nats a token.
    pub(crate) loss: f64,
    /// Comparable between tokenizers, unlike the loss.
    pub(crate) bits_per_byte: f64,
}

#[derive(Debug)]
pub(super) struct Heldout {
    dataset: Dataset,
    sequences: u64,
    /// Bytes of text that each token stands for.
    text_bytes: Vec<u32>,
}

impl Heldout {
    pub(super) fn new(dataset: Dataset, folder: &Path, sequences_max: u64) -> Result<Self> {
        let sequences = dataset.sequences().min(sequences_max.max(1));
        Ok(Self { dataset, sequences, text_bytes: text_bytes(&folder.join(TOKENIZER))? })
    }

    /// Over the same sequences each time, evenly spread over all.
    /// Ranks take turns with the batches; those that share the experts pass all of them together.
    pub(super) fn score(&self, training: &Training, ranks: &Ranks) -> Result<Score> {
        let (mut nats, mut tokens, mut bytes) = (0.0, 0u64, 0u64);
        let numbers: Vec<u64> = (0..self.sequences)
            .map(|number| number * self.dataset.sequences() / self.sequences)
            .collect();
        let exchange = training.exchange();
        for (turn, numbers) in numbers.chunks(BATCH as usize).enumerate() {
            if exchange.is_none() && turn % ranks.count() != ranks.rank() {
                continue;
            }
            let batch = self.dataset.read(numbers).context("read held-out text")?;
            let losses = training.model.losses_among(&batch, exchange)?;
            nats += losses.iter().sum::<f64>();
            for (place, &id) in batch.ids().iter().enumerate() {
                if !place.is_multiple_of(batch.tokens()) && batch.is_learned(place) {
                    tokens += 1;
                    bytes += u64::from(self.text_bytes[id as usize]);
                }
            }
        }
        if exchange.is_none() {
            let sums = ranks.sum([nats, tokens as f64, bytes as f64])?;
            (nats, tokens, bytes) = (sums[0], sums[1] as u64, sums[2] as u64);
        }
        let per = |count: u64| nats / count.max(1) as f64;
        Ok(Score { loss: per(tokens), bits_per_byte: per(bytes) / LN_2 })
    }
}
