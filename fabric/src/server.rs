//! The server side of the data plane.

use std::{io, net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    auth::ClusterKey, buf::BufPool, counters::Counters, routing::RoutingCache, rpc::Service,
};

/// Which services a server offers.
#[derive(Default)]
pub struct Router {
    services: Vec<Box<dyn Service>>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.services.iter().map(|s| s.number())).finish()
    }
}

impl Router {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "it adds a service, not a number")]
    pub fn add(mut self, service: impl Service) -> Self {
        assert!(self.services.iter().all(|s| s.number() != service.number()));
        self.services.push(Box::new(service));
        self
    }
}

/// What a server needs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub cluster_id: String,
    pub key: ClusterKey,
    pub pool: Arc<BufPool>,
    /// Its version travels with every reply; its revoked tokens are refused.
    pub routing: Arc<RoutingCache>,
}

impl ServerConfig {
    pub fn new(
        cluster_id: impl Into<String>,
        key: ClusterKey,
        pool: Arc<BufPool>,
        routing: Arc<RoutingCache>,
    ) -> Self {
        Self { cluster_id: cluster_id.into(), key, pool, routing }
    }
}

#[derive(Debug)]
pub struct Server {
    listener: tokio::net::TcpListener,
    counters: Arc<Counters>,
}

impl Server {
    pub async fn bind(address: &str, _config: ServerConfig) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(Self { listener, counters: Counters::new() })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket has an address")
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Serves until the token is cancelled and what is in progress is done.
    pub async fn serve(self, _router: Router, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
