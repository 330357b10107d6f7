//! The cluster key.

use std::{fmt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{AuthError, read_secret, write_secret};

/// What the key is used for: a MAC made for one use says nothing in another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    UserToken,
    Grant,
    ServerProof,
    ClientProof,
    /// As those, with the secret of the TLS connection.
    BoundServerProof,
    BoundClientProof,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::UserToken => b"ff2 user token 1\0",
            Self::Grant => b"ff2 grant 1\0",
            Self::ServerProof => b"ff2 server proof 1\0",
            Self::ClientProof => b"ff2 client proof 1\0",
            Self::BoundServerProof => b"ff2 bound server proof 1\0",
            Self::BoundClientProof => b"ff2 bound client proof 1\0",
        }
    }
}

/// A MAC, or a key that is one.
pub(crate) type Secret = [u8; 32];

/// The secret that all daemons of a cluster share.
#[derive(Clone)]
pub struct ClusterKey {
    secret: Secret,
}

impl ClusterKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, AuthError> {
        Ok(Self { secret: random()? })
    }

    /// Reads a key file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, AuthError> {
        Self::parse(&read_secret(path)?)
    }

    pub(super) fn parse(text: &str) -> Result<Self, AuthError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| AuthError::NotAKey)?;
        let secret = bytes.try_into().map_err(|_| AuthError::NotAKey)?;
        Ok(Self { secret })
    }

    /// Writes the key file, mode 0600.
    pub fn save(&self, path: &Path) -> Result<(), AuthError> {
        write_secret(path, &format!("{}\n", STANDARD.encode(self.secret)))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// HMAC-SHA256 of the parts, in order, for one purpose. Only the last part may vary in length.
pub(crate) fn mac(key: &Secret, purpose: Purpose, parts: &[&[u8]]) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(purpose.label());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Equal? In a time that does not depend on the bytes.
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

pub(crate) fn random() -> Result<Secret, AuthError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| AuthError::Random)?;
    Ok(bytes)
}
