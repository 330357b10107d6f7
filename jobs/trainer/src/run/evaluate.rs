//! The held-out text: how well the model knows what it never saw.

use std::{f64::consts::LN_2, path::Path};

use anyhow::{Context, Result};
use ff2_model::Tokens;
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
pub(crate) struct Heldout {
    dataset: Dataset,
    sequences: u64,
    /// Bytes of text that each token stands for.
    text_bytes: Vec<u32>,
}

impl Heldout {
    /// At most `sequences_max` sequences of `dataset`, which lies in `folder`.
    ///
    /// # Errors
    /// A tokenizer that cannot be read.
    pub(crate) fn new(dataset: Dataset, folder: &Path, sequences_max: u64) -> Result<Self> {
        let sequences = dataset.sequences().min(sequences_max.max(1));
        Ok(Self { dataset, sequences, text_bytes: text_bytes(&folder.join(TOKENIZER))? })
    }

    /// Ranks take turns with the batches; those that share the experts pass all of them together.
    pub(super) fn score(&self, training: &Training, ranks: &Ranks) -> Result<Score> {
        let exchange = training.exchange();
        let loss = |batch: &Tokens| Ok(training.model.losses_among(batch, exchange)?.iter().sum());
        let is_mine = |turn| exchange.is_some() || turn % ranks.count() == ranks.rank();
        let mut totals = self.totals(&is_mine, &loss)?;
        if exchange.is_none() {
            totals = ranks.sum(totals)?;
        }
        Ok(Score::of(totals))
    }

    /// `loss` tells the nats of a batch, summed over all its tokens that are learned, but not the first of a sequence.
    ///
    /// # Errors
    /// Shards that cannot be read, and errors of `loss`.
    pub(crate) fn judge(&self, loss: &dyn Fn(&Tokens) -> Result<f64>) -> Result<Score> {
        self.totals(&|_| true, loss).map(Score::of)
    }

    /// Nats, tokens and bytes of the batches that are chosen by their number. They are of the same sequences each time,
    /// evenly spread over all.
    fn totals(
        &self,
        is_chosen: &dyn Fn(usize) -> bool,
        loss: &dyn Fn(&Tokens) -> Result<f64>,
    ) -> Result<[f64; 3]> {
        let (mut nats, mut tokens, mut bytes) = (0.0, 0u64, 0u64);
        let numbers: Vec<u64> = (0..self.sequences)
            .map(|number| number * self.dataset.sequences() / self.sequences)
            .collect();
        for (turn, numbers) in numbers.chunks(BATCH as usize).enumerate() {
            if !is_chosen(turn) {
                continue;
            }
            let batch = self.dataset.read(numbers).context("read held-out text")?;
            nats += loss(&batch)?;
            for (place, &id) in batch.ids().iter().enumerate() {
                if !place.is_multiple_of(batch.tokens()) && batch.is_learned(place) {
                    tokens += 1;
                    bytes += u64::from(self.text_bytes[id as usize]);
                }
            }
        }
        Ok([nats, tokens as f64, bytes as f64])
    }
}

impl Score {
    fn of([nats, tokens, bytes]: [f64; 3]) -> Self {
        Self { loss: nats / tokens.max(1.0), bits_per_byte: nats / bytes.max(1.0) / LN_2 }
    }
}
