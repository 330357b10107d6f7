//! A listener for people and tools: a bounded number of connections, and none that stays silent.
//!
//! Whoever can reach a port can open connections and say nothing. Each costs a file descriptor, and a
//! daemon that has none left cannot open its own files.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

use crate::limits;

/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl BoundedListener {
    pub fn new(listener: TcpListener) -> Self {
        Self::with(listener, limits::ADMIN_CONNECTIONS, limits::ADMIN_SILENCE)
    }

    fn with(listener: TcpListener, connections: usize, silence: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(connections)), silence }
    }

    /// The next connection, when there is a place for it.
    pub async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // It costs latency only.
                    let _ = stream.set_nodelay(true);
                    return (BoundedStream::new(stream, place, self.silence), from);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its peer is silent for too long.
#[derive(Debug)]
pub struct BoundedStream {
    stream: TcpStream,
    silence: Duration,
    timer: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl BoundedStream {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, silence: Duration) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + silence));
        Self { stream, silence, timer, _place: place }
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    fn progressed(&mut self) {
        let until = Instant::now() + self.silence;
        self.timer.as_mut().reset(until);
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, into) {
            self.progressed();
            return Poll::Ready(read);
        }
        self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(wrote) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.progressed();
            return Poll::Ready(wrote);
        }
        // A peer that takes nothing is as silent as one that says nothing.
        self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn silent_connections_make_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = BoundedListener::with(listener, 2, Duration::from_millis(200));
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await;
                tokio::spawn(async move {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte).await {
                        stream.write_all(&byte).await.unwrap();
                    }
                });
            }
        });
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut speaker = TcpStream::connect(address).await.unwrap();
        for _ in 0..5 {
            speaker.write_all(b"x").await.unwrap();
            let mut echo = [0];
            speaker.read_exact(&mut echo).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for stream in &mut silent {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it was closed");
        }
        server.abort();
    }
}
