//! What a daemon encrypts, from its configuration.

use std::sync::Arc;

use anyhow::{Context, Result};
use ff2_fabric::tls::{self, Certificate, ClientTls};

use crate::config::{Encrypt, SecurityConfig};

/// What this process encrypts of the connections that it makes, and its own certificate.
///
/// # Errors
/// A file cannot be read, or is none of its kind.
pub fn encryption(
    security: &SecurityConfig,
) -> Result<(Option<ClientTls>, Option<Arc<Certificate>>)> {
    let authority = security.tls_ca_file.as_deref().filter(|_| security.encrypt != Encrypt::None);
    let own = (security.tls_cert_file.as_deref(), security.tls_key_file.as_deref());
    let loaded = tls::load(authority, own, security.encrypt == Encrypt::All);
    loaded.context("use the certificates")
}
