//! Bounded connections in the form that the gRPC server takes, encrypted where there is a certificate.
//!
//! TLS is done here and not by the server, so that a new certificate is used without a restart.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::bounded::{BoundedListener, BoundedStream};

/// Until TLS is agreed on; a client that takes longer makes place for others.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections, for ever.
pub fn incoming(
    mut listener: BoundedListener,
    tls: Option<TlsAcceptor>,
) -> impl Stream<Item = io::Result<Incoming>> {
    let (ready, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                (stream, _) = listener.accept() => stream,
                () = ready.closed() => return,
            };
            let (ready, tls) = (ready.clone(), tls.clone());
            // One that is slow to agree holds up no other.
            tokio::spawn(async move {
                let incoming = match tls {
                    None => Incoming::Clear(stream),
                    Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => Incoming::Secured(Box::new(stream)),
                        Ok(Err(error)) => {
                            return tracing::debug!(%error, "no TLS with a client of gRPC");
                        }
                        Err(_) => return,
                    },
                };
                // Else the server is gone.
                let _ = ready.send(incoming).await;
            });
        }
    });
    stream::unfold(connections, |mut connections| async {
        let incoming = connections.recv().await?;
        Some((Ok(incoming), connections))
    })
}

/// A connection that can say where it comes from.
#[derive(Debug)]
pub enum Incoming {
    Clear(BoundedStream),
    Secured(Box<TlsStream<BoundedStream>>),
}

impl Connected for Incoming {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Option<SocketAddr> {
        match self {
            Self::Clear(stream) => stream.peer_addr().ok(),
            Self::Secured(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
