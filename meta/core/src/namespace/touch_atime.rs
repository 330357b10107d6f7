//! Access times: what clients read is told some seconds later, many inodes at once (relatime).
//!
//! An access time is worth no wait and no message to other clients: an inode keeps its version, and who caches its
//! attributes keeps the older time for as long as it caches them.

use ff2_proto::{
    Status,
    pb::{self, FileKind},
    relatime,
    status::Code,
};

use super::{
    confine,
    inode::{self, Inode},
    limits, perm,
    tx::Tx,
};
use crate::kv::KvRead;

/// Earlier releases do not know the command.
const LEVEL: u32 = 3;

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::TouchAtimeOp) -> Result<pb::NsReply, Status> {
    tx.require_level(LEVEL, "access times")?;
    if op.atimes.len() > limits::ATIMES_MAX {
        let why =
            format!("{} access times at once: at most {}", op.atimes.len(), limits::ATIMES_MAX);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    for atime in &op.atimes {
        // A client's clock may be ahead.
        let at_ns = atime.atime_ns.min(tx.now_ns);
        let Some(mut inode) = inode::find_stored(&tx.kv, atime.inode)? else { continue };
        if relatime::is_due(&inode.attr, at_ns) && reads(tx, &inode)? {
            inode.attr.atime_ns = at_ns;
            tx.put_inode(&inode);
        }
    }
    Ok(pb::NsReply::default())
}

/// Whether the caller may read it, here. To run a file is to read it; a symlink is everybody's.
fn reads(tx: &Tx<'_>, inode: &Inode) -> Result<bool, Status> {
    if tx.subtree != 0 && !confine::is_inside(&tx.kv, inode, tx.subtree)? {
        return Ok(false);
    }
    let may = |mask| perm::allows(&tx.cred, inode, mask);
    Ok(inode.kind() == FileKind::Symlink || may(perm::READ) || may(perm::EXECUTE))
}

/// Leaves what changes something by the keys as they are: of what many clients read at about the same time, the first
/// one's word is enough. False: nothing is left, or the cluster's programs do not all know it.
pub fn keep_due(kv: &dyn KvRead, op: &mut pb::TouchAtimeOp, level: u32) -> bool {
    let is_due = |atime: &pb::Atime| match inode::find_stored(kv, atime.inode) {
        Ok(inode) => inode.is_some_and(|inode| relatime::is_due(&inode.attr, atime.atime_ns)),
        // Applying it will say why.
        Err(_) => true,
    };
    op.atimes.retain(is_due);
    level >= LEVEL && !op.atimes.is_empty()
}
