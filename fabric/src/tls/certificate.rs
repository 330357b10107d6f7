//! A server's certificate and its key, taken from their files again when these have changed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio_rustls::rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{TlsError, certificates, provider, read, shown::Shown};

/// The files are looked at no more often, however many connections begin.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    now: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    pair: Arc<CertifiedKey>,
    shown: Option<Shown>,
    changed: Option<Changed>,
    looked: Instant,
}

/// When the files changed last.
type Changed = (SystemTime, SystemTime);

impl Certificate {
    /// # Errors
    ///
    /// If a file cannot be read, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let now = Mutex::new(Loaded::read(certificate, key)?);
        Ok(Arc::new(Self { certificate: certificate.into(), key: key.into(), now }))
    }

    /// Unix time at which it ends; `None`: what it says cannot be read.
    pub fn expires_s(&self) -> Option<u64> {
        self.newest();
        self.now.lock().shown.as_ref().map(|shown| shown.expires_s)
    }

    fn newest(&self) -> Arc<CertifiedKey> {
        let mut now = self.now.lock();
        if now.looked.elapsed() >= LOOK {
            now.looked = Instant::now();
            // One of the two may be new already and the other not yet: the next look finds both.
            if changed(&self.certificate, &self.key) != now.changed {
                match Loaded::read(&self.certificate, &self.key) {
                    Ok(read) => {
                        tracing::info!(certificate = %self.certificate.display(), "a new certificate");
                        *now = read;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the changed certificate is not used");
                    }
                }
            }
        }
        now.pair.clone()
    }
}

impl Loaded {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        // Before the files are read: what changes meanwhile is read again.
        let changed = changed(certificate, key);
        let chain = certificates(certificate)?;
        let shown = chain.first().and_then(|first| Shown::of(first));
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?);
        let secret = secret
            .map_err(|error| TlsError::Pem { path: key.into(), detail: error.to_string() })?;
        let pair = CertifiedKey::from_der(chain, secret, &provider()).map_err(|source| {
            TlsError::Pair { certificate: certificate.into(), key: key.into(), source }
        })?;
        Ok(Self { pair: Arc::new(pair), shown, changed, looked: Instant::now() })
    }
}

fn changed(certificate: &Path, key: &Path) -> Option<Changed> {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some((modified(certificate)?, modified(key)?))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.newest())
    }
}

/// What the first certificate of a PEM file says.
///
/// # Errors
///
/// If the file cannot be read or holds no certificate that can.
pub fn read_certificate(path: &Path) -> Result<Shown, TlsError> {
    let chain = certificates(path)?;
    let shown = chain.first().and_then(|first| Shown::of(first));
    let detail = || "what it says cannot be read".to_owned();
    shown.ok_or_else(|| TlsError::Pem { path: path.into(), detail: detail() })
}
