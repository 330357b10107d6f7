//! Documents as tokens. A text is its tokens and the end of text; of a conversation each message is its role's mark
//! and its tokens, and an answer ends with the end of text. Only answers and their ends are learned.

use std::path::Path;

use anyhow::{Context, Result};
use tokenizers::Tokenizer;

use super::{
    corpus::{Content, Part, Role},
    tokenizer,
};

/// Texts are encoded in pieces of this length, cut behind lines, so that one long file uses all cores.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) ids: Vec<u32>,
    /// One a token; None: all.
    pub(super) learned: Option<Vec<bool>>,
    pub(super) text_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    vocab: u32,
    end_of_text: u32,
    /// In the order of [`Role`]; none if there are no conversations.
    roles: Vec<u32>,
}

impl Encoder {
    pub(super) fn open(path: &Path, end_of_text: &str, has_chats: bool) -> Result<Self> {
        let mut tokenizer = tokenizer::open(path)?;
        // Marks that stand in a text are text.
        tokenizer.set_encode_special_tokens(true);
        let roles = if has_chats { tokenizer::ROLES.as_slice() } else { &[] };
        let roles = roles.iter().map(|role| tokenizer::mark(&tokenizer, path, role));
        Ok(Self {
            roles: roles.collect::<Result<_>>()?,
            end_of_text: tokenizer::mark(&tokenizer, path, end_of_text)?,
            vocab: u32::try_from(tokenizer.get_vocab_size(true)).context("count the vocabulary")?,
            tokenizer,
        })
    }

    pub(super) fn vocab(&self) -> u32 {
        self.vocab
    }

    pub(super) fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// All at once, on all cores.
    pub(super) fn encode(&self, contents: Vec<(Part, Content)>) -> Result<Vec<(Part, Document)>> {
        let mut pieces = Vec::new();
        for (_, content) in &contents {
            match content {
                Content::Text(text) => pieces.extend(cut(text)),
                Content::Chat(messages) => {
                    pieces.extend(messages.iter().flat_map(|message| cut(&message.content)));
                }
            }
        }
        let encoded = self
            .tokenizer
            .encode_batch_fast(pieces, false)
            .map_err(anyhow::Error::from_boxed)
            .context("encode the text")?;
        let mut encoded = encoded.iter().map(tokenizers::Encoding::get_ids);
        let mut tokens_of = |text: &str| -> Vec<u32> {
            encoded.by_ref().take(cut(text).count()).flatten().copied().collect()
        };
        let mut documents = Vec::new();
        for (part, content) in &contents {
            let text_bytes = content.len() as u64;
            let document = match content {
                Content::Text(text) => {
                    let mut ids = tokens_of(text);
                    ids.push(self.end_of_text);
                    Document { ids, learned: None, text_bytes }
                }
                Content::Chat(messages) => {
                    let (mut ids, mut learned) = (Vec::new(), Vec::new());
                    for message in messages {
                        ids.push(self.roles[message.role as usize]);
                        learned.push(false);
                        ids.extend(tokens_of(&message.content));
                        let is_answer = message.role == Role::Assistant;
                        if is_answer {
                            ids.push(self.end_of_text);
                        }
                        learned.resize(ids.len(), is_answer);
                    }
                    Document { ids, learned: Some(learned), text_bytes }
                }
            };
            documents.push((*part, document));
        }
        Ok(documents)
    }
}

/// Pieces of a text, the last one shorter.
fn cut(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let line = text.as_bytes().iter().skip(PIECE_BYTES).position(|byte| *byte == b'\n');
        let (piece, rest) = text.split_at(line.map_or(text.len(), |at| PIECE_BYTES + at + 1));
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use super::*;
    use crate::tokenize::corpus::{Corpus, Message};

    fn encoder(folder: &Path) -> Encoder {
        let text = folder.join("a.txt");
        fs::write(&text, "the cat sat on the mat, the dog sat on the log\n".repeat(50)).unwrap();
        let corpus = Corpus::find(&[text], 0.0).unwrap();
        let (path, again) = (folder.join("tokenizer.json"), folder.join("again.json"));
        tokenizer::learn(&corpus, 300, 1 << 20).unwrap().save(&path, false).unwrap();
        tokenizer::learn(&corpus, 300, 1 << 20).unwrap().save(&again, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap(), "the text decides it");
        Encoder::open(&path, tokenizer::END_OF_TEXT, true).unwrap()
    }

    #[test]
    fn text_comes_back_byte_by_byte_and_marks_in_it_are_text() {
        let folder = tempfile::tempdir().unwrap();
        let encoder = encoder(folder.path());
        let bytes = tokenizer::text_bytes(&folder.path().join("tokenizer.json")).unwrap();
        assert_eq!(bytes.len(), encoder.vocab() as usize);
        let long = "the cat sat\n".repeat(12_000) + "Grüße <|endoftext|> \u{1F600}\u{0}";
        for text in [long.as_str(), "", "x"] {
            let content = vec![(Part::Train, Content::Text(text.to_owned()))];
            let (_, document) = encoder.encode(content).unwrap().remove(0);
            let (end, ids) = document.ids.split_last().unwrap();
            assert_eq!(*end, encoder.end_of_text());
            assert!(!ids.contains(end));
            assert_eq!(encoder.tokenizer.decode(ids, false).unwrap(), text);
            let counted: u32 = document.ids.iter().map(|&id| bytes[id as usize]).sum();
            assert_eq!(counted as usize, text.len());
        }
    }

    #[test]
    fn of_a_conversation_only_answers_are_learned() {
        let folder = tempfile::tempdir().unwrap();
        let encoder = encoder(folder.path());
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        let chat = vec![message(Role::User, "cat?"), message(Role::Assistant, " sat")];
        let encoded = encoder.encode(vec![(Part::Train, Content::Chat(chat))]).unwrap();
        let document = &encoded[0].1;
        let text = encoder.tokenizer.decode(&document.ids, false).unwrap();
        assert_eq!(text, "<|user|>cat?<|assistant|> sat<|endoftext|>");
        let learned: Vec<u32> = document
            .ids
            .iter()
            .zip(document.learned.as_ref().unwrap())
            .filter_map(|(id, learned)| learned.then_some(*id))
            .collect();
        let learned = encoder.tokenizer.decode(&learned, false).unwrap();
        assert_eq!(learned, " sat<|endoftext|>");
    }
}
