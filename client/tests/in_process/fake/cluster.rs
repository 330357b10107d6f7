//! The routing, for whoever asks; nobody joins.

use std::time::Duration;

use ff2_fabric::{Answer, Buf, Cluster, Context};
use ff2_proto::{Code, Status, pb};

use super::Metad;

impl Cluster for Metad {
    async fn join(
        &self,
        _cx: Context,
        _request: pb::JoinRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::JoinReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn heartbeat(
        &self,
        _cx: Context,
        _request: pb::HeartbeatRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::HeartbeatReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn watch_routing(
        &self,
        _cx: Context,
        request: pb::WatchRoutingRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::RoutingDelta>, Status> {
        let hold = Duration::from_millis(u64::from(request.wait_ms));
        let changed = self.0.routing_changed.notified();
        if self.0.routing.lock().version <= request.since {
            let _ = tokio::time::timeout(hold, changed).await;
        }
        Ok(self.0.routing.lock().clone().into())
    }

    async fn publish_snapshots(
        &self,
        _cx: Context,
        _request: pb::PublishSnapshotsRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::PublishSnapshotsReply>, Status> {
        Ok(pb::PublishSnapshotsReply { known: true }.into())
    }

    async fn leaders(
        &self,
        _cx: Context,
        _request: pb::LeadersRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::LeadersReply>, Status> {
        Ok(pb::LeadersReply::default().into())
    }
}
