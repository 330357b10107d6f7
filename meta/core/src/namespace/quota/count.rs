//! What was in a folder before its quota, or stays when that was removed, comes to be counted by another root:
//! step by step, each a command of the leader's driver. What an owner has is counted in the order of inodes.
//!
//! The folders that are still to be looked through are in the keys, each with the position it was read to.
//! A folder comes to its new root before the look through it begins: so what is made in it from then
//! on, or comes into it by a rename, counts there already. What was taken over by another root
//! meanwhile is that one's to look through.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};

use super::{
    Inode, Key, Tx,
    account::{Amount, change, is_counted},
    decode, find, is_root, keys, limits,
    list::told,
    place::{move_root, transfer},
    put,
};
use crate::{
    kv::{Kv, KvRead},
    namespace::{inode, keys::Tag},
};

/// Begins to look through the folder of a quota, for whom it is: its own, or, if it has ended, the
/// quota above.
pub(super) fn begin(tx: &mut Tx<'_>, root: u64) -> Result<(), Status> {
    // Else nothing counts here.
    if let Some(record) = find(&tx.kv, Key::Folder(root))? {
        put_position(tx, root, root, 0);
        tx.volume.counts += 1;
        let record = pb::QuotaRecord { counting: true, counted: 0, ..record };
        put(tx, Key::Folder(root), &record);
    }
    Ok(())
}

/// One step.
pub(in crate::namespace) fn count(
    tx: &mut Tx<'_>,
    op: &pb::CountQuotaOp,
) -> Result<pb::NsReply, Status> {
    let key = Key::parse(op.key.as_ref())?;
    step(tx, key, op.counted, &mut Vec::new())?;
    let record = find(&tx.kv, key)?;
    let quotas = record.iter().map(|record| told(key, record)).collect();
    Ok(pb::NsReply { quotas, ..Default::default() })
}

/// The inodes that a step would change.
pub(in crate::namespace) fn touched(kv: &dyn KvRead, op: &pb::CountQuotaOp) -> Vec<u64> {
    let (command, request) = (pb::NsCommand::default(), pb::NsRequest::default());
    let mut taken = Vec::new();
    // What cannot be read is said when it is applied.
    if let Ok(mut tx) = Tx::new(kv, &command, &request)
        && let Ok(key) = Key::parse(op.key.as_ref())
    {
        let _ = step(&mut tx, key, op.counted, &mut taken);
    }
    taken
}

/// Goes on from where so many inodes were counted; `taken`: inodes that have another root now.
fn step(tx: &mut Tx<'_>, key: Key, counted: u64, taken: &mut Vec<u64>) -> Result<(), Status> {
    let is_next = |record: &pb::QuotaRecord| record.counting && record.counted == counted;
    let Some(record) = find(&tx.kv, key)?.filter(is_next) else { return Ok(()) };
    let (looked, is_done) = match key {
        Key::Folder(root) => look_through(tx, root, &record, taken)?,
        Key::User(_) | Key::Group(_) => look_at_owned(tx, key, &record)?,
    };
    let Some(mut record) = find(&tx.kv, key)? else {
        return Err(Status::new(Code::Corrupt, "a quota is gone while it is counted"));
    };
    record.counted += looked;
    record.counting = !is_done;
    tx.volume.counts -= u64::from(is_done);
    put(tx, key, &record);
    Ok(())
}

/// Looks at some entries; returns how many, and whether those were the last.
fn look_through(
    tx: &mut Tx<'_>,
    root: u64,
    record: &pb::QuotaRecord,
    taken: &mut Vec<u64>,
) -> Result<(u64, bool), Status> {
    let target = if record.ending { record.above } else { root };
    let mut left = limits::QUOTA_STEPS_MAX;
    while left > 0 {
        let Some((folder, cookie)) = next_position(&tx.kv, root)? else { break };
        // One that another root took over, or that is gone, is not looked through here.
        let is_ours = inode::find(&tx.kv, folder)?
            .is_some_and(|inode| inode.attr.nlink > 0 && inode.attr.quota == target);
        let entries = if is_ours { entries(&tx.kv, folder, cookie, left) } else { Vec::new() };
        let is_end = entries.len() < left;
        left -= entries.len().max(1);
        let mut next = cookie;
        for (cookie, name) in entries {
            next = cookie + 1;
            take(tx, folder, &name, (root, target), taken)?;
        }
        if is_end {
            tx.kv.delete(&keys::two(Tag::QuotaCount, root, folder));
        } else {
            put_position(tx, root, folder, next);
        }
    }
    let is_done = next_position(&tx.kv, root)?.is_none();
    Ok(((limits::QUOTA_STEPS_MAX - left) as u64, is_done))
}

