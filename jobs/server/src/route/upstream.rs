//! Connections to replicas and other routers: TLS to the one certificate that all of a service have, and the service's
//! own key in each request, so that they know each other.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    body::Bytes,
    http::{HeaderValue, Method, Request, Response, Uri, header::AUTHORIZATION},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use super::{
    folder::{INSIDE_NAME, ServiceFolder},
    replicas::Load,
    report::Report,
};
use crate::limits;

/// Longer than this nobody speaks of himself.
const SAYING_BYTES_MAX: usize = 64 << 10;

/// See the module. Connections are kept and used again.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client<Connector, Full<Bytes>>,
    key: HeaderValue,
}

impl Upstream {
    /// With the folder's secrets, which are made where there are none.
    ///
    /// # Errors
    /// Secrets that cannot be made, read or understood.
    pub fn open(folder: &ServiceFolder) -> Result<Self> {
        let key = folder.secrets()?;
        let key = format!("Bearer {}", key.trim()).parse().context("a key is plain ASCII")?;
        let tls = connector(&folder.inside_tls().0)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(Connector { tls });
        Ok(Self { client, key })
    }

    /// # Errors
    /// There is no head of an answer.
    pub async fn send(
        &self,
        to: SocketAddr,
        request: &Outgoing,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        let uri = Uri::builder().scheme("https").authority(to.to_string());
        let uri =
            uri.path_and_query(request.path.as_str()).build().expect("parts that were parsed");
        let mut built = Request::new(Full::new(request.body.clone()));
        *built.method_mut() = request.method.clone();
        *built.uri_mut() = uri;
        built.headers_mut().extend(request.headers.clone());
        built.headers_mut().insert(AUTHORIZATION, self.key.clone());
        self.client.request(built).await
    }

    /// How a replica is.
    ///
    /// # Errors
    /// It does not answer, or not as a replica does.
    pub async fn load(&self, of: SocketAddr) -> Result<Load> {
        self.get(of, "/load", limits::REPLICA_PATIENCE).await
    }

    /// How the service does, as a router says.
    ///
    /// # Errors
    /// It does not answer, or not as a router does.
    pub async fn report(&self, of: SocketAddr) -> Result<Report> {
        self.get(of, "/report", limits::ROUTER_PATIENCE).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        of: SocketAddr,
        path: &str,
        patience: Duration,
    ) -> Result<T> {
        let request = Outgoing { path: path.to_owned(), ..Outgoing::default() };
        let asked = async {
            let answer = self.send(of, &request).await?;
            let body = http_body_util::Limited::new(answer.into_body(), SAYING_BYTES_MAX);
            let body = body.collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            serde_json::from_slice(&body).context("understand what it says")
        };
        timeout(patience, asked).await.context("it is silent")?
    }
}

/// A request for a replica; it may be sent several times.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: axum::http::HeaderMap,
    pub body: Bytes,
}

/// Trusts this certificate alone.
fn connector(certificate: &Path) -> Result<TlsConnector> {
    let read = || format!("read {}", certificate.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate).with_context(read)? {
        roots.add(certificate.with_context(read)?).with_context(read)?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Wire>> {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let stream = TcpStream::connect(authority).await?;
        // It costs latency only.
        let _ = stream.set_nodelay(true);
        let name = INSIDE_NAME.try_into().expect("a name");
        Ok(TokioIo::new(Wire(self.tls.connect(name, stream).await?)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = timeout(limits::REPLICA_CONNECT, connector.connect(uri)).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

/// The client wants to be told what a connection is; this one is nothing special.
#[derive(Debug)]
struct Wire(TlsStream<TcpStream>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
