//! The server side of the data plane: listens, admits, and runs the services' methods.
//!
//! Owns the listener and every connection from clients until they end. It bounds who is not
//! admitted yet (bytes, time, number) and what each connection may have in progress. What a method
//! does is the service's business; see [`crate::rpc::Service`].

mod connection;
mod listener;
mod memory;
mod router;
mod strangers;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use connection::Connection;
use ff2_proto::{Code, Status};
use listener::{Incoming, Listener};
use memory::Memory;
use parking_lot::Mutex;
pub use router::Router;
use strangers::{Stranger, Strangers};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::ClusterKey,
    buf::BufPool,
    counters::Counters,
    handshake::{Admission, Gate, Welcome, admit},
    limits::{
        CONNECTIONS_MAX, CREDIT_BYTES, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, PAGE_BYTES, REQUESTS_MAX,
        SHARED_SLABS_MAX, USER_MESSAGES_BYTES, USER_SHARED_SLABS_MAX, USERS_SHARED_SLABS_MAX,
    },
    pulse::{Pulse, Tuning},
    rdma::{Answering, Rdma},
    routing::RoutingCache,
    rpc::{Method, Peer},
    tcp,
    tls::{self, ServerTls},
    transport::{LinkError, Receiver, Sender},
};

/// What a server needs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Clients of another cluster are refused.
    pub cluster_id: String,
    pub key: ClusterKey,
    /// Payloads of requests land here, but for small ones, which have memory of their own. A handler
    /// that holds one must not wait for this pool without a time limit: others like it may hold all
    /// the rest.
    pub pool: Arc<BufPool>,
    /// Its version travels with every reply; its revoked tokens are refused.
    pub routing: Arc<RoutingCache>,
    pub tuning: Tuning,
    /// Takes encrypted connections; None: it has no certificate.
    pub tls: Option<ServerTls>,
    /// Takes connections by RDMA; None: they stay with TCP.
    pub rdma: Option<Arc<Rdma>>,
    /// Told of every call that a handler finished.
    pub observer: Option<Observer>,
}

impl ServerConfig {
    pub fn new(
        cluster_id: impl Into<String>,
        key: ClusterKey,
        pool: Arc<BufPool>,
        routing: Arc<RoutingCache>,
    ) -> Self {
        let (tuning, observer) = (Tuning::default(), None);
        let cluster_id = cluster_id.into();
        Self { cluster_id, key, pool, routing, tuning, tls: None, rdma: None, observer }
    }

    /// Has `observe` called with each finished call: for the daemons' latency metrics.
    #[must_use]
    pub fn observed(mut self, observe: impl Fn(&Observed<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(observe)));
        self
    }
}

/// A finished call.
#[derive(Debug)]
pub struct Observed<'a> {
    pub method: Method,
    pub elapsed: Duration,
    pub failure: Option<&'a Status>,
}

/// Who is told of finished calls.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Observed<'_>) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    address: SocketAddr,
    config: ServerConfig,
    counters: Arc<Counters>,
}

