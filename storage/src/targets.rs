//! The targets of this node: which stores exist, which must be made, what they report.
//!
//! Follows the routing: a target that it places on one of this node's disks gets a store, with a
//! random generation that tells it from a store that was lost; one that it no longer knows loses
//! its store. Runs one [`TargetHandle`]'s task for each.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ff2_fabric::{membership::Report, pace};
use ff2_proto::{ChainId, ChunkId, Code, NodeId, Routing, Status, TargetId, pb};
use ff2_storage_core::target::{Input, Loaded, LoadedPending, Record, Role, UpdateId};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    disks::OpenDisk,
    engine::{LoadedChunk, PendingKind, TargetMeta},
    limits,
    scrub::Scrubs,
    target_driver::{Shared, TargetHandle},
};

/// All targets of the process.
#[derive(Debug)]
pub struct Targets {
    disks: Vec<OpenDisk>,
    running: RwLock<BTreeMap<ChainId, TargetHandle>>,
    resync_bytes_per_s: u64,
    scrubs: Scrubs,
    /// Stores that are being removed, each by a task: that takes a while for a large one, and what the routing
    /// says of others is not to wait for it.
    removing: Arc<Mutex<BTreeSet<TargetId>>>,
    removals: TaskTracker,
    stop: CancellationToken,
}

