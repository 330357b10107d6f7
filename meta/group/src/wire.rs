//! How a group's raft messages reach its peers over the data plane.
//!
//! One queue and one task for each peer and group, so that a flooded group never delays another.
//! A task posts one batch at a time; what gathers while it is being sent travels together in the next.
//! A full queue drops: raft sends again what matters.

use std::{collections::BTreeMap, sync::Arc};

use ff2_fabric::{Call, Channel, Peers, RaftClient, stubs::method::RAFT_STEP};
use ff2_proto::pb;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    limits,
    link::{PeerLink, Pending},
};

/// The links of this process.
#[derive(Debug)]
pub struct Link {
    peers: Arc<Peers>,
    tokio: tokio::runtime::Handle,
    queues: Mutex<BTreeMap<(String, u32), mpsc::Sender<pb::RaftBatch>>>,
}

impl Link {
    /// Must be made inside the runtime that its tasks shall run in.
    pub fn new(peers: Arc<Peers>) -> Arc<Self> {
        let tokio = tokio::runtime::Handle::current();
        Arc::new(Self { peers, tokio, queues: Mutex::default() })
    }

    fn queue(&self, address: &str, group: u32) -> mpsc::Sender<pb::RaftBatch> {
        let mut queues = self.queues.lock();
        let queue = queues.entry((address.to_owned(), group)).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(limits::LINK_QUEUE);
            self.tokio.spawn(deliver(self.peers.channel(address), receiver));
            sender
        });
        queue.clone()
    }
}

impl PeerLink for Link {
    fn send(&self, address: &str, batch: pb::RaftBatch) {
        if self.queue(address, batch.group).try_send(batch).is_err() {
            tracing::debug!(address, "a raft batch was dropped: its queue is full");
        }
    }

    fn fetch_snapshot(
        &self,
        address: &str,
        request: pb::FetchSnapshotRequest,
    ) -> Pending<pb::FetchSnapshotReply> {
        let client = RaftClient::new(self.peers.channel(address));
        Box::pin(async move {
            let call = Call::within(limits::PAGE_TIMEOUT);
            let (reply, _) = client.fetch_snapshot(&request, call).await?;
            Ok(reply)
        })
    }

    fn join(&self, address: &str, request: pb::JoinGroupRequest) -> Pending<pb::JoinGroupReply> {
        let client = RaftClient::new(self.peers.channel(address));
        Box::pin(async move {
            let (reply, _) = client.join_group(&request, Call::within(limits::JOIN_CALL)).await?;
            Ok(reply)
        })
    }
}

/// Ends when the link is dropped.
async fn deliver(channel: Channel, mut queue: mpsc::Receiver<pb::RaftBatch>) {
    let mut failing = false;
    while let Some(mut batch) = queue.recv().await {
        let mut bytes: usize = batch.messages.iter().map(bytes::Bytes::len).sum();
        while bytes < limits::LINK_BYTES_MAX && batch.messages.len() < limits::LINK_MESSAGES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.messages.iter().map(bytes::Bytes::len).sum::<usize>();
            batch.messages.extend(next.messages);
        }
        match channel.post(RAFT_STEP, &batch, limits::LINK_CALL).await {
            Ok(()) => failing = false,
            Err(status) if !failing => {
                failing = true;
                tracing::info!(address = channel.address(), %status, "a peer cannot be reached");
            }
            Err(_) => {}
        }
    }
}
