//! Quotas and the trash, in some seeds: what each client says of them, and what the leader does.

use std::time::Duration;

use bytes::Bytes;
use ff2_meta_core::{KvRead, namespace};
use ff2_proto::{TRASH_INODES, pb};
use pb::{ns_request::Op, quota_key::Of};

/// Names that a client may have in its folder.
pub(crate) const NAMES_MAX: usize = 5;
/// How long what is removed is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(20);
/// Entries that go in one step.
const STEP: usize = 8;

/// A client's folder has itself and so many names.
pub(crate) fn limit(folder: u64) -> Op {
    let key = Some(pb::QuotaKey { of: Some(Of::Inode(folder)) });
    let inodes = Some(pb::QuotaLimit { max: Some(1 + NAMES_MAX as u64) });
    Op::SetQuota(pb::SetQuotaOp { key, inodes, ..Default::default() })
}

pub(crate) fn keep() -> Op {
    Op::SetTrash(pb::SetTrashOp { keep_s: KEPT.as_secs() })
}

/// What root has removed.
pub(crate) fn look() -> Op {
    let inode = TRASH_INODES.0 + 1;
    Op::ReadDir(pb::ReadDirOp { inode, limit: 1_000, ..Default::default() })
}

pub(crate) fn shows(page: &pb::NsReply, name: &Bytes) -> bool {
    let is_it = |shown: &Bytes| shown.splitn(2, |byte| *byte == b'-').nth(1) == Some(&name[..]);
    page.entries.iter().any(|entry| is_it(&entry.name))
}

/// The leader's next step of emptying, at this time.
pub(crate) fn empty(kv: &dyn KvRead, now: Duration, kept: Duration) -> Option<Op> {
    let by_ns = now.checked_sub(kept)?.as_nanos() as i64;
    let removed_by_ns = namespace::next_to_go_from_trash(kv, by_ns, STEP).ok()??;
    Some(Op::EmptyTrash(pb::EmptyTrashOp { removed_by_ns, limit: STEP as u32 }))
}
