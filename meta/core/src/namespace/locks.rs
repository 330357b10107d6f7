//! Locks of files and ranges of bytes: how the tables of inodes lie in the keys, whom a lock belongs
//! to, and when it ends.
//!
//! A lock belongs to an owner within a session (a process, or an open file of a mount), and ends with
//! it at the latest. Waiting is state as well: who waits stays in line when the leader changes.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inode::{Inode, decode},
    keys::{self, Tag},
    limits, open, perm,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};
pub(super) use table::{Outcome, Table};

pub(super) fn load(kv: &dyn KvRead, inode: u64) -> Result<Table, Status> {
    let record = kv.get(&keys::one(Tag::Locks, inode)).map(|bytes| decode(&bytes)).transpose()?;
    Ok(Table::new(record.unwrap_or_default()))
}

/// The request as the table takes it.
pub(super) fn request(session: u64, lock: Option<&pb::Lock>) -> Result<pb::Lock, Status> {
    let Some(lock) = lock else {
        return Err(Status::new(Code::InvalidArgument, "no lock is named"));
    };
    if session == 0 {
        return Err(Status::new(Code::InvalidArgument, "a lock belongs to a session"));
    }
    if lock.start > lock.end {
        return Err(Status::new(Code::InvalidArgument, "the range ends before it starts"));
    }
    if lock.flock && lock.append {
        return Err(Status::new(Code::InvalidArgument, "a lock is of one kind"));
    }
    let is_whole = lock.flock || lock.append;
    let (start, end) = if is_whole { (0, u64::MAX) } else { (lock.start, lock.end) };
    Ok(pb::Lock { session, start, end, ..*lock })
}

/// Only who may use the file may keep others from it.
pub(super) fn check(tx: &Tx<'_>, inode: &Inode) -> Result<(), Status> {
    let cred = &tx.cred;
    let may = perm::is_owner(cred, &inode.attr)
        || perm::allows(cred, inode, perm::READ)
        || perm::allows(cred, inode, perm::WRITE)
        || open::writer(&tx.kv, inode.id(), tx.session)?.is_some();
    if may { Ok(()) } else { Err(Code::AccessDenied.into()) }
}

/// Puts a changed table into the keys, with what the sessions are said to have in it.
pub(super) fn store(
    tx: &mut Tx<'_>,
    inode: u64,
    before: &Table,
    after: &Table,
) -> Result<(), Status> {
    let mut change: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for lock in before.held().iter().chain(before.waiting()) {
        change.entry(lock.session).or_default().0 += 1;
    }
    for lock in after.held().iter().chain(after.waiting()) {
        change.entry(lock.session).or_default().1 += 1;
    }
    for (session, (old, new)) in change {
        count(tx, session, inode, old, new)?;
    }
    let waited: BTreeSet<_> = before.waiting().iter().map(waiting).collect();
    let waits: BTreeSet<_> = after.waiting().iter().map(waiting).collect();
    waited.difference(&waits).for_each(|key| tx.kv.delete(key));
    for key in waits.difference(&waited) {
        tx.kv.put(key, Bytes::copy_from_slice(&inode.to_be_bytes()));
    }
    let key = keys::one(Tag::Locks, inode);
    if after.is_empty() {
        tx.kv.delete(&key);
    } else {
        tx.kv.put(&key, Bytes::from(after.record().encode_to_vec()));
    }
    Ok(())
}

fn count(tx: &mut Tx<'_>, session: u64, inode: u64, old: u64, new: u64) -> Result<(), Status> {
    let index = keys::two(Tag::LocksOfSession, session, inode);
    match (old, new) {
        (0, 1..) => tx.kv.put(&index, Bytes::new()),
        (1.., 0) => tx.kv.delete(&index),
        _ => {}
    }
    if old != new {
        let mut usage = tx.session_use(session)?.unwrap_or_default();
        assert!(usage.locks >= old, "a session counts its locks");
        usage.locks = usage.locks - old + new;
        // A lock that comes in may split another of its owner: that is not the business of who frees it.
        if new > old && session == tx.session && usage.locks > limits::LOCKS_PER_SESSION_MAX {
            return Err(Status::new(Code::NoLocks, "the session has too many locks"));
        }
        tx.put_session_use(session, &usage);
    }
    Ok(())
}

fn waiting(lock: &pb::Lock) -> [u8; 25] {
    keys::three(Tag::Waiting, lock.session, lock.owner, lock.ticket)
}

/// Whether an owner that waited for `want` would wait for itself. It looks at a bounded number of
/// owners, and takes a larger circle for none. For byte ranges only: whole-file locks belong to open
/// files, of which a process may have many.
pub(super) fn is_circle(tx: &Tx<'_>, table: &Table, want: &pb::Lock) -> Result<bool, Status> {
    let me = (want.session, want.owner);
    let mut seen = std::collections::BTreeSet::new();
    let mut next: Vec<(u64, u64)> =
        table.conflicts(want).map(|held| (held.session, held.owner)).collect();
    while let Some(owner) = next.pop() {
        if owner == me {
            return Ok(true);
        }
        if seen.len() >= limits::DEADLOCK_OWNERS_MAX || !seen.insert(owner) {
            continue;
        }
        for (inode, ticket) in waits_of(&tx.kv, owner) {
            let table = load(&tx.kv, inode)?;
            let is_it = |lock: &&pb::Lock| lock.session == owner.0 && lock.ticket == ticket;
            let Some(wait) =
                table.waiting().iter().find(is_it).filter(|lock| !lock.flock && !lock.append)
            else {
                continue;
            };
            next.extend(table.conflicts(wait).map(|held| (held.session, held.owner)));
        }
    }
    Ok(false)
}

/// Inodes and tickets of what an owner waits for.
fn waits_of(kv: &dyn KvRead, (session, owner): (u64, u64)) -> Vec<(u64, u64)> {
    let prefix = keys::two(Tag::Waiting, session, owner);
    let pairs = kv.scan(&prefix, &keys::end_of(&prefix), limits::WAITS_PER_OWNER_LOOKED_AT);
    let wait =
        |(key, inode): (Bytes, Bytes)| Some((keys::number(&inode)?, keys::number(key.get(17..)?)?));
    pairs.into_iter().filter_map(wait).collect()
}

/// A session writes an inode no more: it appends no more either.
pub(super) fn end_append(
    tx: &mut Tx<'_>,
    inode: u64,
    session: u64,
) -> Result<Vec<pb::LockGrant>, Status> {
    let before = load(&tx.kv, inode)?;
    let appends = |lock: &&pb::Lock| lock.append && lock.session == session;
    let Some(held) = before.held().iter().find(appends) else { return Ok(Vec::new()) };
    let mut after = before.clone();
    after.unlock(held);
    let granted = after.grant();
    store(tx, inode, &before, &after)?;
    Ok(granted)
}

/// A session that ends leaves one inode: its locks go, and others come in.
pub(super) fn leave(tx: &mut Tx<'_>, inode: u64, session: u64) -> Result<(), Status> {
    let before = load(&tx.kv, inode)?;
    let mut after = before.clone();
    after.drop_session(session);
    after.grant();
    store(tx, inode, &before, &after)
}

/// The inode goes, and with it what is left of its locks.
pub(super) fn remove_all(tx: &mut Tx<'_>, inode: u64) -> Result<(), Status> {
    let before = load(&tx.kv, inode)?;
    if before.is_empty() {
        return Ok(());
    }
    store(tx, inode, &before, &Table::default())
}
