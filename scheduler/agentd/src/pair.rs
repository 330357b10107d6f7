//! Lets another node measure the way to this one, when the scheduler says so.

use std::{io, net::ToSocketAddrs, thread};

use ff2_proto::pb::PairServer;
use ff2_validate::{Peer, pair::Server};

use crate::limits;

/// Listens at an address of this node, on a port of its own, for a minute or until the other one has what it wants.
pub(crate) fn wait(host: &str, number: u64, token: &str) -> PairServer {
    let address = listen(host, token).unwrap_or_else(|error| {
        tracing::warn!(host, %error, "no other node can measure the way to this one");
        String::new()
    });
    PairServer { number, address }
}

fn listen(host: &str, token: &str) -> io::Result<String> {
    let own = resolve(&format!("{host}:0"))?;
    let server = Server::bind(own, token.as_bytes())?;
    let port = server.address()?.port();
    thread::Builder::new().name("pair".into()).spawn(move || {
        match server.serve(limits::PAIR_TIME) {
            Ok(served) => tracing::info!(served.bytes, served.is_done, "the way here was measured"),
            Err(error) => tracing::warn!(%error, "the way here was not measured"),
        }
    })?;
    Ok(format!("{host}:{port}"))
}

/// None if there is no such address: the way is not measured then.
pub(crate) fn peer(address: &str, token: &str) -> Option<Peer> {
    let found = resolve(address);
    let found = found.inspect_err(|error| tracing::warn!(address, %error, "no way to measure"));
    Some(Peer { address: found.ok()?, token: token.as_bytes().to_vec() })
}

fn resolve(address: &str) -> io::Result<std::net::SocketAddr> {
    let mut found = address.to_socket_addrs()?;
    found.next().ok_or_else(|| io::Error::other("it has no address"))
}
