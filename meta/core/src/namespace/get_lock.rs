//! Questions about locks: what stands against one, and which of those that are waited for came.

use ff2_proto::{Status, pb, status::Code};

use super::{
    inode,
    keys::{self, Tag},
    limits, locks,
};
use crate::kv::KvRead;

/// What stands against a lock, if anything does. Of another session only the range is told.
pub(super) fn get(
    kv: &dyn KvRead,
    session: u64,
    op: &pb::GetLockOp,
) -> Result<pb::NsReply, Status> {
    let want = locks::request(session, op.lock.as_ref())?;
    inode::load(kv, op.inode)?;
    let table = locks::load(kv, op.inode)?;
    let conflict = table.conflicts(&want).next().copied().map(|mut lock| {
        if lock.session != session {
            lock.pid = 0;
            lock.owner = 0;
        }
        lock
    });
    Ok(pb::NsReply { conflict, ..Default::default() })
}

/// Which of these the session does not wait for any more. A session that does not cancel a wait knows
/// that it was granted.
pub(super) fn awaited(
    kv: &dyn KvRead,
    session: u64,
    op: &pb::AwaitLocksOp,
) -> Result<pb::NsReply, Status> {
    if op.tickets.len() as u64 > limits::LOCKS_PER_SESSION_MAX {
        return Err(Status::new(Code::InvalidArgument, "more tickets than there can be"));
    }
    let waits = |wait: &&pb::LockTicket| {
        kv.get(&keys::three(Tag::Waiting, session, wait.owner, wait.ticket)).is_none()
    };
    let granted_tickets = op.tickets.iter().filter(waits).map(|wait| wait.ticket).collect();
    Ok(pb::NsReply { session, granted_tickets, ..Default::default() })
}
