//! `dataset.json`: what a dataset consists of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DataError, TokenizerHash};

/// Beside the shards.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
const FILE: &str = "dataset.json";
/// All that is beside the shards; what follows is not beside those of a tokenizer that was not learned here.
pub(super) const FILES: [&str; 2] = [FILE, TOKENIZER];
pub(super) const FILES_MAYBE: [&str; 1] = ["tokenizer_config.json"];
const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    version: u32,
    /// sha256 of `tokenizer.json`, in hex.
    pub(crate) tokenizer: String,
    pub(crate) vocabulary: u32,
    /// Ends each document.
    pub(crate) end_of_text: u32,
    pub(crate) train: Vec<ShardEntry>,
    /// Never trained on.
    pub(crate) heldout: Vec<ShardEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShardEntry {
    pub(crate) file: String,
    pub(crate) tokens: u64,
    pub(crate) documents: u64,
    pub(crate) text_bytes: u64,
}

impl Manifest {
    pub(crate) fn new(tokenizer: &TokenizerHash, vocabulary: u32, end_of_text: u32) -> Self {
        let (train, heldout) = (Vec::new(), Vec::new());
        let tokenizer = hex(tokenizer);
        Self { version: VERSION, tokenizer, vocabulary, end_of_text, train, heldout }
    }

    /// Reads it, and checks that the tokenizer beside it is the one that it names.
    ///
    /// # Errors
    /// A folder that is no dataset, or whose tokenizer was exchanged.
    pub(crate) fn read(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE);
        let wrong = |detail: String| DataError::Manifest { path: path.clone(), detail };
        let text = fs::read(&path).map_err(|error| {
            wrong(format!("{error}; expected a dataset's folder, as `ff2-train tokenize` writes"))
        })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("{error}; expected what `ff2-train tokenize` wrote")))?;
        if manifest.version != VERSION {
            return Err(wrong(format!("version {}, expected {VERSION}", manifest.version)));
        }
        let found = hex(&tokenizer_hash(&folder.join(TOKENIZER))?);
        if found != manifest.tokenizer {
            return Err(DataError::Tokenizer {
                path,
                found: manifest.tokenizer,
                by: "the tokenizer.json beside it".to_owned(),
                expected: found,
            });
        }
        Ok(manifest)
    }

    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, DataError> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).expect("plain fields");
        fs::write(&path, text + "\n")
            .map_err(|source| DataError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

/// # Errors
/// A file that cannot be read.
pub(crate) fn tokenizer_hash(path: &Path) -> Result<TokenizerHash, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    Ok(Sha256::digest(bytes).into())
}

pub(crate) fn hex(hash: &TokenizerHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
