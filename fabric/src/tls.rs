//! TLS 1.3 for the data plane over TCP: who proves its name by a certificate of the cluster's authority (or, among the
//! ranks of a job, by their key alone: `by_key`), and what goes through it.
//!
//! A server's port takes both kinds of connection: the first byte tells. The handshake of `handshake.rs` stays,
//! inside, and its proofs cover a secret that only the two ends of the TLS connection know
//! ([`BINDING`]), so that nobody in the middle can pass them on. Clients show no certificate: their key or token
//! says who they are. Files of certificates and of authorities are looked at again when connections begin, so a new
//! one needs no restart.

mod by_key;
mod certificate;
mod shown;
mod trust;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use certificate::{Certificate, read_certificate};
use ff2_proto::{Routing, pb};
pub use shown::Shown;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version::TLS13,
    },
};

use self::trust::Trust;
use crate::auth::Secret;

/// What the ends of a TLS connection derive the secret from that the handshake is bound to.
const BINDING: &[u8] = b"EXPORTER-ff2-handshake-1";
/// First byte of a TLS connection: the content type of a handshake. Ours begin with an `f`.
const HANDSHAKE: u8 = 0x16;
/// HTTP/2, as gRPC has it.
const ALPN_H2: &[u8] = b"h2";
/// What servers that demand encryption say to those without.
const GIVE_AUTHORITY: &str = "give `tls_ca_file` (the cluster's ca.pem) in the configuration of this process, and for \
                              storage servers that demand it `encrypt = \"all\"`";

/// Why there can be no encryption.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has no certificate or key in PEM: {detail}")]
    Pem { path: PathBuf, detail: String },
    #[error("{certificate} and {key} cannot be used: {source}")]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("TLS 1.3 cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("a certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
}

/// What a process encrypts of the connections that it makes.
#[derive(Clone)]
pub struct ClientTls {
    trust: Trusted,
    all: bool,
}

#[derive(Clone)]
enum Trusted {
    Authority(Arc<Trust>),
    /// Whoever knows the key of the handshake inside.
    Key(TlsConnector),
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("all", &self.all).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Trusts the authorities in the file, PEM. `all`: connections to storage nodes too.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds no certificate.
    pub fn load(authority: &Path, all: bool) -> Result<Self, TlsError> {
        Ok(Self { trust: Trusted::Authority(Arc::new(Trust::load(authority)?)), all })
    }

    /// For servers of [`ServerTls::by_key`]: all connections over the network.
    ///
    /// # Errors
    ///
    /// If TLS 1.3 cannot be used.
    pub fn by_key() -> Result<Self, TlsError> {
        Ok(Self { trust: Trusted::Key(by_key::connector()?), all: true })
    }

    /// Whether a connection to this address is encrypted: whoever is not known to be a storage node is.
    pub(crate) fn covers(&self, routing: &Routing, address: &str) -> bool {
        let is_storaged =
            |node: &pb::Node| node.address == address && node.role() == pb::NodeRole::Storaged;
        self.all || !routing.nodes.values().any(is_storaged)
    }

    pub(crate) async fn connect(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Secret)> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (connector, name, doubt) = match &self.trust {
            Trusted::Authority(trust) => {
                let doubt =
                    "does the server have a certificate of this cluster's authority for that name?";
                (trust.connector(), host, doubt)
            }
            Trusted::Key(connector) => {
                (connector.clone(), by_key::NAME, "does the server encrypt, as this process does?")
            }
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = connector.connect(name, stream).await;
        let stream = stream
            .map_err(|error| io::Error::new(error.kind(), format!("TLS ({doubt}): {error}")))?;
        let secret = stream.get_ref().1.export_keying_material([0; 32], BINDING, None);
        Ok((TlsStream::Client(stream), secret.map_err(io::Error::other)?))
    }
}

/// What a daemon needs by its configuration: for the connections that it makes, if it trusts an authority, and
/// for those that it takes, if it has a certificate and its key. `all`: as of [`ClientTls::load`].
///
/// # Errors
///
/// If a file cannot be used.
pub fn load(
    authority: Option<&Path>,
    own: (Option<&Path>, Option<&Path>),
    all: bool,
) -> Result<(Option<ClientTls>, Option<Arc<Certificate>>), TlsError> {
    let client = authority.map(|authority| ClientTls::load(authority, all)).transpose()?;
    let own = match own {
        (Some(certificate), Some(key)) => Some(Certificate::load(certificate, key)?),
        _ => None,
    };
    Ok((client, own))
}

/// A server's side: its certificate, and whether it takes connections without encryption.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    /// What those are told who come without it over the network; `None`: they are let in.
    pub(crate) demand: Option<&'static str>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("demand", &self.demand).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// `demands`: connections over the network that are not encrypted are refused.
    ///
    /// # Errors
    ///
    /// If TLS 1.3 cannot be used.
    pub fn new(certificate: Arc<Certificate>, demands: bool) -> Result<Self, TlsError> {
        let acceptor = acceptor(certificate, None)?;
        Ok(Self { acceptor, demand: demands.then_some(GIVE_AUTHORITY) })
    }

    /// Without an authority: who knows the key of the handshake inside is trusted, on both sides. All connections over
    /// the network must be encrypted; `advice` is for those that are not.
    ///
    /// # Errors
    ///
    /// If no certificate can be made, or TLS 1.3 cannot be used.
    pub fn by_key(advice: &'static str) -> Result<Self, TlsError> {
        Ok(Self { acceptor: by_key::acceptor()?, demand: Some(advice) })
    }

    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Secret)> {
        let stream = self.acceptor.accept(stream).await?;
        let secret = stream.get_ref().1.export_keying_material([0; 32], BINDING, None);
        Ok((TlsStream::Server(stream), secret.map_err(io::Error::other)?))
    }
}

/// Takes in gRPC's connections with this certificate.
///
/// # Errors
///
/// If TLS 1.3 cannot be used.
pub fn grpc_acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, TlsError> {
    acceptor(certificate, Some(ALPN_H2))
}

fn acceptor(
    certificate: Arc<Certificate>,
    protocol: Option<&[u8]>,
) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    // Connections last: none is resumed.
    config.send_tls13_tickets = 0;
    config.alpn_protocols.extend(protocol.map(<[u8]>::to_vec));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether the connection begins as TLS does; waits for its first byte.
pub(crate) async fn begins(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok(count == 1 && first[0] == HANDSHAKE)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All certificates of a file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let wrong = |detail: String| TlsError::Pem { path: path.into(), detail };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("no certificate is there".into()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests;
