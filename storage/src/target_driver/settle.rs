//! Outcomes to the successor, many in one call: while a call is on its way, the next ones gather.

use std::collections::BTreeMap;

use ff2_proto::pb;
use ff2_storage_core::target::Outcome;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Shared;
use crate::{engine::TargetMeta, limits, neighbour::Neighbour, wire};

/// An outcome and for whom it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) to: pb::ChainMember,
    pub(super) chain_version: u64,
    pub(super) outcome: Outcome,
}

pub(super) fn start(
    meta: TargetMeta,
    shared: Shared,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> mpsc::Sender<Settled> {
    let (sender, mut queue) = mpsc::channel(limits::OUTCOMES);
    tasks.spawn(async move {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = queue.recv_many(&mut batch, limits::OUTCOMES_PER_CALL) => taken,
            };
            if taken == 0 {
                return;
            }
            send(&meta, &shared, &batch).await;
        }
    });
    sender
}

/// Sends each successor its outcomes. A failure is not repeated: the successor asks the head.
async fn send(meta: &TargetMeta, shared: &Shared, batch: &[Settled]) {
    let mut by_successor = BTreeMap::<(u64, u64), (u32, Vec<pb::SettledUpdate>)>::new();
    for settled in batch {
        let key = (settled.to.target, settled.chain_version);
        let entry = by_successor.entry(key).or_insert((settled.to.node, Vec::new()));
        entry.1.push(wire::settled(&settled.outcome));
    }
    for ((to_target, chain_version), (node, updates)) in by_successor {
        let (peers, routing) = (&shared.peers, &shared.routing);
        let neighbour = Neighbour::new(peers, routing, node, meta.chain.0, chain_version);
        if let Err(status) = neighbour.settle(meta.id.0, to_target, updates).await {
            tracing::debug!(target_id = meta.id.0, to_target, %status, "outcomes were not heard");
        }
    }
}
