//! The client side of all connections of a process: one [`Channel`] for each peer.

use std::sync::Arc;

use ff2_proto::Status;
use prost::Message;

use crate::{
    auth::{ClusterKey, UserToken},
    buf::{Buf, BufPool},
    counters::Counters,
    routing::RoutingCache,
    rpc::{Call, Method},
};

/// As whom a process connects.
#[derive(Clone, Debug)]
pub enum Identity {
    Daemon(ClusterKey),
    User(UserToken),
}

/// What all connections of a process share.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    pub cluster_id: String,
    pub identity: Identity,
    pub pool: Arc<BufPool>,
    pub routing: Arc<RoutingCache>,
}

#[derive(Debug)]
pub struct Peers {
    config: PeersConfig,
    counters: Arc<Counters>,
}

impl Peers {
    pub fn new(config: PeersConfig) -> Arc<Self> {
        Arc::new(Self { config, counters: Counters::new() })
    }

    /// The way to a peer, `host:port`. Cheap; connects at the first call.
    pub fn channel(self: &Arc<Self>, address: &str) -> Channel {
        Channel { peers: self.clone(), address: address.into() }
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub fn pool(&self) -> &Arc<BufPool> {
        &self.config.pool
    }
}

/// The way to one peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel {
    peers: Arc<Peers>,
    address: Arc<str>,
}

impl Channel {
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes one call; the generated clients are the way to use it.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        _method: Method,
        _request: &Q,
        _call: Call,
    ) -> Result<(R, Buf), Status> {
        Err(ff2_proto::Code::Unreachable.into())
    }
}
