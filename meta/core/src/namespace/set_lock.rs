//! Taking, freeing and giving up locks.

use ff2_proto::{Status, pb, status::Code};

use super::{
    inode, limits,
    locks::{self, Outcome},
    tx::Tx,
};

/// Takes a lock, or gets in line for it. A refusal leaves what the owner holds.
pub(super) fn set(tx: &mut Tx<'_>, op: &pb::SetLockOp) -> Result<pb::NsReply, Status> {
    let want = locks::request(tx.session, op.lock.as_ref())?;
    let inode = inode::load(&tx.kv, op.inode)?;
    locks::check(tx, &inode)?;
    let before = locks::load(&tx.kv, op.inode)?;
    let mut table = before.clone();
    let mut lock_grants = Vec::new();
    let mut granted = table.try_set(&want) == Outcome::Granted;
    if granted {
        // What was exclusive before may be shared now.
        lock_grants = table.grant();
    } else if !op.wait {
        return Err(Code::WouldBlock.into());
    } else if want.ticket == 0 {
        return Err(Status::new(Code::InvalidArgument, "who waits needs a ticket"));
    } else if want.append {
        // One of each session; who is told that others wait lets it go.
    } else if want.flock {
        // It lets go of what it has first, as on Linux: two that hold it shared and both want it
        // alone would else wait for each other for ever.
        table.unlock(&want);
        lock_grants = table.grant();
        granted = table.try_set(&want) == Outcome::Granted;
    } else if locks::is_circle(tx, &before, &want)? {
        return Err(Code::Deadlock.into());
    }
    if !granted {
        if table.waiting().len() >= limits::WAITERS_PER_INODE_MAX {
            return Err(Status::new(Code::NoLocks, "too many wait for locks of this file"));
        }
        let is_taken = |lock: &pb::Lock| lock.session == want.session && lock.ticket == want.ticket;
        if table.waiting().iter().any(is_taken) {
            return Err(Status::new(Code::InvalidArgument, "the ticket is in use"));
        }
        table.enqueue(want);
    }
    if table.held().len() > limits::LOCKS_PER_INODE_MAX && table.held().len() > before.held().len()
    {
        return Err(Status::new(Code::NoLocks, "the file has too many locks"));
    }
    locks::store(tx, op.inode, &before, &table)?;
    Ok(pb::NsReply { attr: Some(inode.attr), granted, lock_grants, ..Default::default() })
}

/// Frees a range. It needs no permission: nobody has another's owner and session.
pub(super) fn unlock(tx: &mut Tx<'_>, op: &pb::UnlockOp) -> Result<pb::NsReply, Status> {
    let range = locks::request(tx.session, op.lock.as_ref())?;
    let before = locks::load(&tx.kv, op.inode)?;
    let mut table = before.clone();
    table.unlock(&range);
    if table.held().len() > limits::LOCKS_PER_INODE_MAX && table.held().len() > before.held().len()
    {
        // A hole in a lock makes two of it.
        return Err(Status::new(Code::NoLocks, "the file has too many locks"));
    }
    let lock_grants = table.grant();
    locks::store(tx, op.inode, &before, &table)?;
    Ok(pb::NsReply { lock_grants, ..Default::default() })
}

/// Ends a wait. `granted`: the lock came first, and is held.
pub(super) fn cancel(tx: &mut Tx<'_>, op: &pb::CancelLockOp) -> Result<pb::NsReply, Status> {
    let before = locks::load(&tx.kv, op.inode)?;
    let mut table = before.clone();
    let was_waiting = table.cancel(tx.session, op.ticket);
    let lock_grants = table.grant();
    locks::store(tx, op.inode, &before, &table)?;
    Ok(pb::NsReply { granted: !was_waiting, lock_grants, ..Default::default() })
}