impl Targets {
    pub fn new(
        disks: Vec<OpenDisk>,
        resync_bytes_per_s: u64,
        scrubs: Scrubs,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            disks,
            running: RwLock::default(),
            resync_bytes_per_s,
            scrubs,
            removing: Arc::default(),
            removals: TaskTracker::new(),
            stop,
        })
    }

    pub fn of_chain(&self, chain: ChainId) -> Option<TargetHandle> {
        self.running.read().get(&chain).cloned()
    }

    pub(crate) fn scrubs(&self) -> &Scrubs {
        &self.scrubs
    }

    pub fn all(&self) -> Vec<TargetHandle> {
        self.running.read().values().cloned().collect()
    }

    pub(crate) fn disk_uuids(&self) -> Vec<[u8; 16]> {
        self.disks.iter().map(|disk| disk.uuid).collect()
    }

    /// (capacity, used) of all disks, in bytes.
    pub fn space(&self) -> (u64, u64) {
        let spaces = self.disks.iter().map(|disk| disk.engine.space());
        spaces.fold((0, 0), |(capacity, used), space| {
            (capacity + space.capacity_bytes, used + space.used_bytes)
        })
    }

    pub fn disks(&self) -> Vec<pb::Disk> {
        self.disks.iter().map(OpenDisk::describe).collect()
    }

    /// What a heartbeat says of all targets.
    pub fn report(&self) -> Report {
        let used = |handle: &TargetHandle| {
            let disk = self.disks.iter().find(|disk| disk.uuid == handle.disk_uuid);
            let targets = self.all().iter().filter(|h| h.disk_uuid == handle.disk_uuid).count();
            // Blocks are not counted by target: the disk's use is shared out evenly.
            disk.map_or(0, |disk| disk.engine.space().used_bytes / targets.max(1) as u64)
        };
        let report = |handle: &TargetHandle| pb::TargetReport {
            scrub: Some(self.scrubs.report(handle)),
            ..handle.report(used(handle))
        };
        let targets = self.all().iter().map(report).collect();
        Report { targets, disks: self.disks(), ..Default::default() }
    }

    /// Starts the targets whose stores are on the disks. Of two stores of one chain the older was
    /// given up for the newer while its disk was away: it waits to be removed.
    pub async fn start_existing(&self, shared: &Shared) -> Result<(), Status> {
        let stores = || self.disks.iter().flat_map(|disk| disk.engine.targets());
        let mut newest = BTreeMap::new();
        for meta in stores() {
            let known = newest.entry(meta.chain).or_insert(meta.id);
            *known = meta.id.max(*known);
        }
        for disk in &self.disks {
            for meta in disk.engine.targets() {
                if newest.get(&meta.chain) == Some(&meta.id) {
                    self.start(disk, meta, Vec::new(), shared).await?;
                }
            }
        }
        Ok(())
    }

    async fn start(
        &self,
        disk: &OpenDisk,
        meta: TargetMeta,
        suspects: Vec<ChunkId>,
        shared: &Shared,
    ) -> Result<(), Status> {
        let chunks = disk.engine.load(meta.id).await?;
        let (count, pending) =
            (chunks.len(), chunks.iter().filter(|c| c.pending.is_some()).count());
        let loaded: Vec<Loaded> = chunks.into_iter().map(loaded).collect();
        let stop = self.stop.child_token();
        let engine = disk.engine.clone();
        let (found, shared) = ((loaded, suspects), shared.clone());
        let handle = TargetHandle::start(engine, meta.clone(), disk.uuid, found, shared, stop);
        tracing::info!(
            target_id = meta.id.0,
            chain = meta.chain.0,
            chunks = count,
            pending,
            "target started"
        );
        handle.tell(Input::SyncRate { bytes_per_s: self.resync_bytes_per_s })?;
        let before = self.running.write().insert(meta.chain, handle);
        if let Some(before) = before.filter(|before| before.meta.id != meta.id) {
            let detail =
                format!("targets {} and {} share chain {}", before.meta.id, meta.id, meta.chain);
            return Err(Status::new(Code::Internal, detail));
        }
        Ok(())
    }

    /// Follows the routing until the end: makes stores that are missing, drops those that are gone.
    pub async fn follow(&self, node: NodeId, shared: Shared) {
        // Before the first look, or what changes right after it would be seen at the next change only.
        let mut changed = shared.routing.subscribe();
        let mut matched = self.match_routing(node, &shared.routing.get(), &shared).await;
        let mut again_at = Instant::now() + limits::MATCH_AGAIN;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    matched = self.match_routing(node, &shared.routing.get(), &shared).await;
                }
                () = pace::pause(limits::HOUSEKEEPING) => {
                    self.look_after(&shared);
                    self.bring_back(&shared).await;
                    if !matched && again_at <= Instant::now() {
                        again_at = Instant::now() + limits::MATCH_AGAIN;
                        matched = self.match_routing(node, &shared.routing.get(), &shared).await;
                    }
                }
            }
        }
    }

    /// Makes this node's stores what the routing says, and tells whether they are. What cannot be made or
    /// removed now is tried again; the cluster sees that nobody reports it.
    async fn match_routing(&self, node: NodeId, routing: &Routing, shared: &Shared) -> bool {
        let mut all = true;
        for target in routing.targets.values() {
            let id = TargetId(target.id);
            let chain = ChainId(target.chain);
            let is_running = self.running.read().values().any(|handle| handle.meta.id == id);
            let matched =
                if target.node == node.0 && !is_running && routing.chains.contains_key(&chain) {
                    self.create(target, shared).await
                } else if target.node == 0 && target.chain == 0 {
                    self.remove(id).await
                } else {
                    Ok(())
                };
            if let Err(error) = matched {
                tracing::error!(target_id = target.id, %error, "cannot make or remove a store");
                all = false;
            }
        }
        all
    }

    async fn create(&self, target: &pb::Target, shared: &Shared) -> Result<(), Status> {
        if let Some(before) = self.of_chain(ChainId(target.chain)) {
            // One of the chain that was given up, whose end is not over: later.
            let detail = format!("target {} of its chain is still here", before.meta.id);
            return Err(Status::new(Code::Busy, detail));
        }
        let Some(disk) = self.disks.iter().find(|disk| disk.uuid[..] == target.disk_uuid[..])
        else {
            // The disk is away. Its targets are reported by nobody, which says it.
            return Ok(());
        };
        let mut generation = [0; 8];
        getrandom::fill(&mut generation)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        // 0 means that there is none.
        let generation = u64::from_le_bytes(generation).max(1);
        let meta = TargetMeta::new(target.id.into(), target.chain.into(), generation);
        disk.engine.create_target(meta.clone()).await?;
        tracing::info!(target_id = meta.id.0, chain = meta.chain.0, path = %disk.path.display(), "store made");
        self.start(disk, meta, Vec::new(), shared).await?;
        (shared.changed)();
        Ok(())
    }

    /// Removes the store of a target that was given up, if there is one here.
    async fn remove(&self, id: TargetId) -> Result<(), Status> {
        let has_it = |disk: &&OpenDisk| disk.engine.targets().iter().any(|meta| meta.id == id);
        let Some(disk) = self.disks.iter().find(has_it) else { return Ok(()) };
        if let Some(handle) = self.all().into_iter().find(|handle| handle.meta.id == id) {
            end(&handle).await?;
            self.running.write().remove(&handle.meta.chain);
        }
        if !self.removing.lock().insert(id) {
            return Ok(());
        }
        tracing::info!(target_id = id.0, "the cluster gave the target up: its store is removed");
        let (engine, removing) = (disk.engine.clone(), self.removing.clone());
        self.removals.spawn(async move {
            // What a crash leaves of it is removed after the next start: the record of the target goes last.
            match engine.remove_target(id).await {
                Ok(()) => tracing::info!(target_id = id.0, "the store is removed"),
                Err(error) => tracing::error!(target_id = id.0, %error, "cannot remove a store"),
            }
            removing.lock().remove(&id);
        });
        Ok(())
    }

    /// Targets that left their chains for want of room, or to have a chunk repaired, start anew when
    /// they may: the store is loaded again, and the cluster has it synced.
    async fn bring_back(&self, shared: &Shared) {
        for handle in self.all() {
            let Some(why) = handle.seen().may_return else { continue };
            let disk = self.disks.iter().find(|disk| disk.uuid == handle.disk_uuid);
            let is_ready = |disk: &&OpenDisk| why != Code::NoSpace || disk.engine.has_room();
            let Some(disk) = disk.filter(is_ready) else { continue };
            if let Err(error) = self.restart(disk, &handle, shared).await {
                tracing::error!(target_id = handle.meta.id.0, %error, "cannot start a target anew");
            }
        }
    }

    async fn restart(
        &self,
        disk: &OpenDisk,
        handle: &TargetHandle,
        shared: &Shared,
    ) -> Result<(), Status> {
        end(handle).await?;
        // The engine has the newest chain version of it.
        let meta = disk.engine.targets().into_iter().find(|meta| meta.id == handle.meta.id);
        let suspects = handle.seen().suspects;
        self.start(disk, meta.unwrap_or_else(|| handle.meta.clone()), suspects, shared).await?;
        (shared.changed)();
        Ok(())
    }

    /// What is looked at now and then: who resyncs and how fast, and the figures.
    fn look_after(&self, shared: &Shared) {
        let seen: Vec<_> = self.all().into_iter().map(|h| (h.seen(), h)).collect();
        let sources = seen.iter().filter(|(seen, _)| seen.is_source).count();
        let bytes_per_s = self.resync_bytes_per_s / sources.max(1) as u64;
        for (_, handle) in seen.iter().filter(|(seen, _)| seen.is_source) {
            // A full mailbox: it keeps its old share until the next time.
            let _ = handle.tell(Input::SyncRate { bytes_per_s });
        }
        let metrics = &shared.metrics;
        let count = |is: fn(Role) -> bool| seen.iter().filter(|(s, _)| is(s.role)).count() as i64;
        metrics.chunks.set(seen.iter().map(|(seen, _)| seen.chunks as i64).sum());
        metrics.serving_targets.set(count(Role::serves));
        metrics.syncing_targets.set(count(|role| role == Role::Syncing));
        let (capacity, used) = self.space();
        metrics.capacity_bytes.set(capacity as i64);
        metrics.used_bytes.set(used as i64);
        let failed = self.disks.iter().filter(|disk| disk.engine.is_failed()).count();
        metrics.failed_disks.set(failed as i64);
    }

    /// Ends all targets, then the disks. What is durable stays as it is.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        for handle in self.all() {
            handle.end().await;
        }
        for disk in &self.disks {
            disk.engine.shutdown().await;
        }
        // A removal ends with an error then, if not done.
        self.removals.close();
        self.removals.wait().await;
    }
}

/// Ends a target's task and all that it began; what hangs on a broken disk is left alone.
async fn end(handle: &TargetHandle) -> Result<(), Status> {
    let ended = tokio::time::timeout(limits::END_WAIT, handle.end()).await;
    ended.map_err(|_| Status::new(Code::Busy, "something of the target is still in progress"))
}

/// What the engine found, in the words of the machine.
fn loaded(chunk: LoadedChunk) -> Loaded {
    let id = |made_under, version| UpdateId { made_under, version };
    let LoadedChunk { chunk, committed, pending } = chunk;
    Loaded {
        chunk,
        committed: committed.map(|c| Record {
            id: id(c.chain_version, c.version),
            length: c.length,
            chunk_size: c.chunk_size,
            tags: ff2_storage_core::tags::Tags::from_entries(c.tags),
            since: c.since,
            synced_under: 0.into(),
        }),
        pending: pending.map(|p| LoadedPending {
            id: id(p.chain_version, p.version),
            removes: p.kind == PendingKind::Remove,
            length: p.length,
            chunk_size: p.chunk_size,
            tags: ff2_storage_core::tags::Tags::from_entries(p.tags),
            keeping: p.keeping,
        }),
    }
}
