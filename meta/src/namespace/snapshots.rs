//! Making snapshots and removing them: the leader's steps between the namespace, the routing and the chains
//! (docs/design/0011).
//!
//! A snapshot is one moment of names and of chunks because no update of a chunk begins around it: storage nodes
//! are told of the new snapshot and to hold updates, and once each that may serve knows, the namespace is cut.
//! Each step is repeated until it is done, by the next leader too.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use ff2_fabric::{Call, ClusterClient, SharedBuf, chain::ChunkUpdate, pace};
use ff2_meta_core::namespace;
use ff2_proto::{ChainId, ChunkId, Code, Status, VolumeId, limits as wire, pb};
use futures::{StreamExt, TryStreamExt, stream};
use pb::{SnapshotState as State, SnapshotStep, UpdateKind, ns_request::Op};

use super::{NamespaceGroup, check::behind, leader::NamespaceLead};
use crate::limits;

impl NamespaceGroup {
    /// The snapshots of a volume, with those that are being made or removed.
    pub(crate) async fn snapshots(
        &self,
        volume: VolumeId,
    ) -> Result<Vec<pb::SnapshotRecord>, Status> {
        Ok(self.ask(volume, Op::ListSnapshots(pb::ListSnapshotsOp {})).await?.snapshots)
    }

    /// One step of the life of a snapshot: it is begun, or its removal is.
    pub(crate) async fn order_snapshot(
        &self,
        volume: VolumeId,
        step: SnapshotStep,
        name: Bytes,
    ) -> Result<pb::SnapshotRecord, Status> {
        let op = pb::StepSnapshotOp { step: step.into(), name, id: 0 };
        let reply = self.command(volume, Op::StepSnapshot(op)).await?;
        self.snapshot_ordered.notify_one();
        let none = || Status::new(Code::Internal, "a step without its snapshot");
        reply.snapshots.into_iter().next().ok_or_else(none)
    }

    /// Steps when one is ordered, and now and then.
    pub(super) async fn await_snapshot(&self) {
        let next = pace::next(limits::SNAPSHOTS_ROUND);
        let _ = tokio::time::timeout_at(next, self.snapshot_ordered.notified()).await;
    }

    pub(super) async fn step_snapshots(&self, lead: &Arc<NamespaceLead>) -> Result<(), Status> {
        for volume in self.volumes() {
            let routing = self.cluster.routing();
            let published = routing.volumes.get(&volume).cloned().unwrap_or_default();
            // Without a question to the others: what is old here is looked at again in a moment.
            let listed = |kv: &dyn ff2_meta_core::KvRead| {
                let op = Some(Op::ListSnapshots(pb::ListSnapshotsOp {}));
                namespace::query(kv, &pb::NsRequest { op, ..Default::default() }).snapshots
            };
            let snapshots = self.group.read_stale(listed).unwrap_or_default();
            let is_calm = snapshots.iter().all(|record| record.state() == State::Ready);
            if is_calm && published.snapshots == ids(&snapshots) && !published.frozen {
                continue;
            }
            lead.check()?;
            let snapshots = match self.snapshots(volume).await {
                // A volume that was never used.
                Err(status) if status.code == Code::NotServing => continue,
                snapshots => snapshots?,
            };
            let making = snapshots.iter().find(|record| record.state() == State::Making);
            match making {
                Some(record) => self.make(lead, volume, &snapshots, record).await?,
                None => self.remove(lead, volume, &snapshots).await?,
            }
        }
        Ok(())
    }

    async fn make(
        &self,
        lead: &Arc<NamespaceLead>,
        volume: VolumeId,
        snapshots: &[pb::SnapshotRecord],
        record: &pb::SnapshotRecord,
    ) -> Result<(), Status> {
        let routing = self.cluster.routing();
        let is_frozen = routing.volumes.get(&volume).is_some_and(|volume| volume.frozen);
        if !is_frozen {
            // What mounts have told their programs of, and nobody else: who does not answer is waited for until
            // its cache lease is over. Before the freeze, as some of it needs the chains.
            let soles = lead.callbacks.soles(volume);
            self.look(lead, volume, 0, &soles).await?;
        }
        let name = String::from_utf8_lossy(&record.name);
        let until = Instant::now() + limits::FREEZE_MAX;
        if !self.publish(lead, volume, snapshots, true, until).await? {
            // All writes wait. Rather this one snapshot is not made.
            self.step(volume, SnapshotStep::GiveUp, record.id).await?;
            tracing::warn!(
                %volume, snapshot = record.id, %name,
                "a snapshot is given up: writes that had begun did not end within {:?}; \
                 the cluster's status names the chains that wait",
                limits::FREEZE_MAX
            );
            let others: Vec<_> = snapshots.iter().filter(|o| o.id != record.id).cloned().collect();
            return self.publish_all(lead, volume, &others).await;
        }
        lead.check()?;
        self.step(volume, SnapshotStep::Cut, record.id).await?;
        self.publish_all(lead, volume, snapshots).await?;
        tracing::info!(%volume, snapshot = record.id, %name, "a snapshot was made");
        Ok(())
    }

