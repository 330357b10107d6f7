//! What is asked of the leader itself.

use ff2_meta_core::namespace;
use ff2_proto::{Status, pb, pb::ns_request::Op};

use super::{Fake, Metad};

impl Fake {
    pub(crate) fn expire(&self, session: u64) {
        self.state.expire(session);
    }

    /// What the leader does of itself, or for an administrator.
    pub(crate) async fn lead(&self, op: Op) -> Result<pb::NsReply, Status> {
        let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
        Metad(self.state.clone()).change(&request, 0).await
    }

    /// What a quota counts: inodes and bytes.
    pub(crate) fn used(&self, folder: u64) -> (u64, u64) {
        let key = pb::QuotaKey { of: Some(pb::quota_key::Of::Inode(folder)) };
        let op = pb::ListQuotasOp { applying_to: Some(key), ..Default::default() };
        let op = Some(Op::ListQuotas(op));
        let request = pb::NsRequest { volume: 1, op, ..Default::default() };
        let quotas = namespace::query(&self.state.names.lock().kv, &request).quotas;
        (quotas[0].inodes, quotas[0].bytes)
    }
}
