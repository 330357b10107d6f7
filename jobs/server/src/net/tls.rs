//! TLS with the operator's certificate.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// From PEM files: the certificate with its chain, and its key.
///
/// # Errors
/// Files that are missing, are no PEM, or do not belong together.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let read = || format!("read {}", certificate.display());
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificate).with_context(read)?.collect::<Result<_, _>>()?;
    ensure!(!chain.is_empty(), "{} has no certificate in it", certificate.display());
    let key =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
