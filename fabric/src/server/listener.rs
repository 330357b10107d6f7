//! Where a server takes connections: on the network, from its own host by a local socket, or inside
//! the process.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    task::Poll,
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::{
    mem,
    pulse::Pulse,
    shm, tcp,
    transport::{Receiver, Sender},
};

#[derive(Debug)]
pub(super) enum Listener {
    /// All addresses, none of them without a listener.
    Net(Vec<TcpListener>, Option<Local>),
    Mem(mem::Listener),
}

/// For clients of this host.
#[derive(Debug)]
pub(super) struct Local {
    name: String,
    listener: UnixListener,
}

impl Listener {
    /// `host:port` or `mem:name`; `local`: with a local socket. Also returns where it is, unspecified
    /// inside the process.
    pub(super) async fn bind(address: &str, local: bool) -> io::Result<(Self, SocketAddr)> {
        if let Some(name) = address.strip_prefix(mem::SCHEME) {
            let nowhere = (Ipv4Addr::UNSPECIFIED, 0).into();
            return Ok((Self::Mem(mem::Listener::bind(name)?), nowhere));
        }
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        let local = local.then(Local::bind).transpose();
        let local = local.inspect_err(|error| {
            tracing::warn!(%error, "no local socket: clients of this host come by TCP");
        });
        Ok((Self::Net(vec![tcp], local.ok().flatten()), address))
    }

    /// Also listens on `host:port`, and returns where that is.
    pub(super) async fn also_at(&mut self, address: &str) -> io::Result<SocketAddr> {
        let Self::Net(listeners, _) = self else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "inside a process there is one address",
            ));
        };
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        listeners.push(tcp);
        Ok(address)
    }

    /// The local socket's name; empty if there is none.
    pub(super) fn local_name(&self) -> &str {
        match self {
            Self::Net(_, Some(local)) => &local.name,
            Self::Net(_, None) | Self::Mem(_) => "",
        }
    }

    /// The next connection, and from where.
    pub(super) async fn accept(&mut self) -> io::Result<(Incoming, String)> {
        match self {
            Self::Net(tcp, None) => accept_tcp(tcp).await,
            Self::Net(tcp, Some(local)) => tokio::select! {
                accepted = accept_tcp(tcp) => accepted,
                accepted = local.listener.accept() => {
                    Ok((Incoming::Local(accepted?.0), "this host".into()))
                }
            },
            Self::Mem(mem) => {
                let from = format!("{}{}", mem::SCHEME, mem.name());
                Ok((Incoming::Mem(mem.accept().await?), from))
            }
        }
    }
}

async fn accept_tcp(listeners: &[TcpListener]) -> io::Result<(Incoming, String)> {
    let accepted = poll_fn(|cx| {
        let ready = listeners.iter().map(|tcp| tcp.poll_accept(cx)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    });
    let (stream, from) = accepted.await?;
    Ok((Incoming::Tcp(stream), from.to_string()))
}

impl Local {
    fn bind() -> io::Result<Self> {
        let name = shm::new_name()?;
        Ok(Self { listener: UnixListener::bind(shm::path_of(&name))?, name })
    }
}

/// A connection before its handshake.
pub(super) enum Incoming {
    Tcp(TcpStream),
    Local(UnixStream),
    Mem(mem::Connecting),
}

impl Incoming {
    /// Where the client is.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Self::Local(_) => Some(Ipv4Addr::LOCALHOST.into()),
            Self::Mem(_) => None,
        }
    }

    pub(super) fn split(self, pulse: &Arc<Pulse>) -> io::Result<(Sender, Receiver)> {
        match self {
            Self::Tcp(stream) => tcp::split(stream, pulse),
            Self::Local(stream) => shm::split(stream, pulse),
            Self::Mem(connecting) => Ok(connecting.split(pulse)),
        }
    }
}
