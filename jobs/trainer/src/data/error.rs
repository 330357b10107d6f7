//! What can be wrong with a dataset.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("{}: cannot read or write it", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error(
        "{}: listed in dataset.json, but it is gone; bring it back, or tokenize the text again",
        path.display()
    )]
    Gone { path: PathBuf },

    #[error("ff2://{name}: cannot read this volume")]
    Volume { name: String, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("{}: {found}, expected {expected}", path.display())]
    Shard { path: PathBuf, found: String, expected: String },

    #[error(
        "{}: its tokens were made by another tokenizer (sha256 {found}) than {by} (sha256 {expected}); \
         use the one that made them, or tokenize the text again",
        path.display()
    )]
    Tokenizer { path: PathBuf, found: String, by: String, expected: String },

    #[error(
        "{}: {tokens} tokens make no sequence of {sequence}; expected more text, or a shorter data.sequence",
        path.display()
    )]
    Short { path: PathBuf, tokens: u64, sequence: usize },

    #[error("{}: {detail}", path.display())]
    Manifest { path: PathBuf, detail: String },
}
