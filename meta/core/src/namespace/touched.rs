//! Which inodes a request would change as the keys are now: whom the leader tells before it logs the
//! request, so that nobody caches what it changes (see [`crate::callbacks`]).

use ff2_proto::{
    ROOT_INODE,
    pb::{self, ns_request::Op, quota_key::Of},
};

use super::{dir, mend, open, quota, trash};
use crate::kv::KvRead;

/// The inodes whose attributes, bytes or entries the request would change. A request that will be
/// refused may name some too. Another command that comes first may let a name mean another inode: so it
/// is looked at again when it is applied ([`pb::NsCommand::touched`]).
pub fn touched(kv: &dyn KvRead, request: &pb::NsRequest) -> Vec<u64> {
    let Some(op) = &request.op else { return Vec::new() };
    let mut inodes = of_op(kv, op);
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

fn of_op(kv: &dyn KvRead, op: &Op) -> Vec<u64> {
    // One key: this is asked for each request, at the leader and once more when it is applied.
    let named = |parent: u64, name: &[u8]| dir::meant(kv, parent, name);
    match op {
        Op::Create(op) if op.unnamed => Vec::new(),
        Op::Create(op) => match named(op.parent, &op.name) {
            Some(inode) if op.truncate && !op.exclusive => vec![inode],
            Some(_) => Vec::new(),
            None => vec![op.parent],
        },
        Op::MakeNode(op) => vec![op.parent],
        Op::Link(op) => vec![op.inode, op.parent],
        Op::Unlink(op) => {
            [Some(op.parent), named(op.parent, &op.name)].into_iter().flatten().collect()
        }
        Op::Rename(op) => {
            let names = [named(op.parent, &op.name), named(op.new_parent, &op.new_name)];
            [Some(op.parent), Some(op.new_parent)].into_iter().chain(names).flatten().collect()
        }
        Op::SetAttr(op) => vec![op.inode],
        // That somebody writes changes nothing that is seen before the writer reports.
        Op::Open(op) if open::is_writing(op) && op.truncate => vec![op.inode],
        Op::Close(op) => {
            let wrote = op.wrote || op.length_at_least > 0 || !op.inline_writes.is_empty();
            if wrote { vec![op.inode] } else { Vec::new() }
        }
        Op::ReportLength(op) => vec![op.inode],
        Op::Spill(op) => vec![op.inode],
        Op::RecoverLength(op) => vec![op.inode],
        Op::SetLayout(op) => vec![op.inode],
        Op::SetXattr(op) => vec![op.inode],
        Op::RemoveXattr(op) => vec![op.inode],
        Op::SetQuota(pb::SetQuotaOp { key, .. }) | Op::RemoveQuota(pb::RemoveQuotaOp { key }) => {
            match key.and_then(|key| key.of) {
                Some(Of::Inode(folder)) => vec![folder],
                Some(Of::Uid(_) | Of::Gid(_)) | None => Vec::new(),
            }
        }
        Op::CountQuota(op) => quota::touched(kv, op),
        Op::SetTrash(_) => vec![ROOT_INODE.0],
        Op::RestoreTrash(op) => trash::touched(kv, op),
        Op::Mend(op) => mend::touched(kv, op),
        // Who holds it and may keep it goes by its callback, and is told by this to let it go.
        Op::SetLock(op) if op.lock.is_some_and(|lock| lock.append) => vec![op.inode],
        // The cut was made when it began; until it ends nobody sees the inode. An orphan has no name, and what
        // is in the trash shows the same attributes.
        Op::FinishTruncate(_) | Op::Collect(_) | Op::EmptyTrash(_) => Vec::new(),
        Op::Open(_)
        | Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::ExpireSessions(_)
        | Op::SetLock(_)
        | Op::Unlock(_)
        | Op::CancelLock(_)
        | Op::Lookup(_)
        | Op::GetAttr(_)
        | Op::ReadLink(_)
        | Op::ReadDir(_)
        | Op::StatFs(_)
        | Op::ListQuotas(_)
        | Op::ListTrash(_)
        | Op::ListSnapshots(_)
        | Op::StepSnapshot(_)
        | Op::Resolve(_)
        | Op::Access(_)
        | Op::ListSessions(_)
        | Op::ListOrphans(_)
        | Op::ListTruncating(_)
        | Op::ListLengthDoubts(_)
        | Op::ReadInline(_)
        | Op::GetXattr(_)
        | Op::ListXattrs(_)
        | Op::GetLock(_)
        | Op::AwaitLocks(_)
        | Op::AwaitInvalidations(_)
        | Op::Batch(_)
        | Op::AllotInodes(_)
        // Access times that others know may be older.
        | Op::TouchAtime(_)
        | Op::Keepalive(_) => Vec::new(),
    }
}
