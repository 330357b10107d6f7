//! Counts what was there before a quota, step by step; and what statfs shows under one.

use ff2_proto::{Status, pb};
use pb::ns_request::Op;

use super::{NamespaceGroup, leader::NamespaceLead};

impl NamespaceGroup {
    /// Each step is a command of its own, so that others come between, and a new leader goes on where its
    /// predecessor was.
    pub(super) async fn count_quotas(&self, lead: &NamespaceLead) -> Result<(), Status> {
        for volume in self.volumes() {
            let list = pb::ListQuotasOp { counting: true, ..Default::default() };
            let counting = self.ask(volume, Op::ListQuotas(list)).await?.quotas;
            for mut quota in counting {
                while quota.counting {
                    lead.check()?;
                    let pb::Quota { key, counted, .. } = quota;
                    let op = Op::CountQuota(pb::CountQuotaOp { key, counted });
                    quota = self.command(volume, op).await?.quotas.pop().unwrap_or_default();
                }
                tracing::info!(%volume, inodes = quota.counted, "a quota is counted");
            }
        }
        Ok(())
    }
}

/// Under a quota there is no more space than that leaves.
pub(super) fn narrow(statfs: &mut pb::StatFs) {
    if let Some(max) = statfs.bytes_max {
        let left = max.saturating_sub(statfs.bytes_used);
        // Space on the disks that cannot be asked now is not said to be none.
        let is_known = statfs.capacity_bytes > 0;
        statfs.capacity_bytes = if is_known { max.min(statfs.capacity_bytes) } else { max };
        statfs.available_bytes = if is_known { left.min(statfs.available_bytes) } else { left };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_narrows_what_the_disks_have() {
        let narrowed = |capacity_bytes, available_bytes, bytes_used, bytes_max| {
            let statfs = pb::StatFs {
                capacity_bytes,
                available_bytes,
                bytes_used,
                bytes_max,
                ..Default::default()
            };
            let mut narrowed = statfs;
            narrow(&mut narrowed);
            (narrowed.capacity_bytes, narrowed.available_bytes)
        };
        assert_eq!(narrowed(100, 60, 5, None), (100, 60));
        assert_eq!(narrowed(100, 60, 5, Some(20)), (20, 15));
        assert_eq!(narrowed(100, 10, 5, Some(20)), (20, 10), "the disks have less");
        assert_eq!(narrowed(100, 60, 25, Some(20)), (20, 0), "there is more than allowed");
        assert_eq!(narrowed(100, 60, 5, Some(500)), (100, 60));
        assert_eq!(narrowed(0, 0, 5, Some(20)), (20, 15), "nobody says what the disks have");
    }
}