    /// Those whose removal was asked for, one after the other.
    async fn remove(
        &self,
        lead: &Arc<NamespaceLead>,
        volume: VolumeId,
        snapshots: &[pb::SnapshotRecord],
    ) -> Result<(), Status> {
        // From now on nothing more is kept for them, and nobody reads them.
        self.publish_all(lead, volume, snapshots).await?;
        let going = snapshots.iter().filter(|record| record.state() == State::Removing);
        for record in going {
            let mut state = record.state();
            while state == State::Removing {
                lead.check()?;
                state = match self.step(volume, SnapshotStep::PassOn, record.id).await? {
                    Some(record) => record.state(),
                    None => return Ok(()),
                };
                tokio::time::sleep(limits::REMOVAL_PAUSE).await;
            }
        }
        let snapshots = self.snapshots(volume).await?;
        let gone = snapshots.iter().filter(|record| record.state() == State::Trimming);
        let gone: Vec<u32> = gone.map(|record| record.id).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.trim(lead, &snapshots).await?;
        for id in gone {
            lead.check()?;
            self.step(volume, SnapshotStep::Forget, id).await?;
            tracing::info!(%volume, snapshot = id, "a snapshot is removed");
        }
        Ok(())
    }

    async fn step(
        &self,
        volume: VolumeId,
        step: SnapshotStep,
        id: u32,
    ) -> Result<Option<pb::SnapshotRecord>, Status> {
        let op = pb::StepSnapshotOp { step: step.into(), name: Bytes::new(), id };
        Ok(self.command(volume, Op::StepSnapshot(op)).await?.snapshots.pop())
    }

    /// Has updates go on. Returns when each storage node that may serve knows of the snapshots.
    async fn publish_all(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
        snapshots: &[pb::SnapshotRecord],
    ) -> Result<(), Status> {
        let patience = Instant::now() + limits::SNAPSHOTS_ROUND;
        while !self.publish(lead, volume, snapshots, false, patience).await? {}
        Ok(())
    }

    /// Whether each storage node that may serve knows, and does so, at the latest at `until`.
    async fn publish(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
        snapshots: &[pb::SnapshotRecord],
        frozen: bool,
        until: Instant,
    ) -> Result<bool, Status> {
        let wanted =
            pb::PublishSnapshotsRequest { volume: volume.0, snapshots: ids(snapshots), frozen };
        loop {
            lead.check()?;
            if self.publish_once(&wanted).await? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(limits::PUBLISH_PAUSE).await;
        }
    }

    /// By the leader of the cluster group, wherever it is.
    async fn publish_once(&self, wanted: &pb::PublishSnapshotsRequest) -> Result<bool, Status> {
        match self.cluster.publish_snapshots(wanted).await {
            Err(Status { code: Code::NotLeader, leader_address: Some(leader), .. }) => {
                let client = ClusterClient::new(self.chunks.peers.channel(&leader));
                let call = Call::within(limits::OWN_COMMAND);
                Ok(client.publish_snapshots(wanted, call).await?.0.known)
            }
            outcome => outcome,
        }
    }

    /// Removes the clones that no snapshot shows.
    async fn trim(
        &self,
        lead: &NamespaceLead,
        snapshots: &[pb::SnapshotRecord],
    ) -> Result<(), Status> {
        let chains: Vec<ChainId> = self.chunks.routing.get().chains.keys().copied().collect();
        for chain in chains {
            let mut from = Some(ChunkId::default());
            while let Some(first) = from {
                lead.check()?;
                let deadline = Instant::now() + limits::CHUNK_CALL;
                let client = &self.chunks.client;
                let page = client.list_chain(chain, first, limits::CHUNK_PAGE, deadline).await?;
                let last = page.chunks.last().and_then(|info| info.chunk).map(ChunkId::from);
                from = last.filter(|_| !page.end).and_then(behind);
                let named = page.chunks.iter().filter_map(|info| Some((info.chunk?, info.since)));
                let clones = named.map(|(chunk, since)| (ChunkId::from(chunk), since));
                let is_over = |(chunk, since): &(ChunkId, u32)| {
                    let clone = chunk.snapshot;
                    clone != 0 && !namespace::is_kept(snapshots, *since, clone)
                };
                let over: Vec<ChunkId> = clones.filter(is_over).map(|(chunk, _)| chunk).collect();
                let removals: Vec<_> =
                    over.into_iter().map(|clone| self.remove_clone(chain, clone)).collect();
                stream::iter(removals)
                    .buffer_unordered(limits::CHUNK_CALLS)
                    .try_collect::<()>()
                    .await?;
                tokio::time::sleep(limits::REMOVAL_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Nobody makes it again, however late this comes.
    async fn remove_clone(&self, chain: ChainId, clone: ChunkId) -> Result<(), Status> {
        let update = ChunkUpdate {
            chain,
            chunk: clone,
            kind: UpdateKind::Remove,
            offset: 0,
            payload: SharedBuf::from(Bytes::new()),
            chunk_size: wire::CHUNK_SIZE_MIN,
            grant: Bytes::new(),
        };
        self.chunks.client.update(&update, Instant::now() + limits::CHUNK_CALL).await?;
        Ok(())
    }
}

/// Those that storage nodes must know of.
fn ids(snapshots: &[pb::SnapshotRecord]) -> Vec<u32> {
    let is_there =
        |record: &&pb::SnapshotRecord| matches!(record.state(), State::Making | State::Ready);
    snapshots.iter().filter(is_there).map(|record| record.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_nodes_know_of_what_is_made_and_what_is_there() {
        let states = [State::Ready, State::Removing, State::Trimming, State::Making];
        let record = |(id, state): (u32, State)| pb::SnapshotRecord {
            id,
            state: state.into(),
            ..Default::default()
        };
        let snapshots: Vec<_> = (1..).zip(states).map(record).collect();
        assert_eq!(ids(&snapshots), [1, 4]);
    }
}
