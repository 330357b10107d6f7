//! Pages of a backup, from this metad's own replicas: whether it leads does not matter.

use bytes::Bytes;
use ff2_group::{BackupPage, Group};
use ff2_meta_core::StateMachine;
use ff2_proto::{CLUSTER_GROUP, Code, GroupId, Status, pb};

use super::AdminState;
use crate::NAMESPACE_GROUP;

impl AdminState {
    pub(super) async fn backup_page(
        &self,
        request: pb::ReadBackupRequest,
    ) -> Result<pb::ReadBackupReply, Status> {
        let pb::ReadBackupRequest { group, snapshot, after_key } = request;
        let page = match GroupId(group) {
            CLUSTER_GROUP => page(&self.cluster.group, snapshot, after_key).await?,
            NAMESPACE_GROUP => page(&self.namespace.group, snapshot, after_key).await?,
            _ => {
                let detail = format!("there is no group {group}");
                return Err(Status::new(Code::InvalidArgument, detail));
            }
        };
        let BackupPage { snapshot, index, keys, pairs, end, crc32c } = page;
        let cluster_id = self.cluster.routing().cluster_id.clone();
        Ok(pb::ReadBackupReply { snapshot, index, keys, pairs, end, crc32c, cluster_id })
    }
}

async fn page<S: StateMachine>(
    group: &Group<S>,
    snapshot: u64,
    after_key: Bytes,
) -> Result<BackupPage, Status> {
    match snapshot {
        0 => group.begin_backup().await,
        snapshot => group.backup_page(snapshot, after_key).await,
    }
}
