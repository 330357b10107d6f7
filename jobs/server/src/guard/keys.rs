//! The file of API keys. A key is 256 random bits, so its plain SHA-256 tells nothing: slow hashes are for passwords
//! that people choose. The file is its owner's alone, and replaced as a whole.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::service::seconds;

/// What every key begins with, so that scanners of leaked secrets know it.
const PREFIX: &str = "ff2-";
const VERSION: u32 = 1;

/// What keeps keys from being read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {detail}", path.display())]
    Format { path: PathBuf, detail: String },
    #[error("{}: others may read it (mode {mode:o}); chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("there is no key {0:?}; `ff2-serve key list` shows all")]
    Unknown(String),
    #[error("there is a key {0:?} already")]
    Exists(String),
    #[error("no randomness from the system")]
    Random,
}

/// What a key may take up. None: as much as the server has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Of prompts and answers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// At once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// In all, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_tokens: Option<u64>,
}

/// A key at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub name: String,
    /// SHA-256 of the key's text, as URL-safe base64.
    pub hash: String,
    /// Seconds since 1970.
    pub created: u64,
    #[serde(default)]
    pub limits: KeyLimits,
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    version: u32,
    pub keys: Vec<Key>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { version: VERSION, keys: Vec::new() }
    }
}

impl Keys {
    /// None: there is no such file yet.
    ///
    /// # Errors
    /// A file that cannot be read, is none of ours, or that others may read.
    pub fn read(path: &Path) -> Result<Option<Self>, KeysError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeysError::Io { path: path.to_owned(), source }),
        };
        let mode = fs::metadata(path).map_err(io(path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeysError::Open { path: path.to_owned(), mode });
        }
        let format = |detail: String| KeysError::Format { path: path.to_owned(), detail };
        let keys: Self = serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        if keys.version != VERSION {
            return Err(format(format!("version {}, expected {VERSION}", keys.version)));
        }
        Ok(Some(keys))
    }

    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), KeysError> {
        let new = path.with_extension("new");
        let text = serde_json::to_string_pretty(self).expect("keys are JSON");
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let mut file = fs::OpenOptions::new();
        let mut file = file
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(io(&new))?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(io(&new))?;
        file.sync_all().map_err(io(&new))?;
        fs::rename(&new, path).map_err(io(path))
    }

    /// Makes a key and returns its text, which nobody can tell from the file again.
    ///
    /// # Errors
    /// A name that is taken, a system without randomness.
    pub fn add(&mut self, name: &str, limits: KeyLimits) -> Result<String, KeysError> {
        if self.keys.iter().any(|key| key.name == name) {
            return Err(KeysError::Exists(name.to_owned()));
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| KeysError::Random)?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let created = seconds(SystemTime::now());
        self.keys.push(Key { name: name.to_owned(), hash: hash(&text), created, limits });
        Ok(text)
    }

    /// # Errors
    /// No such key.
    pub fn remove(&mut self, name: &str) -> Result<(), KeysError> {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != name);
        if self.keys.len() == before { Err(KeysError::Unknown(name.to_owned())) } else { Ok(()) }
    }
}

/// Of a key's text.
pub fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> KeysError {
    let path = path.to_owned();
    |source| KeysError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_hashed_and_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/keys.json");
        assert_eq!(Keys::read(&path).unwrap(), None);
        let mut keys = Keys::default();
        let text = keys.add("first", KeyLimits::default()).unwrap();
        assert!(text.starts_with("ff2-") && text.len() > 40, "{text}");
        assert!(matches!(keys.add("first", KeyLimits::default()), Err(KeysError::Exists(_))));
        keys.write(&path).unwrap();
        let kept = fs::read_to_string(&path).unwrap();
        assert!(!kept.contains(&text) && kept.contains(&hash(&text)), "{kept}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keys::read(&path).unwrap().unwrap(), keys);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::read(&path), Err(KeysError::Open { mode: 0o644, .. })));
        keys.remove("first").unwrap();
        assert!(matches!(keys.remove("first"), Err(KeysError::Unknown(_))));
    }
}
