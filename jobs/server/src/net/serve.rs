//! Accepts connections and speaks HTTP/1.1 on them until it is told to stop.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::paced::Paced;
use crate::limits;

/// How many and how patient.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections in all; more are told 503 and closed at once.
    pub connections: usize,
    /// From one address; more are told 429 and closed at once.
    pub per_address: usize,
    /// From a connection's begin to a whole head.
    pub head: Duration,
    /// For a peer that takes nothing.
    pub write_stall: Duration,
    /// For answers under way to be taken, once it is told to stop.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS,
            per_address: 256,
            head: limits::HEAD_TIMEOUT,
            write_stall: limits::WRITE_STALL,
            drain: limits::WRITE_STALL,
        }
    }
}

/// Who is at the other end; in the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Connections that are open now.
#[derive(Debug, Default)]
pub struct Connections {
    pub open: AtomicI64,
    by_address: Mutex<BTreeMap<IpAddr, usize>>,
}

/// Serves until `stop`, then lets requests in work end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(options.connections));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(&stream, tls.is_some(), "503 Service Unavailable", "connections");
            continue;
        };
        let Some(seat) = Seat::take(&connections, from.ip(), options.per_address) else {
            refuse(&stream, tls.is_some(), "429 Too Many Requests", "connections_per_address");
            continue;
        };
        // It costs latency only.
        let _ = stream.set_nodelay(true);
        let (router, options, tls, stop) =
            (router.clone(), options.clone(), tls.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, from, router, options, tls, stop).await;
            drop((seat, place));
        });
    }
    drop(listener);
    tasks.close();
    if timeout(options.drain, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "answers that nobody took are dropped");
    }
}

/// Tells a peer that there is no room, as far as that goes without waiting for it; whoever speaks TLS is not told.
fn refuse(stream: &TcpStream, tls: bool, status: &str, code: &str) {
    if tls {
        return;
    }
    let error = json!({"error": {
        "message": "the server has as many connections as it takes, come back later",
        "type": "rate_limit_error", "param": null, "code": code,
    }})
    .to_string();
    let len = error.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n{error}"
    );
    // A new connection has room for all of it, if its peer still wants it. What that has sent is read, as far as it
    // is there: the kernel would tell of it by a reset, which some peers see before the answer.
    let _ = stream.try_write(answer.as_bytes());
    let _ = stream.try_read(&mut [0; 4096]);
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    options: ServeOptions,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    let stream = Paced::new(stream, options.write_stall);
    let Some(tls) = tls else { return http(stream, from, router, options, stop).await };
    match timeout(options.head, tls.accept(stream)).await {
        Ok(Ok(stream)) => http(stream, from, router, options, stop).await,
        Ok(Err(error)) => tracing::debug!(%from, %error, "no TLS"),
        Err(_) => tracing::debug!(%from, "no TLS in time"),
    }
}

async fn http<S>(
    stream: S,
    from: SocketAddr,
    router: Router,
    options: ServeOptions,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(from));
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.head)
        .max_buf_size(limits::HEAD_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%from, %error, "a connection ended");
    }
}

/// A place among the connections of an address.
#[derive(Debug)]
struct Seat {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Seat {
    fn take(connections: &Arc<Connections>, address: IpAddr, most: usize) -> Option<Self> {
        let mut all = connections.by_address.lock();
        let count = all.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        connections.open.fetch_add(1, Ordering::Relaxed);
        Some(Self { connections: connections.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.connections.by_address.lock();
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}
