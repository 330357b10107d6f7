//! Locks of files and byte ranges, held for owners within this client's session.

use std::future::Future;

use ff2_proto::{Code, InodeId, Retry, Status, pb, pb::ns_request::Op};

use super::{Caller, incomplete};
use crate::{
    Result,
    locks::{Came, Claim, Owner},
};

/// A lock that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// Of the whole file, in a world apart from locks of ranges.
    pub flock: bool,
    /// Whose lock it is: any number that this client gives to its processes or open files.
    pub owner: u64,
    pub exclusive: bool,
    pub start: u64,
    /// The last byte, itself included.
    pub end: u64,
    /// Shown to who asks [`Caller::lock_conflict`] in this client.
    pub pid: u32,
}

/// How [`Caller::lock`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    Granted,
    /// It was given up, and is not held.
    GivenUp,
}

impl LockRange {
    fn message(&self, ticket: u64) -> pb::Lock {
        pb::Lock {
            session: 0,
            owner: self.owner,
            flock: self.flock,
            exclusive: self.exclusive,
            start: self.start,
            end: self.end,
            pid: self.pid,
            ticket,
            append: false,
        }
    }
}

impl Caller {
    /// Takes the lock, or fails with [`Code::WouldBlock`]. What the owner holds of the range is replaced.
    /// The attributes are those of the moment: whoever held it before has written by then.
    pub async fn try_lock(&self, inode: InodeId, range: LockRange) -> Result<pb::Attr> {
        let lock = Some(range.message(0));
        let op = pb::SetLockOp { inode: inode.0, lock, wait: false };
        let held = Owner { inode, flock: range.flock, owner: range.owner };
        let claim = self.shared.locks.claim(held);
        match self.shared.mutate_in(&self.cred, Op::SetLock(op)).await {
            Ok((reply, session)) => {
                claim.keep(session);
                self.attr_of(reply)
            }
            Err(failure) => {
                self.keep_unless_refused(claim, &failure);
                Err(failure)
            }
        }
    }

    /// Waits for the lock until `give_up` returns. Fails with [`Code::Deadlock`] if its holder waits
    /// for this owner. A new session begins the wait anew.
    pub async fn lock(
        &self,
        inode: InodeId,
        range: LockRange,
        give_up: impl Future<Output = ()>,
    ) -> Result<LockWait> {
        let mut give_up = std::pin::pin!(give_up);
        let held = Owner { inode, flock: range.flock, owner: range.owner };
        loop {
            let claim = self.shared.locks.claim(held);
            let mut wait = self.shared.locks.wait(range.owner);
            let lock = Some(range.message(wait.ticket()));
            let op = pb::SetLockOp { inode: inode.0, lock, wait: true };
            let answer = self.shared.mutate_in(&self.cred, Op::SetLock(op)).await;
            let (reply, session) = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    self.keep_unless_refused(claim, &failure);
                    return Err(failure);
                }
            };
            if reply.granted {
                claim.keep(session);
                return Ok(LockWait::Granted);
            }
            self.shared.ask_for_locks(&wait, session);
            let came = tokio::select! {
                came = wait.came() => came,
                () = &mut give_up => Came::GivenUp,
            };
            match came {
                Came::Granted => {
                    claim.keep(session);
                    return Ok(LockWait::Granted);
                }
                Came::SessionOver => {}
                Came::GivenUp => {
                    let (owner, ticket) = (range.owner, wait.ticket());
                    let op = pb::CancelLockOp { inode: inode.0, owner, ticket };
                    let cancel = self.shared.mutate_in(&self.cred, Op::CancelLock(op)).await;
                    return match cancel {
                        // It came in this moment. Another session knows nothing of it.
                        Ok((reply, cancelled_in)) if reply.granted && cancelled_in == session => {
                            claim.keep(session);
                            Ok(LockWait::Granted)
                        }
                        Ok(_) => Ok(LockWait::GivenUp),
                        Err(failure) => {
                            claim.keep(session);
                            Err(failure)
                        }
                    };
                }
            }
        }
    }

    /// Without an answer the lock may be held: then the owner's end must be told.
    fn keep_unless_refused(&self, claim: Claim<'_>, failure: &Status) {
        if failure.retry() != Retry::Never || failure.code == Code::UnknownOutcome {
            claim.keep(self.shared.session.id());
        }
    }

    /// Frees what the owner holds of the range. What this client wrote is told before, so that the next
    /// holder sees it.
    pub async fn unlock(&self, inode: InodeId, range: LockRange) -> Result<()> {
        let held = Owner { inode, flock: range.flock, owner: range.owner };
        if !self.shared.locks.may_hold(held) {
            return Ok(());
        }
        let reported = self.shared.report_length_gated(inode).await;
        let op = pb::UnlockOp { inode: inode.0, lock: Some(range.message(0)) };
        self.mutate(Op::Unlock(op)).await?;
        if (range.start, range.end) == (0, u64::MAX) || range.flock {
            self.shared.locks.freed(held);
        }
        reported
    }

    /// Frees all that the owner holds of one kind.
    pub async fn unlock_all(&self, inode: InodeId, owner: u64, flock: bool) -> Result<()> {
        let all = LockRange { flock, owner, exclusive: false, start: 0, end: u64::MAX, pid: 0 };
        self.unlock(inode, all).await
    }

    /// Whether the owner may hold a lock of this kind.
    pub fn may_hold_lock(&self, inode: InodeId, owner: u64, flock: bool) -> bool {
        self.shared.locks.may_hold(Owner { inode, flock, owner })
    }

    /// What stands against a lock. `None`: nothing does. The owner and process of another client's lock
    /// are 0.
    pub async fn lock_conflict(
        &self,
        inode: InodeId,
        range: LockRange,
    ) -> Result<Option<LockRange>> {
        let op = pb::GetLockOp { inode: inode.0, lock: Some(range.message(0)) };
        let found = self.read(Op::GetLock(op)).await?.conflict;
        found.map(|lock| conflict(&lock)).transpose()
    }
}

fn conflict(lock: &pb::Lock) -> Result<LockRange> {
    if lock.start > lock.end {
        return Err(Status::new(Code::Internal, incomplete("range").detail));
    }
    Ok(LockRange {
        flock: lock.flock,
        owner: lock.owner,
        exclusive: lock.exclusive,
        start: lock.start,
        end: lock.end,
        pid: lock.pid,
    })
}
