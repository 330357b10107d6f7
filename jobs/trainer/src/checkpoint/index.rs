//! What one rank wrote of a step.

use std::{fs, path::Path};

use crc_fast::crc32_iscsi;
use serde::{Deserialize, Serialize};

use super::CheckpointError;

pub(super) const VERSION: u32 = 1;
const FILE: &str = "index-0000.json";
const CHECKSUM: &str = "index-0000.crc32c";

/// A run's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) step: u64,
    /// Sequences that were seen: where in the order of the text the next step begins.
    pub(crate) position: u64,
    pub(crate) tokens: u64,
    pub(crate) bad_steps: u32,
    pub(crate) optimizer_steps: i32,
    /// Tokens of a sequence.
    pub(crate) sequence: usize,
    /// sha256 of the tokenizer.json, in hex.
    pub(crate) tokenizer: String,
    /// The model's `config.json`.
    pub(crate) config: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) file: String,
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
    pub(super) crc32c: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    pub(super) version: u32,
    pub(super) rank: usize,
    pub(super) ranks: usize,
    pub(super) head: Head,
    pub(super) tensors: Vec<Entry>,
}

impl Index {
    pub(super) fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let text = serde_json::to_string(self).expect("plain fields") + "\n";
        let checksum = format!("{:08x}\n", crc32_iscsi(text.as_bytes()));
        for (file, text) in [(FILE, text), (CHECKSUM, checksum)] {
            let path = folder.join(file);
            fs::write(&path, text).map_err(|source| CheckpointError::Io { path, source })?;
        }
        Ok(())
    }

    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read(&path).map_err(|source| CheckpointError::Io { path, source })
        };
        let wrong = |found: String, expected: &str| {
            let (path, expected) = (folder.join(FILE), expected.to_owned());
            Err(CheckpointError::Index { path, found, expected })
        };
        let (text, checksum) = (read(FILE)?, read(CHECKSUM)?);
        let found = format!("{:08x}", crc32_iscsi(&text));
        let expected = String::from_utf8_lossy(&checksum);
        if found != expected.trim() {
            return wrong(
                format!("checksum {found}"),
                &format!("{} by {CHECKSUM}", expected.trim()),
            );
        }
        let index: Self = match serde_json::from_slice(&text) {
            Ok(index) => index,
            Err(error) => return wrong(error.to_string(), "an index of this version"),
        };
        if index.version != VERSION {
            return wrong(format!("version {}", index.version), "version 1");
        }
        if (index.rank, index.ranks) != (0, 1) {
            return wrong(format!("rank {} of {}", index.rank, index.ranks), "one rank");
        }
        Ok(index)
    }
}
