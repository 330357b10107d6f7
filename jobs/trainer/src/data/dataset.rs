//! The shards of one part of a dataset, cut into sequences of equal length.

use std::collections::BTreeMap;

use ff2_model::Tokens;

use super::{
    DataError, Manifest, ShardEntry, Store,
    manifest::hex,
    shard::{Run, Shard},
};

/// Tokens read at once where all are read.
const BLOCK: usize = 1 << 16;

/// Sequences overlap by one token, so that each token but a shard's first is predicted exactly once.
#[derive(Debug)]
pub(crate) struct Dataset {
    shards: Vec<Shard>,
    /// Sequences before each shard, and in all.
    starts: Vec<u64>,
    sequence: usize,
    vocab: usize,
}

impl Dataset {
    /// Opens the shards of `entries`; `sequence` is tokens, at least 2. With `verify` all bytes are read once.
    ///
    /// # Errors
    /// Shards that are gone, cut, damaged, made by another tokenizer, or shorter than a sequence altogether.
    pub(crate) fn open(
        store: &Store,
        manifest: &Manifest,
        entries: &[ShardEntry],
        sequence: usize,
        verify: bool,
    ) -> Result<Self, DataError> {
        let (mut shards, mut starts, mut tokens) = (Vec::new(), vec![0], 0);
        for entry in entries {
            let shard = Shard::open(store, &entry.file)?;
            let (path, header) = (shard.path().to_owned(), shard.header());
            let found = hex(&header.tokenizer);
            if found != manifest.tokenizer {
                let (by, expected) = ("dataset.json tells".to_owned(), manifest.tokenizer.clone());
                return Err(DataError::Tokenizer { path, found, by, expected });
            }
            if (header.tokens, header.vocab) != (entry.tokens, manifest.vocabulary) {
                return Err(DataError::Shard {
                    path,
                    found: format!("{} tokens of a vocabulary of {}", header.tokens, header.vocab),
                    expected: format!("{} of {}", entry.tokens, manifest.vocabulary),
                });
            }
            if verify {
                shard.verify()?;
            }
            tokens += header.tokens;
            let sequences = header.tokens.saturating_sub(1) / (sequence as u64 - 1);
            starts.push(starts[starts.len() - 1] + sequences);
            shards.push(shard);
        }
        if starts[starts.len() - 1] == 0 {
            let path = store.path("");
            return Err(DataError::Short { path, tokens, sequence });
        }
        Ok(Self { shards, starts, sequence, vocab: manifest.vocabulary as usize })
    }

    /// How many there are.
    pub(crate) fn sequences(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// All tokens in order, block by block: of a shard after those of the one before.
    ///
    /// # Errors
    /// A shard that cannot be read any more, or is damaged.
    pub(crate) fn each(&self, block: &mut dyn FnMut(&[u32])) -> Result<(), DataError> {
        for shard in &self.shards {
            let tokens = shard.header().tokens;
            for from in (0..tokens).step_by(BLOCK) {
                let count = BLOCK.min(usize::try_from(tokens - from).unwrap_or(BLOCK));
                for run in shard.read(&[from], count)? {
                    block(&run.ids);
                }
            }
        }
        Ok(())
    }

    /// [numbers, sequence] of these sequences.
    ///
    /// # Errors
    /// A shard that cannot be read any more, or is damaged.
    pub(crate) fn read(&self, numbers: &[u64]) -> Result<Tokens, DataError> {
        // What is in one shard is read at once.
        let mut of_shard: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, number) in numbers.iter().enumerate() {
            let shard = self.starts.partition_point(|start| start <= number) - 1;
            of_shard.entry(shard).or_default().push(place);
        }
        let mut ids = vec![0; numbers.len() * self.sequence];
        let mut learned = vec![true; ids.len()];
        for (shard, places) in &of_shard {
            let first = self.starts[*shard];
            let start = |place: &usize| (numbers[*place] - first) * (self.sequence as u64 - 1);
            let starts: Vec<u64> = places.iter().map(start).collect();
            let runs = self.shards[*shard].read(&starts, self.sequence)?;
            for (place, Run { ids: of_run, learned: mask }) in places.iter().zip(runs) {
                let into = place * self.sequence..(place + 1) * self.sequence;
                ids[into.clone()].copy_from_slice(&of_run);
                learned[into].copy_from_slice(&mask);
            }
        }
        let has_mask = learned.contains(&false);
        let tokens = Tokens::new(ids, self.sequence, self.vocab).map_err(|error| {
            let path = self.shards[0].path().to_owned();
            let expected = "sequences of tokens".to_owned();
            DataError::Shard { path, found: error.to_string(), expected }
        })?;
        Ok(if has_mask { tokens.learned_where(learned) } else { tokens })
    }
}
