//! The other process: takes bytes, or gives as many as it is asked for.

use std::{io::Read, sync::Arc};

use anyhow::{Context as _, Result};
use ff2_fabric::{
    Answer, Buf, BufPool, Context, Namespace, NamespaceServer, Router, RoutingCache, Server,
    ServerConfig, SharedBuf,
};
use ff2_proto::{Code, Status, pb};
use tokio_util::sync::CancellationToken;

use super::{CLUSTER, Setting, announce};

/// Payloads on their way; those of more calls wait.
const POOL_BYTES: u64 = 256 << 20;

/// `NsRequest::seq` is how many bytes the reply brings.
struct Source(SharedBuf);

impl Namespace for Source {
    async fn execute(
        &self,
        _: Context,
        request: pb::NsRequest,
        taken: Buf,
    ) -> Result<Answer<pb::NsReply>, Status> {
        let bytes = request.seq as usize;
        if bytes > self.0.len() {
            return Err(Status::new(Code::InvalidArgument, "more bytes than the server has"));
        }
        // So that what arrived is seen, and can be checked.
        let reply = pb::NsReply { session: taken.len() as u64, ..Default::default() };
        let bulk = if bytes == 0 { Vec::new() } else { vec![self.0.slice(..bytes)] };
        Ok(Answer::with_bulk(reply, bulk))
    }
}

/// Serves until the input ends.
pub(super) async fn run(setting: Setting, largest: usize) -> Result<()> {
    let pool = BufPool::new(POOL_BYTES);
    let source = Source(pool.get(largest).await.freeze());
    let mut config = ServerConfig::new(CLUSTER, setting.key, pool, RoutingCache::new());
    config.tuning = setting.tuning;
    config.rdma = setting.rdma;
    let server = Server::bind("127.0.0.1:0", config).await.context("listen on loopback")?;
    announce(&server.local_addr().to_string())?;
    let stop = CancellationToken::new();
    let ended = stop.clone();
    // Not a task: reading this input cannot be interrupted.
    std::thread::spawn(move || {
        let _closed = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    server.serve(Router::new().add(NamespaceServer::new(Arc::new(source))), stop).await;
    Ok(())
}
