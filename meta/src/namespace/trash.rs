//! What the leader does to the trash: entries whose time is over go for good, and the oldest before their time when
//! the disks are nearly full, so that nobody is refused space for what was removed.

use std::time::{SystemTime, UNIX_EPOCH};

use ff2_meta_core::namespace;
use ff2_proto::{Status, VolumeId, pb};
use pb::ns_request::Op;

use super::{NamespaceGroup, leader::NamespaceLead};
use crate::limits;

impl NamespaceGroup {
    /// Each step is a command of its own, so that others come between, and a new leader goes on where its
    /// predecessor was.
    pub(super) async fn expire_trash(&self, lead: &NamespaceLead) -> Result<(), Status> {
        for volume in self.volumes() {
            let list = Op::ListTrash(pb::ListTrashOp::default());
            let sums = self.ask(volume, list).await?.trash_sums.unwrap_or_default();
            if sums.kept_s == 0 {
                // There never was a trash.
                continue;
            }
            lead.check()?;
            self.empty_trash(volume, now_ns(), sums.kept_s, usize::MAX).await?;
            if sums.entries > 0 && self.is_nearly_full().await {
                let (emptied, _) =
                    self.empty_trash(volume, now_ns(), 0, limits::TRASH_FREE_STEPS).await?;
                tracing::warn!(
                    %volume,
                    emptied,
                    "the disks are nearly full: the oldest in the trash go before their time"
                );
                tokio::time::sleep(limits::TRASH_FREE_PAUSE).await;
            }
        }
        Ok(())
    }

    /// What was removed so long before `now_ns` goes for good, as far as that many steps bring it. Returns how many
    /// went, and whether those were all.
    pub(crate) async fn empty_trash(
        &self,
        volume: VolumeId,
        now_ns: i64,
        older_than_s: u64,
        steps: usize,
    ) -> Result<(u64, bool), Status> {
        let age = i64::try_from(older_than_s.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX);
        let removed_by = now_ns.saturating_sub(age);
        let mut emptied = 0;
        for _ in 0..steps {
            // By the time of the last one: the same command once more finds nothing to do.
            let next = self
                .group
                .query(move |kv| {
                    namespace::next_to_go_from_trash(kv, removed_by, limits::TRASH_STEP)
                })
                .await??;
            let Some(removed_by_ns) = next else { return Ok((emptied, true)) };
            let op = pb::EmptyTrashOp { removed_by_ns, limit: u32::MAX };
            emptied += self.command(volume, Op::EmptyTrash(op)).await?.trash_emptied;
        }
        Ok((emptied, false))
    }

    /// What cannot be asked now is not said to be full.
    async fn is_nearly_full(&self) -> bool {
        let mut statfs = pb::StatFs::default();
        self.fill_space(&mut statfs).await;
        let capacity = statfs.capacity_bytes;
        capacity > 0 && statfs.available_bytes < capacity / limits::TRASH_FREE_PART
    }
}

pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
