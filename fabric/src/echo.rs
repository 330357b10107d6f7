//! A service for tests: it answers with the bulk bytes it got, in the way that the request asks for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ff2_proto::{Code, Status, pb};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    Answer, Buf, BufPool, Call, ClusterKey, Context, Identity, Namespace, NamespaceClient,
    NamespaceServer, Peers, PeersConfig, Rdma, Router, RoutingCache, Server, ServerConfig, Tuning,
    handshake::{self, Approach},
    pulse::Pulse,
    tls::ServerTls,
    transport::{Lane, Receiver, Sender},
};

/// `NsRequest::volume`: what the service does. `seq` comes back as `NsReply::session`.
pub(crate) const ECHO: u32 = 0;
/// Waits `ack_below` milliseconds first.
pub(crate) const SLOW: u32 = 1;
pub(crate) const FAIL: u32 = 2;
/// Waits for a permit of [`Echo::gate`].
pub(crate) const GATED: u32 = 3;
/// Answers `ack_below` bytes of value `seq`.
pub(crate) const FILL: u32 = 4;

#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) gate: Semaphore,
    pub(crate) running: AtomicUsize,
    pub(crate) done: AtomicUsize,
}

impl Namespace for Echo {
    async fn execute(
        &self,
        cx: Context,
        request: pb::NsRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        self.running.fetch_add(1, SeqCst);
        let result = self.act(&cx, &request, bulk).await;
        self.running.fetch_sub(1, SeqCst);
        self.done.fetch_add(1, SeqCst);
        result
    }
}

impl Echo {
    async fn act(
        &self,
        cx: &Context,
        request: &pb::NsRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        let reply = pb::NsReply {
            session: request.seq,
            session_lease_ms: cx.remaining().as_millis() as u32,
            ..Default::default()
        };
        match request.volume {
            SLOW => tokio::time::sleep(Duration::from_millis(request.ack_below)).await,
            FAIL => return Err(Status::stale_routing(Some(pb::Chain::default()), "as asked")),
            GATED => self.gate.acquire().await.expect("never closed").forget(),
            FILL => {
                let bytes = vec![request.seq as u8; request.ack_below as usize];
                return Ok(Answer::with_bulk(reply, vec![bytes.into()]));
            }
            _ => cx.require_daemon().or_else(|status| {
                // Users are told by name that they are users.
                if request.seq == u64::MAX { Err(status) } else { Ok(()) }
            })?,
        }
        let half = bulk.len() / 2;
        let bulk = bulk.freeze();
        Ok(Answer::with_bulk(reply, vec![bulk.slice(..half), bulk.slice(half..)]))
    }
}

/// A running server with everything that a client needs to know of it.
pub(crate) struct Net {
    pub(crate) key: ClusterKey,
    pub(crate) address: String,
    pub(crate) echo: Arc<Echo>,
    pub(crate) routing: Arc<RoutingCache>,
    pub(crate) pool: Arc<BufPool>,
    pub(crate) counters: Arc<crate::counters::Counters>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    tuning: Tuning,
    pub(crate) rdma: Option<Arc<Rdma>>,
}

pub(crate) const CLUSTER: &str = "test-cluster";

impl Net {
    pub(crate) async fn start(address: &str, pool_bytes: u64) -> Self {
        Self::tuned(address, pool_bytes, Tuning::default()).await
    }

    pub(crate) async fn tuned(address: &str, pool_bytes: u64, tuning: Tuning) -> Self {
        Self::with(address, pool_bytes, tuning, None, None).await
    }

    pub(crate) async fn secured(address: &str, pool_bytes: u64, tls: ServerTls) -> Self {
        Self::with(address, pool_bytes, Tuning::default(), Some(tls), None).await
    }

    /// Both sides can, and have the patience that an emulated machine needs.
    pub(crate) async fn by_rdma(address: &str, pool_bytes: u64, rdma: Arc<Rdma>) -> Self {
        let patience = Duration::from_secs(20);
        let tuning = Tuning {
            silence_max: patience,
            connect_timeout: 2 * patience,
            first_frame_max: patience,
            shared_memory: false,
            ..Tuning::default()
        };
        Self::with(address, pool_bytes, tuning, None, Some(rdma)).await
    }

    /// Another server of the same cluster.
    pub(crate) async fn beside(&self, address: &str) -> Self {
        Self::of_cluster(self.key.clone(), address, 8 << 20, self.tuning, None, None).await
    }

    async fn with(
        address: &str,
        pool_bytes: u64,
        tuning: Tuning,
        tls: Option<ServerTls>,
        rdma: Option<Arc<Rdma>>,
    ) -> Self {
        let key = ClusterKey::generate().unwrap();
        Self::of_cluster(key, address, pool_bytes, tuning, tls, rdma).await
    }

    async fn of_cluster(
        key: ClusterKey,
        address: &str,
        pool_bytes: u64,
        tuning: Tuning,
        tls: Option<ServerTls>,
        rdma: Option<Arc<Rdma>>,
    ) -> Self {
        let (pool, routing) = (BufPool::new(pool_bytes), RoutingCache::new());
        let mut config = ServerConfig::new(CLUSTER, key.clone(), pool.clone(), routing.clone());
        config.tuning = tuning;
        config.tls = tls;
        config.rdma = rdma.clone();
        let server = Server::bind(address, config).await.unwrap();
        let address = match address.starts_with("mem:") {
            true => address.to_string(),
            false => server.local_addr().to_string(),
        };
        let echo = Arc::new(Echo {
            gate: Semaphore::new(0),
            running: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        });
        let counters = server.counters().clone();
        let stop = CancellationToken::new();
        let router = Router::new().add(NamespaceServer::new(echo.clone()));
        let serving = tokio::spawn(server.serve(router, stop.clone()));
        Self { key, address, echo, routing, pool, counters, stop, serving, tuning, rdma }
    }

    pub(crate) fn config(&self, identity: Identity) -> PeersConfig {
        PeersConfig {
            cluster_id: CLUSTER.into(),
            identity,
            pool: BufPool::new(64 << 20),
            routing: RoutingCache::new(),
            tls: None,
            rdma: self.rdma.clone(),
            zone: String::new(),
        }
    }

    pub(crate) fn peers(&self) -> Arc<Peers> {
        Peers::with_tuning(self.config(Identity::Daemon(self.key.clone())), self.tuning)
    }

    /// A daemon's connection whose frames the test writes by hand.
    pub(crate) async fn link(&self, lane: Lane) -> (Sender, Receiver) {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let pulse = Pulse::new(Tuning::default(), crate::counters::Counters::new());
        let (mut sender, mut receiver) = crate::tcp::split(stream, &pulse).unwrap();
        let identity = Identity::Daemon(self.key.clone());
        handshake::join(
            &mut sender,
            &mut receiver,
            &identity,
            CLUSTER,
            Approach::by_network(lane),
            None,
        )
        .await
        .unwrap();
        (sender, receiver)
    }

    pub(crate) fn client(&self, peers: &Arc<Peers>) -> NamespaceClient {
        NamespaceClient::new(peers.channel(&self.address))
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

pub(crate) fn ask(what: u32, seq: u64, number: u64) -> pb::NsRequest {
    pb::NsRequest { volume: what, seq, ack_below: number, ..Default::default() }
}

/// Asserts the code of a failure and returns its detail.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> String {
    let status = result.unwrap_err();
    assert_eq!(status.code, code, "{status}");
    status.detail
}

/// Waits until something that happens by itself has happened.
pub(crate) async fn until(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within 10 s");
}

pub(crate) fn within(millis: u64) -> Call {
    Call::within(Duration::from_millis(millis))
}
