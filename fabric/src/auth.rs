//! Who may connect, and what a client may touch: the cluster key and what is derived from it.
//!
//! Daemons hold the 32-byte [`ClusterKey`]. A [`UserToken`] is claims plus their HMAC-SHA256 under that
//! key; a grant is a metad's word to a storaged, sealed the same way. All secrets are compared in
//! constant time and never printed. The handshake that uses them is in `handshake.rs`.

mod grant;
mod key;
mod role;
mod token;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

pub use grant::check_rules;
pub use key::ClusterKey;
pub(crate) use key::{Purpose, Secret, mac, random, same};
pub use role::Role;
use thiserror::Error;
pub use token::UserToken;
pub(crate) use token::check_claims;

/// Why a secret could not be used.
#[derive(Debug, Error)]
pub enum AuthError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} may be read by others (mode {mode:03o}): run `chmod 600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("not a cluster key (44 characters of base64): take the file that `ff2ctl` wrote")]
    NotAKey,
    #[error("not a user token (`ff2-...`): get one with `ff2ctl user token`")]
    NotAToken,
    #[error("the system gives no random bytes")]
    Random,
}

/// Reads a secret that only its owner may read.
fn read_secret(path: &Path) -> Result<String, AuthError> {
    let failed = |source| AuthError::Read { path: path.into(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(AuthError::Exposed { path: path.into(), mode });
    }
    fs::read_to_string(path).map_err(failed)
}

/// Writes a secret with mode 0600, completely or not at all.
fn write_secret(path: &Path, text: &str) -> Result<(), AuthError> {
    let failed = |source| AuthError::Write { path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)
}

/// Seconds since 1970, for expiry dates.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A date that people can read.
fn date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let text = time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| format!("second {seconds}"))
}
