//! Truncations in progress: the machine has set the size and waits; the chunks above it are cut here,
//! once for each truncation whoever waits for it, and then the machine is told. The move of an inline
//! file's bytes to its first chunk is done in the same way.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_proto::{Code, Status, VolumeId, pb};
use futures::{FutureExt, future::BoxFuture, future::Shared};
use parking_lot::Mutex;
use pb::ns_request::Op;

use super::{NamespaceGroup, leader::NamespaceLead};
use crate::limits;

/// Between two tries of a cut whose chain is down.
const PAUSE: Duration = Duration::from_millis(200);

type Settled = Shared<BoxFuture<'static, Result<(), Status>>>;
/// Volume, inode, truncate version.
type Key = (VolumeId, u64, u64);

/// Bounded by the machine: an inode has one truncation at a time, and its callers wait for it.
#[derive(Debug, Default)]
pub(super) struct Truncations {
    running: Mutex<BTreeMap<Key, Settled>>,
}

impl NamespaceGroup {
    /// Returns when the chunks are cut and the machine knows, or when this leader's term is over.
    pub(super) async fn settle_truncation(
        self: &Arc<Self>,
        volume: VolumeId,
        truncation: pb::Truncation,
    ) -> Result<(), Status> {
        let lead = self.lead.get().ok_or_else(|| self.not_leader())?;
        self.begin_truncation(&lead, volume, truncation).await
    }

    /// Starts the work if it is not in progress; it goes on without its callers.
    pub(super) fn begin_truncation(
        self: &Arc<Self>,
        lead: &Arc<NamespaceLead>,
        volume: VolumeId,
        truncation: pb::Truncation,
    ) -> Settled {
        let key = (volume, truncation.inode, truncation.truncate_version);
        let mut running = lead.truncations.running.lock();
        if let Some(settled) = running.get(&key) {
            return settled.clone();
        }
        let (group, lead) = (self.clone(), lead.clone());
        let task = tokio::spawn(async move {
            let outcome = group.cut_and_finish(&lead, volume, truncation).await;
            lead.truncations.running.lock().remove(&key);
            outcome
        });
        let ended = |_| Err(Status::new(Code::UnknownOutcome, "the process is stopping"));
        let settled: Settled =
            task.map(move |outcome| outcome.unwrap_or_else(ended)).boxed().shared();
        running.insert(key, settled.clone());
        settled
    }

    async fn cut_and_finish(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
        truncation: pb::Truncation,
    ) -> Result<(), Status> {
        let mut told = false;
        // Until then steps of a batch that failed may take effect.
        let mut quiet_at = Instant::now();
        loop {
            lead.term.check()?;
            // A remembered answer names a truncation that may be long over: cutting then would cut
            // what was written since.
            let Some(pending) = self.pending(volume, &truncation).await? else { return Ok(()) };
            match self.cut(lead, volume, &pending, &mut quiet_at).await {
                Ok(true) => break,
                Ok(false) => return Ok(()),
                Err(status) => {
                    if !std::mem::replace(&mut told, true) {
                        let inode = truncation.inode;
                        tracing::info!(%volume, inode, %status, "a truncation waits for its chunks");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // An earlier leader may have found it pending just before this term, and its steps may take
        // effect for a call's time after that; so may those that this one gave up. Whoever sees the
        // truncation finished may write again what such a step would cut. One that was logged in this
        // term an earlier leader learns of when its own term is over, and then it makes no step.
        let (inode, truncate_version) = (truncation.inode, truncation.truncate_version);
        if lead.inherited.contains(&(inode, truncate_version)) {
            tokio::time::sleep(self.inherited_steps.saturating_sub(lead.term.age())).await;
        }
        tokio::time::sleep_until(quiet_at.into()).await;
        lead.term.check()?;
        let op = Op::FinishTruncate(pb::FinishTruncateOp { inode, truncate_version });
        self.command(volume, op).await?;
        Ok(())
    }

    /// Whether all chunks were cut; otherwise it is no longer to be cut. Each batch of steps is made
    /// under a deadline that was set before the truncation was found pending. So however long this
    /// process is paused in between, no step takes effect after a later leader has finished it.
    /// `quiet_at` is raised to the deadline of a batch that fails: some of its steps are then not
    /// waited for.
    async fn cut(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
        truncation: &pb::Truncation,
        quiet_at: &mut Instant,
    ) -> Result<bool, Status> {
        if !truncation.spill.is_empty() {
            let deadline = Instant::now() + limits::CHUNK_CALL;
            if self.pending(volume, truncation).await?.is_none() {
                return Ok(false);
            }
            let spilled = self.chunks.spill(&lead.term, truncation, deadline).await;
            spilled.inspect_err(|_| *quiet_at = deadline)?;
            return Ok(true);
        }
        let cut = self.chunks.plan(&lead.term, truncation).await?;
        for steps in cut.batches() {
            let deadline = Instant::now() + limits::CHUNK_CALL;
            if self.pending(volume, truncation).await?.is_none() {
                return Ok(false);
            }
            let performed = self.chunks.perform(&lead.term, &cut, steps, deadline).await;
            performed.inspect_err(|_| *quiet_at = deadline)?;
        }
        Ok(true)
    }

    async fn pending(
        &self,
        volume: VolumeId,
        truncation: &pb::Truncation,
    ) -> Result<Option<pb::Truncation>, Status> {
        let op = pb::ListTruncatingOp { after_inode: truncation.inode - 1, limit: 1 };
        let listed = self.ask(volume, Op::ListTruncating(op)).await?.truncations;
        let same = |found: &pb::Truncation| {
            found.inode == truncation.inode && found.truncate_version == truncation.truncate_version
        };
        Ok(listed.into_iter().find(same))
    }
}
