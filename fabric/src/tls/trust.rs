//! The authorities that a process trusts. Their file is looked at again when connections begin, so that a new
//! authority can take over from another while everything runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, version::TLS13},
};

use super::{TlsError, certificate::LOOK, certificates, provider};

pub(super) struct Trust {
    file: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    connector: TlsConnector,
    changed: Option<SystemTime>,
    looked: Instant,
}

impl Trust {
    pub(super) fn load(file: &Path) -> Result<Self, TlsError> {
        Ok(Self { file: file.into(), now: Mutex::new(Now::read(file)?) })
    }

    /// By the newest file that can be used.
    pub(super) fn connector(&self) -> TlsConnector {
        let mut now = self.now.lock();
        if now.looked.elapsed() >= LOOK {
            now.looked = Instant::now();
            if changed(&self.file) != now.changed {
                match Now::read(&self.file) {
                    Ok(read) => {
                        tracing::info!(authorities = %self.file.display(), "other authorities");
                        *now = read;
                    }
                    Err(error) => tracing::warn!(%error, "the changed authorities are not used"),
                }
            }
        }
        now.connector.clone()
    }
}

impl Now {
    fn read(file: &Path) -> Result<Self, TlsError> {
        // Before the file is read: what changes meanwhile is read again.
        let changed = changed(file);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file)? {
            roots.add(certificate)?;
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { connector, changed, looked: Instant::now() })
    }
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}
