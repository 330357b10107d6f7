//! Opens the targets that the disks hold, creates those that the routing asks for, and tells all of
//! them their chains.

use std::{collections::BTreeMap, sync::Arc};

use ff2_proto::{ChainId, ChainVersion, Code, Status, TargetId, pb};
use tokio_util::sync::CancellationToken;

use super::{Node, NodeDisk};
use crate::{engine::TargetMeta, target::TargetHandle};

impl Node {
    /// Starts the targets found on the disks. They serve only under chain versions made from now on:
    /// the present ones are of before the restart.
    pub(crate) async fn open_targets(
        self: &Arc<Self>,
        stop: &CancellationToken,
    ) -> Result<(), Status> {
        let routing = self.routing.get();
        for disk in &self.disks {
            for meta in disk.engine.targets() {
                let known = routing.chains.get(&meta.chain).map_or(0, |chain| chain.version);
                let serve_after = ChainVersion(known.max(meta.chain_version.0));
                self.start_target(disk, meta, serve_after, stop).await?;
            }
        }
        Ok(())
    }

    /// Follows the routing until `stop`.
    pub(crate) async fn follow_routing(self: Arc<Self>, stop: CancellationToken) {
        let mut versions = self.routing.subscribe();
        let mut told = BTreeMap::new();
        loop {
            versions.borrow_and_update();
            self.obey(&mut told, &stop).await;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = versions.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn obey(self: &Arc<Self>, told: &mut BTreeMap<TargetId, u64>, stop: &CancellationToken) {
        let routing = self.routing.get();
        for target in routing.targets.values().filter(|target| target.node == self.node_id()) {
            let id = TargetId(target.id);
            let Some(chain) = routing.chains.get(&ChainId(target.chain)) else { continue };
            if self.target(id).is_none() && !self.create(target, chain, stop).await {
                continue;
            }
            if told.get(&id).is_none_or(|version| *version < chain.version)
                && let Some(handle) = self.target(id)
                && handle.follow(chain.clone()).await
            {
                told.insert(id, chain.version);
            }
        }
    }

    /// Makes the store of a target that is new here. Returns whether it runs.
    async fn create(
        self: &Arc<Self>,
        target: &pb::Target,
        chain: &pb::Chain,
        stop: &CancellationToken,
    ) -> bool {
        let Some(disk) = self.disks.iter().find(|disk| disk.uuid == target.disk_uuid) else {
            tracing::warn!(target = target.id, "the routing names a disk that is not here");
            return false;
        };
        let mut generation = [0; 8];
        if let Err(error) = getrandom::fill(&mut generation) {
            tracing::error!(%error, "no random numbers: no target can be made");
            return false;
        }
        let meta = TargetMeta {
            id: TargetId(target.id),
            chain: ChainId(target.chain),
            generation: u64::from_le_bytes(generation) | 1,
            chain_version: ChainVersion(0),
        };
        let made = match disk.engine.create_target(meta).await {
            Ok(()) => self.start_target(disk, meta, ChainVersion(0), stop).await,
            Err(status) => Err(status),
        };
        if let Err(status) = &made {
            tracing::error!(target = target.id, %status, "cannot make the target");
        } else {
            tracing::info!(
                target = target.id,
                chain = chain.id,
                disk = disk.index,
                "made the target"
            );
            self.heartbeat_now();
        }
        made.is_ok()
    }

    async fn start_target(
        self: &Arc<Self>,
        disk: &NodeDisk,
        meta: TargetMeta,
        serve_after: ChainVersion,
        stop: &CancellationToken,
    ) -> Result<(), Status> {
        let handle =
            TargetHandle::start(self.clone(), disk.engine.clone(), meta, serve_after, stop);
        let handle = handle.await?;
        let mut targets = self.targets.write();
        if let Some(other) = targets.by_chain.insert(meta.chain, meta.id)
            && other != meta.id
        {
            let detail = format!("targets {other} and {} are of one chain", meta.id);
            return Err(Status::new(Code::Internal, detail));
        }
        targets.by_id.insert(meta.id, handle);
        Ok(())
    }
}