/// What all connections of a server share.
#[derive(Debug)]
struct Shared {
    config: ServerConfig,
    router: Router,
    welcome: Welcome,
    counters: Arc<Counters>,
    memory: Memory,
    /// Bytes that users' messages may hold together.
    user_messages: Arc<Semaphore>,
    /// Slabs that users may share with this process.
    user_slabs: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Server {
    /// Listens on `host:port` (port 0: any free one) or, inside this process, on `mem:name`.
    pub async fn bind(address: &str, config: ServerConfig) -> io::Result<Self> {
        let (listener, address) = Listener::bind(address, config.tuning.shared_memory).await?;
        Ok(Self { listener, address, config, counters: Counters::new() })
    }

    /// Also listens on `host:port`, and returns where that is: a host has an address in each zone of the network.
    pub async fn also_at(&mut self, address: &str) -> io::Result<SocketAddr> {
        self.listener.also_at(address).await
    }

    /// Where it listens; unspecified for a `mem:` address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Serves until `stop`; then refuses new calls, answers those in progress, and returns.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let Self { mut listener, config, counters, .. } = self;
        // A connection's share of the pool: no client alone can fill it.
        let share = u32::try_from(config.pool.limit_bytes() / 8).unwrap_or(u32::MAX);
        let welcome = Welcome {
            credit_bytes: share.clamp(PAGE_BYTES as u32, CREDIT_BYTES),
            requests: REQUESTS_MAX,
            local_name: listener.local_name().into(),
            shared_slabs: 0,
            // What the hello brings about.
            protocol: 0,
            rdma: Bytes::new(),
            no_rdma: String::new(),
        };
        let shared = Arc::new(Shared {
            memory: Memory::new(config.pool.clone()),
            user_messages: Arc::new(Semaphore::new(USER_MESSAGES_BYTES)),
            user_slabs: Arc::new(Semaphore::new(USERS_SHARED_SLABS_MAX as usize)),
            config,
            router,
            welcome,
            counters,
            stop: stop.clone(),
        });
        let connections = TaskTracker::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => (),
            () = accept_all(&mut listener, &shared, &connections) => (),
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

/// Accepts connections while there are places for them.
async fn accept_all(listener: &mut Listener, shared: &Arc<Shared>, connections: &TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut strangers = Strangers::new(HANDSHAKES_MAX);
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((incoming, from)) => {
                let shared = shared.clone();
                let stranger = strangers.add().await;
                connections.spawn(async move {
                    let _place = place;
                    shared.serve_one(incoming, from, stranger).await;
                });
            }
            Err(error) => {
                // Most likely out of file descriptors; trying at once again would only burn CPU.
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A client that has proved who it is.
struct Admitted {
    peer: Peer,
    ends: (Sender, Receiver),
    /// Its part of what users may share.
    shared: Option<OwnedSemaphorePermit>,
}

impl Shared {
    async fn serve_one(self: Arc<Self>, incoming: Incoming, from: String, stranger: Stranger) {
        let pulse = Pulse::new(self.config.tuning, self.counters.clone());
        let address = incoming.address();
        let admission = timeout(HANDSHAKE_TIMEOUT, self.admit(incoming, &pulse));
        let admitted = tokio::select! {
            // Who was admitted at the last moment is served: it may not be told otherwise any more.
            biased;
            admitted = admission => admitted,
            () = self.stop.cancelled() => return,
            () = stranger.evicted.cancelled() => {
                return self.refused(&from, "it was silent, and others came");
            }
        };
        drop(stranger);
        let Admitted { peer, ends: (sender, receiver), shared: _shared } = match admitted {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(why)) => return self.refused(&from, &why.to_string()),
            Err(_) => return self.refused(&from, "the handshake took too long"),
        };
        pulse.opened(sender.transport());
        let why = Connection::new(self.clone(), (peer, address), pulse.clone())
            .run(sender, receiver)
            .await;
        let usual = matches!(why, LinkError::Closed | LinkError::Stopped | LinkError::Io(_));
        pulse.closed(!usual);
        match why {
            LinkError::Closed | LinkError::Stopped => tracing::debug!(from, "connection closed"),
            LinkError::Io(error) => tracing::debug!(from, %error, "connection lost"),
            why => tracing::warn!(from, %why, "closed the connection"),
        }
    }

    async fn admit(&self, incoming: Incoming, pulse: &Arc<Pulse>) -> Result<Admitted, LinkError> {
        let local = matches!(incoming, Incoming::Local(_));
        let remote = matches!(incoming, Incoming::Tcp(_));
        let (mut sender, mut receiver, binding) = match (incoming, &self.config.tls) {
            (Incoming::Tcp(stream), Some(tls)) if tls::begins(&stream).await? => {
                let (stream, secret) = tls.accept(stream).await?;
                let (sender, receiver) = tcp::split_secured(stream, pulse)?;
                (sender, receiver, Some(secret))
            }
            (incoming, _) => {
                let (sender, receiver) = incoming.split(pulse)?;
                (sender, receiver, None)
            }
        };
        let demand = self.config.tls.as_ref().and_then(|tls| tls.demand);
        let shared = Mutex::new(None);
        let gate = Gate {
            cluster_id: &self.config.cluster_id,
            key: &self.config.key,
            routing: &self.config.routing,
            came_by: if local { &self.welcome.local_name } else { "" },
            binding,
            must_encrypt: demand.filter(|_| remote && binding.is_none()),
            welcome: &self.welcome,
            rdma: Answering::new(self.config.rdma.as_ref().filter(|_| remote), binding.is_some()),
            grant_slabs: &|peer| if local { self.grant_slabs(peer, &shared) } else { 0 },
        };
        let Admission { peer, lane, limits, slabs } =
            admit(&mut sender, &mut receiver, &gate).await?;
        let ends = gate.rdma.settle((sender, receiver), limits, slabs, pulse).await?;
        let shared = shared.into_inner();
        tracing::debug!(?lane, "admitted a connection");
        Ok(Admitted { peer, ends, shared })
    }

    /// How many slabs a peer of this host may share, which the permit counts.
    fn grant_slabs(&self, peer: &Peer, permit: &Mutex<Option<OwnedSemaphorePermit>>) -> u32 {
        match peer {
            Peer::Daemon => SHARED_SLABS_MAX,
            Peer::User(_) => {
                let wanted = USER_SHARED_SLABS_MAX;
                let granted = self.user_slabs.clone().try_acquire_many_owned(wanted).ok();
                let count = if granted.is_some() { wanted } else { 0 };
                *permit.lock() = granted;
                count
            }
        }
    }

    fn refused(&self, from: &str, why: &str) {
        self.counters.connection_errors.fetch_add(1, Relaxed);
        tracing::warn!(from, why, "refused a connection");
    }

    fn observe(&self, method: Method, elapsed: Duration, failure: Option<&Status>) {
        if let Some(observer) = &self.config.observer {
            (observer.0)(&Observed { method, elapsed, failure });
        }
        if let Some(status) = failure.filter(|status| status.code == Code::Internal) {
            tracing::error!(method = method.name, %status, "a call failed inside this server");
        }
    }
}
