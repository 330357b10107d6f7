//! What calls cost on this machine: both ends in one process over loopback, CPU seconds counted.
//!
//! `cargo run -p ff2-fabric --example load -- [read|write] BYTES CALLERS SECONDS`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ff2_fabric::{
    Answer, Buf, BufPool, Call, ClusterKey, Context, Identity, Namespace, NamespaceClient,
    NamespaceServer, Peers, PeersConfig, Router, RoutingCache, Server, ServerConfig, SharedBuf,
};
use ff2_proto::{Status, pb};
use tokio_util::sync::CancellationToken;

struct Source(SharedBuf);

impl Namespace for Source {
    async fn execute(
        &self,
        _: Context,
        request: pb::NsRequest,
        _: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        let bulk = vec![self.0.slice(..request.seq as usize)];
        Ok(Answer::with_bulk(pb::NsReply::default(), bulk))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let write = words.next().as_deref() == Some("write");
    let bytes: usize = words.next().map_or(Ok(1 << 20), |word| word.parse())?;
    let callers: usize = words.next().map_or(Ok(8), |word| word.parse())?;
    let seconds: u64 = words.next().map_or(Ok(3), |word| word.parse())?;

    let key = ClusterKey::generate()?;
    let pool = BufPool::new(1 << 30);
    let config = ServerConfig::new("load", key.clone(), pool.clone(), RoutingCache::new());
    let server = Server::bind("127.0.0.1:0", config).await?;
    let address = server.local_addr().to_string();
    let stop = CancellationToken::new();
    let source = Source(pool.get(bytes).await.freeze());
    let router = Router::new().add(NamespaceServer::new(Arc::new(source)));
    let serving = tokio::spawn(server.serve(router, stop.clone()));
    let peers = Peers::new(PeersConfig {
        cluster_id: "load".into(),
        identity: Identity::Daemon(key),
        pool: pool.clone(),
        routing: RoutingCache::new(),
        tls: None,
        rdma: None,
    });

    let (calls, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let payload = pool.get(bytes).await.freeze();
    let (before, started) = (cpu_seconds(), Instant::now());
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let client = NamespaceClient::new(peers.channel(&address));
            let (calls, end, payload) = (calls.clone(), end.clone(), payload.clone());
            let pool = pool.clone();
            tokio::spawn(async move {
                let seq = if write { 0 } else { bytes as u64 };
                let request = pb::NsRequest { seq, ..Default::default() };
                let mut place = if write { None } else { Some(pool.get(bytes).await) };
                while !end.load(Relaxed) {
                    let bulk = if write { vec![payload.clone()] } else { Vec::new() };
                    let call = Call { bulk, into: place.take(), ..Call::default() };
                    let (_, back) = client.execute(&request, call).await?;
                    place = if write { None } else { Some(back) };
                    calls.fetch_add(1, Relaxed);
                }
                Ok::<_, Status>(())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    end.store(true, Relaxed);
    for task in tasks {
        task.await??;
    }
    let (cpu, wall) = (cpu_seconds() - before, started.elapsed().as_secs_f64());
    let calls = calls.load(Relaxed) as f64;
    let gib = calls * bytes as f64 / f64::from(1 << 30);
    eprintln!(
        "{calls} calls of {bytes} bytes: {:.0} a second, {:.2} GiB/s, {:.1} us CPU a call, \
         {:.2} CPU s/GiB, {:.2} cores",
        calls / wall,
        gib / wall,
        cpu / calls * 1e6,
        cpu / gib,
        cpu / wall
    );
    stop.cancel();
    serving.await?;
    Ok(())
}

/// Of this process so far, user and system, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |place| fields.split_whitespace().nth(place).and_then(|f| f.parse::<f64>().ok());
    // utime and stime are the fields 14 and 15 of proc(5), in ticks of 10 ms.
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
