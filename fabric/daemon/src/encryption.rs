//! What a process encrypts and as whom it connects, from its configuration.

use std::sync::Arc;

use anyhow::{Context, Result};
use ff2_fabric::{
    UserToken,
    tls::{self, Certificate, ClientTls},
};

use crate::config::{Encrypt, MountConfig, SecurityConfig};

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

impl MountConfig {
    /// As whom it connects.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is no token.
    pub fn token(&self) -> Result<UserToken> {
        let file = &self.token_file;
        UserToken::load(file).with_context(|| format!("load the token {}", file.display()))
    }

    /// What it encrypts; `None`: nothing.
    ///
    /// # Errors
    /// The authority's file cannot be read, or holds no certificate.
    pub fn tls(&self) -> Result<Option<ClientTls>> {
        let authority = self.tls_ca_file.as_deref().filter(|_| self.encrypt != Encrypt::None);
        let load = |file| ClientTls::load(file, self.encrypt == Encrypt::All);
        authority.map(load).transpose().context("use the authority of the servers")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn mount(more: &str) -> MountConfig {
        let text = format!(
            "cluster_id = 'c'\nmetads = ['10.0.0.1:7000']\ntoken_file = '/none/token'\n\
             mount_point = '/mnt/x'\ndata_dir = '/var/x'\n{more}"
        );
        parse(Path::new("mount.toml"), &text).unwrap()
    }

    #[test]
    fn a_mount_encrypts_where_it_knows_whom_to_trust_and_is_not_told_otherwise() {
        assert!(mount("").tls().unwrap().is_none());
        let told = mount("tls_ca_file = '/none/ca.pem'\nencrypt = 'none'");
        assert!(told.tls().unwrap().is_none());
        let error = format!("{:#}", mount("tls_ca_file = '/none/ca.pem'").tls().unwrap_err());
        assert!(error.contains("authority") && error.contains("/none/ca.pem"), "{error}");
    }

    #[test]
    fn a_token_that_cannot_be_read_is_named() {
        let error = format!("{:#}", mount("").token().unwrap_err());
        assert!(error.contains("load the token /none/token"), "{error}");
    }
}
