//! The other process: takes bytes, or gives as many as it is asked for.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use ff2_fabric::{
    Answer, Buf, BufPool, Context, Namespace, NamespaceServer, Router, RoutingCache, Server,
    ServerConfig, SharedBuf,
};
use ff2_proto::{Code, Status, pb};
use tokio_util::sync::CancellationToken;

use super::{super::tell, Args, CLUSTER, Setting, Transport};

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

/// Says where it serves, on standard output.
fn announce(address: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

/// As its parent has it. Its input ends with this, and so does it.
pub(super) struct Served {
    child: Child,
    address: String,
}

impl Served {
    pub(super) fn start(transport: Transport, args: &Args, key: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(["bench", "net", "--transport", transport.name()]);
        command.arg("--subnet").arg(args.subnet.to_string()).arg("--serve").arg(key);
        for size in &args.size {
            command.arg("--size").arg(size.0.to_string());
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut served = Self { child: child.context("start the server")?, address: String::new() };
        let said = served.child.stdout.take().context("the server has an output")?;
        BufReader::new(said).read_line(&mut served.address).context("hear from the server")?;
        served.address.truncate(served.address.trim_end().len());
        ensure!(!served.address.is_empty(), "the server ended without a word");
        Ok(served)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(problem) = self.child.wait() {
            tell(&format!("the server does not end: {problem}"));
        }
    }
}
