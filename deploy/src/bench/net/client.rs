//! The calls: many at a time for bandwidth, one after the other for latency.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ff2_fabric::{
    Buf, BufPool, Call, Identity, NamespaceClient, Peers, PeersConfig, RoutingCache, SharedBuf,
    counters::Transport as Carrier,
};
use ff2_proto::pb;

use super::{CLUSTER, Setting};

const POOL_BYTES: u64 = 256 << 20;
/// Far above any call's time, also on an emulated processor.
const CALL_MAX: Duration = Duration::from_secs(60);

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Side {
    Read,
    Write,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

pub(super) struct Client {
    peers: Arc<Peers>,
    address: String,
}

/// One of the calls that follow each other.
struct Caller {
    client: NamespaceClient,
    side: Side,
    bytes: usize,
    payload: SharedBuf,
    place: Option<Buf>,
}

impl Client {
    pub(super) fn new(setting: Setting, address: &str) -> Self {
        let config = PeersConfig {
            cluster_id: CLUSTER.into(),
            identity: Identity::Daemon(setting.key),
            pool: BufPool::new(POOL_BYTES),
            routing: RoutingCache::new(),
            tls: None,
            rdma: setting.rdma,
            zone: String::new(),
        };
        Self { peers: Peers::with_tuning(config, setting.tuning), address: address.to_owned() }
    }

    async fn caller(&self, side: Side, bytes: usize) -> Caller {
        Caller {
            client: NamespaceClient::new(self.peers.channel(&self.address)),
            side,
            bytes,
            payload: self.peers.pool().get(bytes).await.freeze(),
            place: Some(self.peers.pool().get(bytes).await),
        }
    }

    /// How many calls were answered within about that time, `depth` at a time.
    pub(super) async fn stream(
        &self,
        side: Side,
        bytes: usize,
        depth: usize,
        time: Duration,
    ) -> Result<u64> {
        let end = Instant::now() + time;
        let mut callers = Vec::with_capacity(depth);
        for _ in 0..depth {
            let mut caller = self.caller(side, bytes).await;
            callers.push(tokio::spawn(async move {
                let mut calls = 0;
                while Instant::now() < end {
                    caller.call().await?;
                    calls += 1;
                }
                anyhow::Ok(calls)
            }));
        }
        let mut calls: u64 = 0;
        for caller in callers {
            calls += caller.await??;
        }
        Ok(calls)
    }

    /// The time of each call.
    pub(super) async fn one_by_one(
        &self,
        side: Side,
        bytes: usize,
        time: Duration,
    ) -> Result<Vec<Duration>> {
        let end = Instant::now() + time;
        let (mut caller, mut times) = (self.caller(side, bytes).await, Vec::new());
        while times.is_empty() || Instant::now() < end {
            let begun = Instant::now();
            caller.call().await?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }

    /// Fails if the calls did not go by it: figures of something else would be worse than none.
    pub(super) fn ensure_carried(&self, carrier: Carrier) -> Result<()> {
        let calls = |carrier| {
            let counters = self.peers.counters().transport(carrier);
            counters.calls.load(std::sync::atomic::Ordering::Relaxed)
        };
        let others = Carrier::ALL.into_iter().filter(|other| *other != carrier);
        for other in others {
            ensure!(calls(other) == 0, "{} calls went by {}", calls(other), other.name());
        }
        Ok(())
    }
}

impl Caller {
    async fn call(&mut self) -> Result<()> {
        let (bulk, into, wanted) = match self.side {
            Side::Read => (Vec::new(), self.place.take(), self.bytes),
            Side::Write => (vec![self.payload.clone()], None, 0),
        };
        let request = pb::NsRequest { seq: wanted as u64, ..Default::default() };
        let call = Call { timeout: CALL_MAX, bulk, into };
        let (reply, back) = self.client.execute(&request, call).await?;
        let moved = match self.side {
            Side::Read => back.len(),
            Side::Write => reply.session as usize,
        };
        ensure!(moved == self.bytes, "{moved} bytes came of {}", self.bytes);
        self.place = Some(back);
        Ok(())
    }
}
