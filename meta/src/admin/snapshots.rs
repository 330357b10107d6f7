//! Snapshots of a volume: ordered here, made and removed by the leader of its namespace.

use std::time::{Duration, Instant};

use ff2_proto::{Code, Status, pb};
use pb::{SnapshotState, SnapshotStep};

use super::AdminState;
use crate::limits;

/// How long a call waits for one that is being made, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

impl AdminState {
    /// The answer says if it is still being made: whoever asked asks again.
    pub(super) async fn create_snapshot(
        &self,
        request: pb::CreateSnapshotRequest,
    ) -> Result<pb::CreateSnapshotReply, Status> {
        let volume = self.volume(&request.volume)?;
        let mut id = request.id;
        if id == 0 {
            let begun = self.namespace.order_snapshot(volume, SnapshotStep::Begin, request.name);
            id = begun.await?.id;
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let snapshots = self.namespace.snapshots(volume).await?;
            let Some(record) = snapshots.into_iter().find(|record| record.id == id) else {
                let why = format!(
                    "the snapshot is not there any more: it was removed, or given up because writes \
                     that had begun did not end within {:?}; see `ff2ctl status`, then make it again",
                    limits::FREEZE_MAX
                );
                return Err(Status::new(Code::NotFound, why));
            };
            if record.state() != SnapshotState::Making || Instant::now() >= until {
                return Ok(pb::CreateSnapshotReply { snapshot: Some(record) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn remove_snapshot(
        &self,
        request: pb::RemoveSnapshotRequest,
    ) -> Result<pb::RemoveSnapshotReply, Status> {
        let volume = self.volume(&request.volume)?;
        let removed = self.namespace.order_snapshot(volume, SnapshotStep::Remove, request.name);
        Ok(pb::RemoveSnapshotReply { snapshot: Some(removed.await?) })
    }

    pub(super) async fn list_snapshots(
        &self,
        request: &pb::ListSnapshotsRequest,
    ) -> Result<pb::ListSnapshotsReply, Status> {
        let volume = self.volume(&request.volume)?;
        Ok(pb::ListSnapshotsReply { snapshots: self.namespace.snapshots(volume).await? })
    }
}
