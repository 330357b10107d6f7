//! `ff2-train tokenize`: from text files to a dataset. Two passes: the first learns a tokenizer (unless one is given),
//! the second writes shards of tokens, a part of the text apart that training never sees.

mod corpus;
mod encode;
mod tokenizer;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::data::{Manifest, ShardEntry, ShardWriter, TOKENIZER, TokenizerHash, tokenizer_hash};
use corpus::{Content, Corpus, Part};
use encode::{Document, Encoder};
pub(crate) use tokenizer::text_bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Text files, or folders of them: `.jsonl` has a document a line, `{"text": ...}` or a conversation
    /// `{"messages": [{"role": ..., "content": ...}]}`; each other file is a document of plain UTF-8
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Folder to write
    #[arg(long)]
    out: PathBuf,
    /// Size of the vocabulary to learn
    #[arg(long, default_value_t = 8192)]
    vocab: usize,
    /// Use this tokenizer.json (byte-level) instead of learning one
    #[arg(long, conflicts_with = "vocab", value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Token of the given tokenizer that ends a document
    #[arg(long, default_value = tokenizer::END_OF_TEXT, value_name = "TOKEN")]
    end_of_text: String,
    /// Share of the text to hold out: of plain files their ends, of .jsonl whole lines, evenly spread
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    heldout: f64,
    /// A tokenizer is learned from so much text at most, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    learn_mib: usize,
    /// Tokens of a shard, at most (one document may go beyond)
    #[arg(long, default_value_t = 100_000_000, value_name = "TOKENS")]
    shard_tokens: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let share = arguments.heldout;
    ensure!((0.0..=0.5).contains(&share), "--heldout {share}, expected 0 to 0.5");
    let corpus = Corpus::find(&arguments.files, share)?;
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("create {}", arguments.out.display()))?;
    let path = arguments.out.join(TOKENIZER);
    match &arguments.tokenizer {
        Some(given) => {
            // Read whole first: it may be the very file.
            let bytes = fs::read(given).with_context(|| format!("read {}", given.display()))?;
            fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        }
        None => tokenizer::learn(&corpus, arguments.vocab, arguments.learn_mib << 20)?
            .save(&path, false)
            .map_err(anyhow::Error::from_boxed)
            .with_context(|| format!("write {}", path.display()))?,
    }
    let encoder = Encoder::open(&path, &arguments.end_of_text, corpus.has_chats())?;
    tokenizer::write_config(&arguments.out, &arguments.end_of_text)?;
    let manifest = write_shards(arguments, &corpus, &encoder, &tokenizer_hash(&path)?)?;
    let total = |entries: &[ShardEntry]| {
        entries
            .iter()
            .fold((0, 0, 0), |(d, t, b), e| (d + e.documents, t + e.tokens, b + e.text_bytes))
    };
    for (part, entries) in [("train", &manifest.train), ("held out", &manifest.heldout)] {
        let (documents, tokens, bytes) = total(entries);
        println!(
            "{part}: {documents} documents, {bytes} bytes, {tokens} tokens ({:.2} bytes each), {} shards",
            bytes as f64 / tokens.max(1) as f64,
            entries.len(),
        );
    }
    ensure!(
        share == 0.0 || !manifest.heldout.is_empty(),
        "nothing was held out: too little text for --heldout {share}; expected a larger share, or 0"
    );
    ensure!(!manifest.train.is_empty(), "no text in these files");
    println!("vocabulary of {}; wrote {}", manifest.vocabulary, arguments.out.display());
    Ok(())
}

fn write_shards(
    arguments: &Arguments,
    corpus: &Corpus,
    encoder: &Encoder,
    hash: &TokenizerHash,
) -> Result<Manifest> {
    let mut manifest = Manifest::new(hash, encoder.vocab(), encoder.end_of_text());
    let part = |name| Shards {
        folder: &arguments.out,
        name,
        entries: Vec::new(),
        open: None,
        tokens_max: arguments.shard_tokens,
        create: (encoder.vocab(), *hash, corpus.has_chats()),
    };
    let (mut train, mut heldout) = (part("train"), part("heldout"));
    let mut waiting: Vec<(Part, Content)> = Vec::new();
    let mut bytes = 0;
    let mut flush = |waiting: &mut Vec<(Part, Content)>| {
        for (part, document) in encoder.encode(std::mem::take(waiting))? {
            match part {
                Part::Train => train.push(&document)?,
                Part::Heldout => heldout.push(&document)?,
            }
        }
        anyhow::Ok(())
    };
    corpus.each(&mut |part, content| {
        bytes += content.len();
        waiting.push((part, content));
        if bytes >= BATCH_BYTES {
            bytes = 0;
            flush(&mut waiting)?;
        }
        Ok(())
    })?;
    flush(&mut waiting)?;
    manifest.train = train.finish()?;
    manifest.heldout = heldout.finish()?;
    manifest.write(&arguments.out)?;
    Ok(manifest)
}

/// Text that is encoded at once, by all cores: encodings take many times its memory.
const BATCH_BYTES: usize = 4 << 20;

/// The shards of one part, filled one after the other.
struct Shards<'a> {
    folder: &'a Path,
    name: &'static str,
    entries: Vec<ShardEntry>,
    open: Option<(String, ShardWriter)>,
    tokens_max: u64,
    create: (u32, TokenizerHash, bool),
}

impl Shards<'_> {
    fn push(&mut self, document: &Document) -> Result<()> {
        let mut current = match self.open.take() {
            Some(open) => open,
            None => {
                let file = format!("{}-{:05}.ff2tokens", self.name, self.entries.len());
                let (vocab, tokenizer, has_mask) = self.create;
                let path = self.folder.join(&file);
                (file, ShardWriter::create(&path, vocab, tokenizer, has_mask)?)
            }
        };
        let learned = |place: usize| document.learned.as_ref().is_none_or(|all| all[place]);
        current.1.push(&document.ids, learned, document.text_bytes)?;
        let is_full = current.1.tokens() >= self.tokens_max;
        self.open = Some(current);
        if is_full { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        if let Some((file, writer)) = self.open.take() {
            let header = writer.finish()?;
            let (tokens, documents) = (header.tokens, header.documents);
            self.entries.push(ShardEntry {
                file,
                tokens,
                documents,
                text_bytes: header.text_bytes,
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<ShardEntry>> {
        self.close()?;
        Ok(self.entries)
    }
}
