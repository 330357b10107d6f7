//! What a server and a router have in common on the command line: who may ask, how the way is kept, and bounds.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::Args;
use ff2_server::{
    guard::keys::{KeyLimits, Keys},
    limits,
    net::{body::BodyBounds, descriptors, serve::ServeOptions, tls},
};
use tokio_rustls::TlsAcceptor;

use crate::key::KeysFile;

/// Who may ask, and how the way to the server is kept.
#[derive(Debug, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pub(crate) keys: KeysFile,
    /// Ask for no key, whatever --keys says: whoever reaches the port may use the model
    #[arg(long)]
    open: bool,
    /// Certificate for TLS (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Serve beyond this host without keys or without TLS: something before this server sees to that
    #[arg(long)]
    unprotected: bool,
}

impl Access {
    /// Protection is on unless somebody says that it may be off.
    pub(crate) fn check(&self, listen: SocketAddr) -> Result<()> {
        let is_safe = listen.ip().is_loopback()
            || self.unprotected
            || (!self.open && self.tls_certificate.is_some());
        ensure!(
            is_safe,
            "{listen} is reached from beyond this host: give --tls-certificate and --tls-key and leave out --open, or \
             say --unprotected if a proxy or the network sees to that"
        );
        Ok(())
    }

    /// The keys' file, made with a first key where there is none. None: no keys are asked for.
    pub(crate) fn keys(&self, path: impl FnOnce() -> Result<PathBuf>) -> Result<Option<PathBuf>> {
        if self.open {
            return Ok(None);
        }
        let path = path()?;
        if Keys::read(&path)?.is_none() {
            let mut keys = Keys::default();
            let text = keys.add("first", KeyLimits::default())?;
            keys.write(&path)?;
            eprintln!(
                "made the first API key, kept hashed in {}; it is not shown again:\n{text}",
                path.display()
            );
        }
        Ok(Some(path))
    }

    /// Certificate and key, if there are any.
    pub(crate) fn tls(&self) -> Option<(&Path, &Path)> {
        self.tls_certificate.as_deref().zip(self.tls_key.as_deref())
    }
}

/// What answers by TLS, if anything does, and the scheme of its addresses.
pub(crate) fn acceptor(
    files: Option<(&Path, &Path)>,
) -> Result<(Option<TlsAcceptor>, &'static str)> {
    match files {
        Some((certificate, key)) => Ok((Some(tls::acceptor(certificate, key)?), "https")),
        None => Ok((None, "http")),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Bounds {
    /// Connections in all
    #[arg(long, value_name = "N", default_value = "16384")]
    connections: NonZeroUsize,
    /// Connections from one address
    #[arg(long, value_name = "N", default_value = "256")]
    connections_per_address: NonZeroUsize,
    /// Size of a request's body
    #[arg(long, value_name = "MIB", default_value = "4")]
    body_mib: NonZeroUsize,
    /// Time for requests in work once the server is told to stop
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    drain_seconds: NonZeroU32,
}

impl Bounds {
    /// A connection takes `each` descriptors at most.
    pub(crate) fn serve(&self, each: usize) -> ServeOptions {
        ServeOptions {
            connections: descriptors::room(self.connections.get(), each),
            per_address: self.connections_per_address.get(),
            ..ServeOptions::default()
        }
    }

    pub(crate) fn body(&self) -> BodyBounds {
        BodyBounds { bytes_max: self.body_mib.get() << 20, timeout: limits::BODY_TIMEOUT }
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_seconds.get()))
    }
}
