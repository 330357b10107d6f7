//! A rank's place among the others under one key: the server that they reach, the connections to them.

use std::{io, sync::Arc};

use ff2_fabric::{
    BufPool, ClusterKey, Identity, Peers, PeersConfig, RanksClient, RanksServer, Router,
    RoutingCache, Server, ServerConfig,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    CollectiveError, Rendezvous,
    limits::{PIECE_BYTES, RECEIVE_BYTES, SEND_BYTES, STREAMS_FORESEEN, TAGS, WINDOW},
    service::RankService,
};

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) pool: Arc<BufPool>,
    /// Where others reach this rank.
    pub(crate) address: String,
    peers: Arc<Peers>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Seat {
    /// Serves at `address`; port 0: any.
    pub(crate) async fn take(
        rendezvous: &Rendezvous,
        key: ClusterKey,
        address: &str,
        service: Arc<RankService>,
    ) -> Result<Self, CollectiveError> {
        // What all others may have sent ahead must fit, or the piece that is waited for might not.
        let windows = (rendezvous.world * STREAMS_FORESEEN * TAGS * WINDOW * PIECE_BYTES) as u64;
        let received = BufPool::new(windows.max(RECEIVE_BYTES));
        let routing = RoutingCache::new();
        let mut config = ServerConfig::new(&rendezvous.job, key.clone(), received, routing.clone());
        let failed = |source: io::Error| CollectiveError::Serve { address: address.into(), source };
        let rdma = rendezvous.network.open()?;
        config.rdma = rdma.clone();
        let (server_tls, tls) = rendezvous.network.tls()?;
        config.tls = server_tls;
        let server = Server::bind(address, config).await.map_err(failed)?;
        let address = server.local_addr().to_string();
        let stop = CancellationToken::new();
        let router = Router::new().add(RanksServer::new(service));
        let serving = tokio::spawn(server.serve(router, stop.clone()));
        let pool = BufPool::new(SEND_BYTES);
        let peers = Peers::new(PeersConfig {
            cluster_id: rendezvous.job.clone(),
            identity: Identity::Daemon(key),
            pool: pool.clone(),
            routing,
            tls,
            rdma,
            zone: String::new(),
        });
        Ok(Self { pool, address, peers, stop, serving })
    }

    pub(crate) fn client(&self, address: &str) -> RanksClient {
        RanksClient::new(self.peers.channel(address))
    }

    /// Answers what is in progress, then closes all connections.
    pub(crate) async fn leave(self) {
        self.stop.cancel();
        // It answers the others first: they may be waiting for that.
        let _panicked = self.serving.await;
        self.peers.stop();
    }
}
