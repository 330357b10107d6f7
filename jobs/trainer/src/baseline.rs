//! `ff2-train baseline`: how well models that count know the held-out text. They learn the same training text, and are
//! asked for the same held-out tokens as a model that is trained, with the same tokens before them in sight.

use std::{fmt, path::PathBuf};

use anyhow::{Result, ensure};
use ff2_model::Tokens;
use serde::Serialize;

use crate::{
    data::{Dataset, Manifest, Store},
    ngram::{Counter, NGram},
    run::{Heldout, Score},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder that `ff2-train tokenize` wrote
    #[arg(long)]
    data: PathBuf,
    /// Tokens of a sequence, as `data.sequence` of a run: nobody sees what is before it
    #[arg(long, default_value_t = 256)]
    sequence: usize,
    /// Held-out sequences, at most, as `evaluate.sequences` of a run: spread evenly over all
    #[arg(long, default_value_t = 64)]
    sequences: u64,
    /// A JSON object instead of a line for people
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (folder, sequence) = (&arguments.data, arguments.sequence);
    ensure!(sequence >= 2, "--sequence {sequence}, expected at least 2 tokens");
    let manifest = Manifest::read(folder)?;
    ensure!(
        !manifest.heldout.is_empty(),
        "{}: nothing is held out; expected text that was tokenized with a share for --heldout",
        folder.display()
    );
    let store = Store::Folder(folder.clone());
    let train = Dataset::open(&store, &manifest, &manifest.train, sequence, true)?;
    let heldout = Dataset::open(&store, &manifest, &manifest.heldout, sequence, true)?;
    let heldout = Heldout::new(heldout, folder, arguments.sequences)?;
    let baseline = Baseline::measure(&train, &heldout, manifest.vocabulary)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&baseline)?);
    } else {
        println!("held out: {baseline}");
    }
    Ok(())
}

/// Of the held-out text under models that count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Baseline {
    pub(crate) bigram: Score,
    pub(crate) trigram: Score,
}

impl Baseline {
    /// Learns all tokens of `train`, which are below `vocab`, and asks for those of `heldout`. All different runs of
    /// three tokens are in memory, with about 100 bytes each.
    ///
    /// # Errors
    /// Shards that cannot be read.
    pub(crate) fn measure(train: &Dataset, heldout: &Heldout, vocab: u32) -> Result<Self> {
        let score = |order| {
            let mut counter = Counter::new(order);
            train.each(&mut |tokens| counter.add(tokens))?;
            let model = counter.model(vocab);
            heldout.judge(&|batch| Ok(nats(&model, batch)))
        };
        Ok(Self { bigram: score(2)?, trigram: score(3)? })
    }

    /// Beside a trained model's score of the same tokens.
    pub(crate) fn beside(self, model: Score) -> Comparison {
        let best = self.bigram.bits_per_byte.min(self.trigram.bits_per_byte);
        Comparison { model, baseline: self, is_below_both: model.bits_per_byte < best }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bigram, trigram) = (self.bigram.bits_per_byte, self.trigram.bits_per_byte);
        write!(f, "bigram {bigram:.4}, trigram {trigram:.4} bits/byte")
    }
}

/// What a run says at its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Comparison {
    model: Score,
    #[serde(flatten)]
    baseline: Baseline,
    /// The model knows the held-out text better than both.
    is_below_both: bool,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bits, baseline) = (self.model.bits_per_byte, self.baseline);
        let verdict = if self.is_below_both { "below both" } else { "NOT below both" };
        write!(f, "held out: {bits:.4} bits/byte, {verdict} of {baseline}")
    }
}

/// Of all tokens that are learned, but the first of each sequence.
fn nats(model: &NGram, batch: &Tokens) -> f64 {
    let mut nats = 0.0;
    for (place, &id) in batch.ids().iter().enumerate() {
        let first = place - place % batch.tokens();
        if place > first && batch.is_learned(place) {
            nats -= model.probability(&batch.ids()[first..place], id).ln();
        }
    }
    nats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_must_be_below_both() {
        let score = |bits_per_byte| Score { loss: 3.0, bits_per_byte };
        let baseline = Baseline { bigram: score(2.5), trigram: score(2.25) };
        assert_eq!(
            baseline.beside(score(2.2)).to_string(),
            "held out: 2.2000 bits/byte, below both of bigram 2.5000, trigram 2.2500 bits/byte"
        );
        for bits in [2.25, 2.4, 2.6, f64::NAN] {
            let comparison = baseline.beside(score(bits));
            assert!(!comparison.is_below_both, "{bits}");
            assert!(comparison.to_string().contains("NOT below both"), "{comparison}");
        }
    }

    #[test]
    fn each_sequence_is_asked_for_alone_and_only_what_is_learned() {
        let mut counter = Counter::new(2);
        counter.add(&[0, 1, 2, 0, 1, 0, 2, 2, 1]);
        let model = counter.model(3);
        let tokens = |ids: &[u32]| Tokens::new(ids.to_vec(), 3, 3).unwrap();
        let expected = -model.probability(&[1], 2).ln() - model.probability(&[1, 2], 0).ln();
        assert_eq!(nats(&model, &tokens(&[1, 2, 0])), expected);
        let both = nats(&model, &tokens(&[1, 2, 0, 1, 2, 0]));
        assert!((both - 2.0 * expected).abs() < 1e-12, "{both}");
        let masked = tokens(&[1, 2, 0]).learned_where(vec![true, false, true]);
        assert_eq!(nats(&model, &masked), -model.probability(&[1, 2], 0).ln());
    }
}
