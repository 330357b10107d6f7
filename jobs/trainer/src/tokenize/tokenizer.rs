//! Byte-level BPE tokenizers: learned here, or brought along.

use std::{collections::HashSet, path::Path};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use tokenizers::{
    AddedToken, DecoderWrapper, Tokenizer,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

use super::corpus::{Content, Corpus};

/// What stands between documents; the first tokens of a vocabulary that is learned here.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";
/// Before a message of a conversation, in the order of [`super::corpus::Role`].
pub(super) const ROLES: [&str; 3] = ["<|system|>", "<|user|>", "<|assistant|>"];

/// Learns a vocabulary from at most `bytes_max` of the text that is trained on.
pub(super) fn learn(corpus: &Corpus, vocab: usize, bytes_max: usize) -> Result<Tokenizer> {
    let least = 256 + 1 + ROLES.len();
    ensure!(vocab >= least, "--vocab {vocab}, expected at least {least}: the bytes and the marks");
    let (mut sample, mut bytes) = (Vec::new(), 0);
    corpus.each(&mut |part, content| {
        // Held-out text would be encoded better than text that nobody ever saw.
        if part == super::Part::Train && bytes < bytes_max {
            bytes += content.len();
            match content {
                Content::Text(text) => sample.push(text),
                Content::Chat(messages) => sample.extend(messages.into_iter().map(|m| m.content)),
            }
        }
        Ok(())
    })?;
    let mut tokenizer = Tokenizer::new(BPE::default());
    let byte_level = ByteLevel::new(false, false, true);
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    let marks = [END_OF_TEXT].into_iter().chain(ROLES).map(|mark| AddedToken::from(mark, true));
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab)
        .special_tokens(marks.collect())
        .initial_alphabet(alphabet)
        .show_progress(false)
        .build();
    tokenizer
        .train(&mut TrainerWrapper::from(trainer), sample.into_iter())
        .map_err(anyhow::Error::from_boxed)
        .context("learn a tokenizer")?;
    Ok(tokenizer)
}

/// # Errors
/// A file that is no tokenizer, or none of bytes: text would not come back as it was.
pub(super) fn open(path: &Path) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_file(path)
        .map_err(anyhow::Error::from_boxed)
        .with_context(|| format!("{}: expected a tokenizer.json", path.display()))?;
    let is_byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
    ensure!(is_byte_level, "{}: expected a byte-level tokenizer", path.display());
    Ok(tokenizer)
}

/// For each token of the vocabulary the bytes of text that it stands for; 0 for marks.
///
/// # Errors
/// As for a tokenizer that cannot be opened.
pub(crate) fn text_bytes(path: &Path) -> Result<Vec<u32>> {
    let tokenizer = open(path)?;
    let marks = tokenizer.get_added_vocabulary();
    let bytes = |id: u32| match tokenizer.id_to_token(id) {
        // A byte-level token has a character for each byte.
        Some(token) if !marks.is_special_token(&token) => token.chars().count() as u32,
        _ => 0,
    };
    let size = u32::try_from(tokenizer.get_vocab_size(true)).context("count the vocabulary")?;
    Ok((0..size).map(bytes).collect())
}

/// The number of a mark.
pub(super) fn mark(tokenizer: &Tokenizer, path: &Path, token: &str) -> Result<u32> {
    tokenizer.token_to_id(token).ok_or_else(|| {
        anyhow!("{}: no token `{token}`; expected one, or another --end-of-text", path.display())
    })
}

/// What readers of Hugging Face layout need beside `tokenizer.json`, conversations in the form of [`super::encode`].
pub(super) fn write_config(folder: &Path, end_of_text: &str) -> Result<()> {
    let template = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\
        {% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}";
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "bos_token": null,
        "eos_token": end_of_text,
        "pad_token": end_of_text,
        "chat_template": template,
    });
    let path = folder.join("tokenizer_config.json");
    std::fs::write(&path, format!("{config:#}\n"))
        .with_context(|| format!("write {}", path.display()))
}