/// What this name means comes to the root that is counted for.
fn take(
    tx: &mut Tx<'_>,
    folder: u64,
    name: &[u8],
    (root, target): (u64, u64),
    taken: &mut Vec<u64>,
) -> Result<(), Status> {
    let Some(entry) = tx.kv.get(&keys::dentry(folder, name)) else {
        return Err(Status::new(Code::Corrupt, "a cookie without its name"));
    };
    let mut child = inode::load_named(&tx.kv, &decode(&entry)?)?;
    if is_root(&child) {
        return move_root(tx, child.id(), target, false);
    }
    if child.attr.quota == target {
        return Ok(());
    }
    transfer(tx, &mut child, target, false)?;
    child.attr.version += 1;
    tx.put_inode(&child);
    taken.push(child.id());
    if child.is_dir() && child.entries > 0 {
        put_position(tx, root, child.id(), 0);
    }
    Ok(())
}

fn put_position(tx: &mut Tx<'_>, root: u64, folder: u64, cookie: u64) {
    let at = Bytes::copy_from_slice(&cookie.to_be_bytes());
    tx.kv.put(&keys::two(Tag::QuotaCount, root, folder), at);
}

/// A folder that is to be looked through, and from which cookie on.
fn next_position(kv: &dyn KvRead, root: u64) -> Result<Option<(u64, u64)>, Status> {
    let prefix = keys::one(Tag::QuotaCount, root);
    let Some((key, value)) = kv.scan(&prefix, &keys::end_of(&prefix), 1).pop() else {
        return Ok(None);
    };
    let folder = keys::split(&key).and_then(|(_, rest)| keys::number(rest));
    match (folder, keys::number(&value)) {
        (Some(folder), Some(cookie)) => Ok(Some((folder, cookie))),
        (None, _) | (_, None) => Err(Status::new(Code::Corrupt, "a position that is none")),
    }
}

fn entries(kv: &dyn KvRead, folder: u64, cookie: u64, limit: usize) -> Vec<(u64, Bytes)> {
    let from = keys::two(Tag::Cookie, folder, cookie);
    let to = keys::end_of(&keys::one(Tag::Cookie, folder));
    let pairs = kv.scan(&from, &to, limit).into_iter();
    pairs.filter_map(|(key, name)| Some((keys::number(keys::split(&key)?.1)?, name))).collect()
}

/// Looks at the next inodes, whoever owns them; those after them count when this comes to them.
fn look_at_owned(
    tx: &mut Tx<'_>,
    key: Key,
    record: &pb::QuotaRecord,
) -> Result<(u64, bool), Status> {
    let from = keys::one(Tag::Inode, record.counted_to.saturating_add(1));
    let pairs = tx.kv.scan(&from, &[Tag::Inode as u8 + 1], limits::QUOTA_STEPS_MAX);
    let is_done = pairs.len() < limits::QUOTA_STEPS_MAX;
    let mut sum = Amount::default();
    let mut counted_to = if is_done { u64::MAX } else { record.counted_to };
    for (_, value) in &pairs {
        let inode = Inode::decode(value)?;
        counted_to = counted_to.max(inode.id());
        if is_counted(&inode) && Key::owners(&inode).contains(&key) {
            let one = Amount::of(&inode);
            sum.inodes += one.inodes;
            sum.bytes = sum.bytes.wrapping_add(one.bytes);
        }
    }
    let record = pb::QuotaRecord { counted_to, ..record.clone() };
    change(tx, vec![(key, record)], Amount::default(), sum);
    Ok((pairs.len() as u64, is_done))
}
