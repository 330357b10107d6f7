//! A model's tokenizer: `tokenizer.json` by the library of Hugging Face, and the bytes of each token.

use std::{collections::BTreeSet, path::Path};

use tokenizers::DecoderWrapper;

/// What keeps a tokenizer from being used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("cannot read {path}: {detail}; expected the tokenizer.json that belongs to the model")]
    Read { path: String, detail: String },
    #[error("the tokenizer decodes by {found}, expected ByteLevel, as the DeepSeek family does")]
    Decoder { found: String },
    #[error(
        "the tokenizer has {tokens} tokens, the model only {vocab}: they do not belong together"
    )]
    Vocabulary { tokens: usize, vocab: usize },
}

/// See the module. Ids that the model has and the tokenizer has not (padding of the table) have no bytes.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bytes: Vec<Vec<u8>>,
    special: BTreeSet<u32>,
}

impl Tokenizer {
    /// Of a model's folder; `vocab` is the number of rows of the model's head.
    ///
    /// # Errors
    /// No such file, a decoder that is not of bytes, more tokens than the model has.
    pub fn read(folder: &Path, vocab: usize) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let read =
            |detail: String| TokenizerError::Read { path: path.display().to_string(), detail };
        let bytes = std::fs::read(&path).map_err(|error| read(error.to_string()))?;
        let inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| read(error.to_string()))?;
        Self::new(inner, vocab)
    }

    pub fn new(inner: tokenizers::Tokenizer, vocab: usize) -> Result<Self, TokenizerError> {
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            let found = inner.get_decoder().map_or("nothing".to_owned(), |it| format!("{it:?}"));
            return Err(TokenizerError::Decoder { found: found.chars().take(60).collect() });
        }
        let ids = inner.get_vocab(true);
        let tokens = ids.values().max().map_or(0, |last| *last as usize + 1);
        if tokens > vocab {
            return Err(TokenizerError::Vocabulary { tokens, vocab });
        }
        let mut bytes = vec![Vec::new(); vocab];
        for (token, id) in ids {
            bytes[id as usize] = bytes_of(&token);
        }
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        Ok(Self { inner, bytes, special })
    }

    /// Tokens of a text; `special` adds what the tokenizer puts around every text (begin of sequence). Words of the
    /// text that are names of special tokens become those tokens, as everywhere with these tokenizers.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode_fast(text, special).map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes that a token stands for, which may be part of a character; None: no such token.
    pub fn bytes(&self, token: u32) -> Option<&[u8]> {
        self.bytes.get(token as usize).map(Vec::as_slice)
    }

    /// Of all ids of the model.
    pub fn all_bytes(&self) -> &[Vec<u8>] {
        &self.bytes
    }

    /// Control tokens, which are no part of an answer's text.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub fn vocab(&self) -> usize {
        self.bytes.len()
    }

    /// The text of tokens as a whole; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        let shown = tokens.iter().filter(|token| !(skip_special && self.is_special(**token)));
        let bytes: Vec<u8> =
            shown.filter_map(|token| self.bytes(*token)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A token of a byte-level vocabulary as bytes. Names of added tokens are plain text; those in characters that the
/// code uses too mean the same either way.
fn bytes_of(token: &str) -> Vec<u8> {
    let coded: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    coded.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's code of bytes as visible characters: printable ones of Latin-1 are themselves, the rest follows from 256.
fn byte_of(coded: char) -> Option<u8> {
    let itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(coded) {
        code @ 0..256 => u8::try_from(code).ok().filter(|byte| itself(*byte)),
        code => (0..=255_u8).filter(|byte| !itself(*byte)).nth((code - 256) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_bytes_is_that_of_the_library() {
        let mut seen = BTreeSet::new();
        for coded in tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet() {
            assert!(seen.insert(byte_of(coded).unwrap()), "{coded} is a byte of its own");
        }
        assert_eq!(seen.len(), 256);
        assert_eq!(bytes_of("Ġthe"), b" the");
        assert_eq!(bytes_of("<｜end▁of▁sentence｜>"), "<｜end▁of▁sentence｜>".as_bytes());
    }
}
