//! What one rank wrote of a step, and the record by which all of it counts.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crc_fast::crc32_iscsi;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{CheckpointError, folder::at};

pub(super) const VERSION: u32 = 2;
const COMMIT: &str = "commit.json";
const CHECKSUM: &str = "commit.crc32c";

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

/// A run of a tensor's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Of the whole tensor.
    pub(super) shape: Vec<usize>,
    /// The first number's place in the tensor, row-major.
    pub(super) start: usize,
    pub(super) file: String,
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
    pub(super) crc32c: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    pub(super) rank: usize,
    pub(super) tensors: Vec<Entry>,
}

/// An index as the commit record names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) file: String,
    /// In bytes.
    pub(super) length: u64,
    pub(super) crc32c: u32,
}

/// Written last: a step is a checkpoint if it is there and all that it names is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commit {
    pub(super) version: u32,
    pub(super) head: Head,
    /// One of each rank, in order.
    pub(super) indexes: Vec<Named>,
}

impl Index {
    /// Returns what the commit record says of it.
    pub(super) fn write(&self, folder: &Path) -> Result<Named, CheckpointError> {
        let text = json(self);
        let file = format!("index-{:04}.json", self.rank);
        put(folder, &file, &text)?;
        let (length, crc32c) = (text.len() as u64, crc32_iscsi(text.as_bytes()));
        Ok(Named { file, length, crc32c })
    }

    /// # Errors
    /// An index that is missing, cut, or another than the one that was committed.
    pub(super) fn read(folder: &Path, named: &Named) -> Result<Self, CheckpointError> {
        // A name with a folder in it could reach any file of the machine.
        let name = Path::new(&named.file).file_name().unwrap_or_default();
        let path = folder.join(name);
        let text = fs::read(&path).map_err(at(&path))?;
        if (text.len() as u64) < named.length {
            let (found, expected) = (text.len() as u64, named.length);
            return Err(CheckpointError::Cut { path, of: String::new(), found, expected });
        }
        let found = crc32_iscsi(&text);
        if found != named.crc32c {
            let expected = format!("{:08x} by {COMMIT}", named.crc32c);
            return Err(wrong(&path, format!("checksum {found:08x}"), &expected));
        }
        parse(&path, &text)
    }
}

impl Commit {
    pub(super) fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let text = json(self);
        put(folder, CHECKSUM, &format!("{:08x}\n", crc32_iscsi(text.as_bytes())))?;
        put(folder, COMMIT, &text)
    }

    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(COMMIT);
        let text = fs::read(&path).map_err(at(&path))?;
        let checksum = folder.join(CHECKSUM);
        let expected = fs::read_to_string(&checksum).map_err(at(&checksum))?;
        let found = format!("{:08x}", crc32_iscsi(&text));
        if found != expected.trim() {
            let expected = format!("{} by {CHECKSUM}", expected.trim());
            return Err(wrong(&path, format!("checksum {found}"), &expected));
        }
        let commit: Self = parse(&path, &text)?;
        if commit.version != VERSION {
            let found = format!("version {}", commit.version);
            return Err(wrong(&path, found, &format!("version {VERSION}")));
        }
        Ok(commit)
    }
}

fn json(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("plain fields") + "\n"
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), CheckpointError> {
    let path = folder.join(name);
    let mut file = File::create(&path).map_err(at(&path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&path))
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, CheckpointError> {
    serde_json::from_slice(text)
        .map_err(|error| wrong(path, error.to_string(), "a record of this version"))
}

fn wrong(path: &Path, found: String, expected: &str) -> CheckpointError {
    CheckpointError::Index { path: path.to_owned(), found, expected: expected.to_owned() }
}
