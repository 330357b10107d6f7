//! Connections that see a part of the tree only: nothing outside of their folder exists for them.
//!
//! A folder is inside if the way up from it leads there. A file has no way up, and may have names in
//! several folders; it is reached by a name, whose folder is checked, or by its number, which nobody
//! can guess ([`super::number`]) and which no operation tells of a file outside.

use ff2_proto::{
    ROOT_INODE, Status,
    pb::{self, ns_request::Op},
    status::Code,
};

use super::{
    inode::{self, Inode},
    limits,
};
use crate::kv::KvRead;

/// Refuses what names a folder outside of `subtree`. 0: the whole volume is open.
pub(super) fn check(kv: &dyn KvRead, op: &Op, subtree: u64) -> Result<(), Status> {
    if subtree == 0 {
        return Ok(());
    }
    for named in inodes(op).into_iter().flatten() {
        let inside = match inode::find(kv, named)? {
            Some(inode) => is_inside(kv, &inode, subtree)?,
            // The operation will say so.
            None => true,
        };
        if !inside {
            return Err(Status::new(Code::StaleInode, format!("inode {named} is not shared here")));
        }
    }
    Ok(())
}

pub(super) fn is_inside(kv: &dyn KvRead, inode: &Inode, subtree: u64) -> Result<bool, Status> {
    if !inode.is_dir() {
        return Ok(true);
    }
    let (mut at, mut parent) = (inode.id(), inode.parent);
    for _ in 0..limits::DEPTH_MAX {
        if at == subtree {
            return Ok(true);
        }
        if at == ROOT_INODE.0 {
            return Ok(false);
        }
        at = parent;
        match inode::find(kv, at)? {
            Some(above) => parent = above.parent,
            // Of a removed folder, what was above may be gone too.
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Where a path walk of this connection begins and ends.
pub(super) fn root(subtree: u64) -> u64 {
    if subtree == 0 { ROOT_INODE.0 } else { subtree }
}

/// The inodes that an operation names.
pub(super) fn inodes(op: &Op) -> [Option<u64>; 2] {
    let two = |first, second| [Some(first), Some(second)];
    let one = |inode| [Some(inode), None];
    match op {
        Op::Lookup(op) => one(op.parent),
        Op::GetAttr(op) => one(op.inode),
        Op::ReadLink(op) => one(op.inode),
        Op::ReadDir(op) => one(op.inode),
        // Where the walk begins by default is inside.
        Op::Resolve(pb::ResolveOp { base, .. }) if *base == 0 || *base == ROOT_INODE.0 => {
            [None, None]
        }
        Op::Resolve(op) => one(op.base),
        Op::Access(op) => one(op.inode),
        Op::ReadInline(op) => one(op.inode),
        Op::Spill(op) => one(op.inode),
        Op::GetXattr(op) => one(op.inode),
        Op::ListXattrs(op) => one(op.inode),
        Op::GetLock(op) => one(op.inode),
        Op::Create(op) => one(op.parent),
        Op::MakeNode(op) => one(op.parent),
        Op::Link(op) => two(op.inode, op.parent),
        Op::Unlink(op) => one(op.parent),
        Op::Rename(op) => two(op.parent, op.new_parent),
        Op::SetAttr(op) => one(op.inode),
        Op::Open(op) => one(op.inode),
        Op::Close(op) => one(op.inode),
        Op::ReportLength(op) => one(op.inode),
        Op::SetLayout(op) => one(op.inode),
        Op::SetXattr(op) => one(op.inode),
        Op::RemoveXattr(op) => one(op.inode),
        Op::SetLock(op) => one(op.inode),
        Op::Unlock(op) => one(op.inode),
        Op::CancelLock(op) => one(op.inode),
        Op::StatFs(op) if op.inode != 0 => one(op.inode),
        Op::StatFs(_)
        | Op::ListQuotas(_)
        | Op::ListTrash(_)
        | Op::SetTrash(_)
        | Op::EmptyTrash(_)
        | Op::RestoreTrash(_)
        | Op::ListSnapshots(_)
        | Op::StepSnapshot(_)
        | Op::Mend(_)
        | Op::SetQuota(_)
        | Op::RemoveQuota(_)
        | Op::CountQuota(_)
        | Op::AwaitLocks(_)
        | Op::Keepalive(_)
        | Op::AwaitInvalidations(_)
        | Op::Batch(_)
        | Op::AllotInodes(_)
        // It leaves out what is not inside.
        | Op::TouchAtime(_)
        | Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::ListSessions(_)
        | Op::ListOrphans(_)
        | Op::ListTruncating(_)
        | Op::ListLengthDoubts(_)
        | Op::ExpireSessions(_)
        | Op::FinishTruncate(_)
        | Op::Collect(_)
        | Op::RecoverLength(_) => [None, None],
    }
}
