//! Finds out which nodes this one does not reach, for the heartbeat to say.

use std::sync::Arc;

use ff2_fabric::{Call, Peers, RoutingCache, StorageClient, pace};
use ff2_proto::{Code, NodeId, Status, TargetId, pb, status::check};
use ff2_storage_core::cuts::{Cuts, is_silence};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{limits, targets::Targets};

/// The ways to other nodes, as far as they are in doubt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    cuts: Arc<Mutex<Cuts>>,
}

impl Ways {
    /// The nodes that do not answer.
    pub(crate) fn unreachable(&self) -> Vec<u32> {
        self.cuts.lock().cut().map(|node| node.0).collect()
    }

    /// Probes the nodes of successors that are silent, and has a heartbeat sent when there is news.
    pub(crate) async fn watch(
        self,
        targets: Arc<Targets>,
        peers: Arc<Peers>,
        routing: Arc<RoutingCache>,
        news: impl Fn(),
        stop: CancellationToken,
    ) {
        let began = Instant::now();
        while stop.run_until_cancelled(pace::pause(limits::SILENCE_LOOK)).await.is_some() {
            let known = routing.get();
            let node_of =
                |target: u64| known.targets.get(&TargetId(target)).map(|t| NodeId(t.node));
            let silent =
                targets.all().into_iter().map(|handle| handle.seen().report.silent_successor);
            let lives = |id: NodeId| known.nodes.get(&id).is_some_and(|node| node.alive);
            let due = {
                let mut cuts = self.cuts.lock();
                cuts.suspect(silent.filter_map(node_of), lives);
                cuts.due(began.elapsed())
            };
            let mut probes = JoinSet::new();
            for node in due {
                let client = known.address(node).map(|at| StorageClient::new(peers.channel(at)));
                probes.spawn(async move { (node, answers(client).await) });
            }
            let outcomes = stop.run_until_cancelled(probes.join_all()).await.unwrap_or_default();
            for (node, outcome) in outcomes {
                if !self.cuts.lock().probed(began.elapsed(), node, outcome.is_ok()) {
                    continue;
                }
                match outcome {
                    Ok(()) => tracing::info!(%node, "the node answers again"),
                    Err(status) => tracing::warn!(
                        %node, %status,
                        "the node lives and does not answer: of each chain of both, one is to leave"
                    ),
                }
                news();
            }
        }
    }
}

/// Asks for something that is nowhere: any answer to it is one.
async fn answers(client: Option<StorageClient>) -> Result<(), Status> {
    let client = client.ok_or_else(|| Status::from(Code::Unreachable))?;
    let request = pb::QueryVersionRequest::default();
    let asked = client.query_version(&request, Call::within(limits::PROBE_TIMEOUT)).await;
    match asked.and_then(|(reply, _)| check(reply.status)) {
        Err(status) if is_silence(&status) => Err(status),
        _ => Ok(()),
    }
}
