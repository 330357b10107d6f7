//! The service's folder, on a file system that router and replicas share: who they are, and the secrets by which they
//! know each other. It is their owner's alone, so whoever can write to it belongs to the service.
//!
//! | file | |
//! |---|---|
//! | `keys.json` | API keys of clients, hashed |
//! | `service.json` | how many replicas there should be, of which jobs ([`Plan`]) |
//! | `router.json` | where the routers are, and how the service does, as the one that leads says |
//! | `replicas/ID.json` | a replica that runs ([`Entry`]) |
//! | `routers/ID.json` | a router that runs ([`RouterEntry`]) |
//! | `inside-keys.json`, `inside-key` | the key that replicas and routers ask a router for, hashed and plain |
//! | `inside.pem`, `inside-tls.pem` | certificate of all of them, and its key |
//! | `inside.lock` | held by whoever makes these |

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::generate_simple_self_signed;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    fleet::Plan,
    roll::{Announced, Roll},
};
use crate::guard::keys::{KeyLimits, Keys, KeysError};

/// The name in the certificate: replicas have no names of their own.
pub const INSIDE_NAME: &str = "ff2-replica";

/// A replica that runs, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Another one at each start.
    pub id: String,
    pub address: SocketAddr,
    /// Its place among the replicas of one submission, from 0.
    pub index: u32,
    /// The service job that it is of; 0: it was started by hand.
    pub job: u64,
}

impl Announced for Entry {
    fn id(&self) -> &str {
        &self.id
    }
}

/// A router that runs, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterEntry {
    /// Another one at each start.
    pub id: String,
    /// When it began, Unix time, ms.
    pub since_ms: u64,
    /// Where other routers reach it.
    pub inside: SocketAddr,
    /// Where clients reach it.
    pub url: String,
}

impl Announced for RouterEntry {
    fn id(&self) -> &str {
        &self.id
    }
}

/// What is wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {detail}", path.display())]
    Format { path: PathBuf, detail: String },
    #[error("{}: others may enter it (mode {mode:o}); chmod 700 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct ServiceFolder {
    path: PathBuf,
}

impl ServiceFolder {
    /// Makes it where there is none.
    ///
    /// # Errors
    /// It cannot be made, or others may enter it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(io(path))?;
        let mode = fs::metadata(path).map_err(io(path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(FolderError::Open { path: path.to_owned(), mode });
        }
        let folder = Self { path: path.to_owned() };
        for roll in [folder.replicas().path(), folder.routers().path()] {
            builder.create(roll).map_err(io(roll))?;
        }
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn keys(&self) -> PathBuf {
        self.path.join("keys.json")
    }

    pub fn inside_keys(&self) -> PathBuf {
        self.path.join("inside-keys.json")
    }

    /// Certificate and key of replicas.
    pub fn inside_tls(&self) -> (PathBuf, PathBuf) {
        (self.path.join("inside.pem"), self.path.join("inside-tls.pem"))
    }

    fn inside_key(&self) -> PathBuf {
        self.path.join("inside-key")
    }

    pub fn replicas(&self) -> Roll<Entry> {
        Roll::at(self.path.join("replicas"))
    }

    pub fn routers(&self) -> Roll<RouterEntry> {
        Roll::at(self.path.join("routers"))
    }

    /// The key that the router shows to replicas. Made at its first start, with the certificate; replicas wait for
    /// it ([`Self::has_secrets`]).
    ///
    /// # Errors
    /// Files that cannot be read or made.
    pub fn secrets(&self) -> Result<String, FolderError> {
        let path = self.inside_key();
        // Of routers that start at once one makes them. The lock ends with the process at the latest.
        let lock = self.path.join("inside.lock");
        let lock = fs::File::create(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(io(&lock))?;
        if !self.has_secrets() {
            let (certificate, key) = self.inside_tls();
            let made = generate_simple_self_signed(vec![INSIDE_NAME.to_owned()])
                .map_err(|error| FolderError::Certificate(error.to_string()))?;
            put(&certificate, made.cert.pem().as_bytes())?;
            put(&key, made.signing_key.serialize_pem().as_bytes())?;
            let mut keys = Keys::default();
            let text = keys.add("router", KeyLimits::default())?;
            keys.write(&self.inside_keys())?;
            // The last: where it is, all is.
            put(&path, text.as_bytes())?;
        }
        drop(lock);
        fs::read_to_string(&path).map_err(io(&path))
    }

    pub fn has_secrets(&self) -> bool {
        self.inside_key().exists()
    }

    /// None: nobody wrote one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn plan(&self) -> Result<Option<Plan>, FolderError> {
        get_json(&self.path.join("service.json"))
    }

    /// # Errors
    /// It cannot be written.
    pub fn report(&self, value: &impl Serialize) -> Result<(), FolderError> {
        put_json(&self.path.join("router.json"), value)
    }
}

pub(super) fn get_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FolderError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path)(error)),
    };
    let format = |error: serde_json::Error| FolderError::Format {
        path: path.to_owned(),
        detail: error.to_string(),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(format)
}

pub(super) fn put_json(path: &Path, value: &impl Serialize) -> Result<(), FolderError> {
    put(path, &serde_json::to_vec_pretty(value).expect("plain data is JSON"))
}

/// Whole or not at all, for its owner alone.
fn put(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let write = || {
        let mut file = options.open(&new)?;
        io::Write::write_all(&mut file, bytes)?;
        fs::rename(&new, path)
    };
    write().map_err(io(path))
}

pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_none_is_told_from_none() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = ServiceFolder::open(&scratch.path().join("a/b")).unwrap();
        assert!(folder.plan().unwrap().is_none());
        fs::write(folder.path().join("service.json"), "[]").unwrap();
        assert!(matches!(folder.plan(), Err(FolderError::Format { .. })));
    }

    #[test]
    fn secrets_are_made_once_and_are_their_owners_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("s");
        let folder = ServiceFolder::open(&path).unwrap();
        assert!(!folder.has_secrets());
        let key = folder.secrets().unwrap();
        assert_eq!(folder.secrets().unwrap(), key);
        for file in [folder.inside_key(), folder.inside_tls().1, folder.inside_keys()] {
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
        let (certificate, key) = folder.inside_tls();
        crate::net::tls::acceptor(&certificate, &key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(ServiceFolder::open(&path), Err(FolderError::Open { mode: 0o755, .. })));
    }
}
