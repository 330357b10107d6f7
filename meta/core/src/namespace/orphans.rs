//! Inodes that lost their last name: they stay readable by number until the leader's driver knows
//! that no session has them open and their chunks are gone, and then collects them.
//!
//! A file that is made without a name begins as an orphan. It can be given a name as long as it is written
//! by whom made it, and nothing of it goes before that is over for ever.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inode::{self, Inode, decode},
    keys::{self, Tag},
    length, limits, locks, open, quota,
    trash::{self, Lost},
    tx::Tx,
    xattr,
};
use crate::kv::{Kv, KvRead};

/// One name of `inode` is gone; with the last one it goes to the trash, or becomes an orphan. The caller stores it.
pub(super) fn lose_name(tx: &mut Tx<'_>, inode: &mut Inode, lost: Lost<'_>) -> Result<(), Status> {
    assert!(inode.attr.nlink > 0, "an orphan has no name to lose");
    // A directory has one name; its `.` and the `..` of its children end with it.
    inode.attr.nlink = if inode.is_dir() { 0 } else { inode.attr.nlink - 1 };
    inode.changed(tx.now_ns);
    if inode.attr.nlink == 0 {
        if !trash::keep(tx, inode, lost) {
            add(tx, inode, false);
        }
        quota::folder_removed(tx, inode)?;
        if !quota::is_counted(inode) {
            quota::remove(tx, inode)?;
        }
    }
    Ok(())
}

/// `inode` has no name, and may get one if it is `nameable`. The caller stores it.
pub(super) fn add(tx: &mut Tx<'_>, inode: &Inode, nameable: bool) {
    assert!(inode.attr.nlink == 0, "an orphan has no name");
    assert!(inode.trash == 0, "what is in the trash is no orphan");
    assert!(!nameable || inode.writers > 0, "who made it writes it");
    let seq = tx.volume.next_orphan_seq;
    tx.volume.next_orphan_seq += 1;
    let record = pb::OrphanRecord { seq, nameable };
    tx.kv.put(&keys::one(Tag::Orphan, inode.id()), Bytes::from(record.encode_to_vec()));
    let id = Bytes::copy_from_slice(&inode.id().to_be_bytes());
    tx.kv.put(&keys::one(Tag::OrphanOrder, seq), id);
}

/// An orphan is about to get its first name, if it may from this session: then it is none any more.
pub(super) fn gets_name(tx: &mut Tx<'_>, inode: &Inode) -> Result<bool, Status> {
    if inode.trash > 0 {
        return Ok(false);
    }
    let record = record(&tx.kv, inode.id())?;
    if !record.nameable || open::writer(&tx.kv, inode.id(), tx.session)?.is_none() {
        return Ok(false);
    }
    tx.kv.delete(&keys::one(Tag::OrphanOrder, record.seq));
    tx.kv.delete(&keys::one(Tag::Orphan, inode.id()));
    Ok(true)
}

/// A write session of `inode` is over. If that has no name, it never gets one: from now on it may be that
/// nobody has it open.
pub(super) fn writer_ended(tx: &mut Tx<'_>, inode: &Inode) -> Result<(), Status> {
    if inode.attr.nlink > 0 || inode.trash > 0 {
        return Ok(());
    }
    let mut record = record(&tx.kv, inode.id())?;
    if record.nameable {
        record.nameable = false;
        let key = keys::one(Tag::Orphan, inode.id());
        tx.kv.put(&key, Bytes::from(record.encode_to_vec()));
    }
    Ok(())
}

/// The number of the notice that asks who has it open; 0 of what is no orphan.
pub(super) fn seq(kv: &dyn KvRead, inode: &Inode) -> Result<u64, Status> {
    let is_orphan = inode.attr.nlink == 0 && inode.trash == 0;
    Ok(if is_orphan { record(kv, inode.id())?.seq } else { 0 })
}

fn record(kv: &dyn KvRead, inode: u64) -> Result<pb::OrphanRecord, Status> {
    match kv.get(&keys::one(Tag::Orphan, inode)) {
        Some(record) => decode(&record),
        None => Err(Status::new(Code::Corrupt, "an orphan that is not listed")),
    }
}

pub(super) fn list(kv: &dyn KvRead, op: &pb::ListOrphansOp) -> Result<pb::NsReply, Status> {
    let (page, end) = length::page_after(kv, Tag::OrphanOrder, op.after, op.limit);
    let mut orphan_inodes = Vec::with_capacity(page.len());
    for (seq, value) in page {
        let Some(id) = keys::number(&value) else {
            return Err(Status::new(Code::Corrupt, "an orphan without a number"));
        };
        let inode = inode::load(kv, id)?;
        let uncertain = length::uncertain(kv, &inode) || length::was_cut(&inode);
        let has_chunks =
            inode.is_regular() && (length::chunks_above(kv, &inode, 0) || length::was_cut(&inode));
        orphan_inodes.push(pb::Orphan {
            inode: id,
            seq,
            layout: inode.attr.layout.filter(|_| has_chunks),
            size: inode.chunks_end(),
            uncertain,
            nameable: record(kv, id)?.nameable,
        });
    }
    Ok(pb::NsReply { orphan_inodes, end, ..Default::default() })
}

/// The end of orphans whose chunks are gone. Those that are gone already are passed over.
pub(super) fn collect(tx: &mut Tx<'_>, op: &pb::CollectOp) -> Result<pb::NsReply, Status> {
    if op.inodes.len() > limits::COLLECT_BATCH_MAX {
        return Err(Status::new(Code::InvalidArgument, "too many inodes in one command"));
    }
    let mut steps = limits::COLLECT_STEPS_MAX;
    for &id in &op.inodes {
        if steps == 0 {
            // They stay listed.
            break;
        }
        let Some(mut inode) = inode::find(&tx.kv, id)? else { continue };
        if inode.attr.nlink > 0 || inode.trash > 0 {
            let why = format!("inode {id} has a name, or is in the trash");
            return Err(Status::new(Code::InvalidArgument, why));
        }
        if record(&tx.kv, id)?.nameable {
            return Err(Status::new(Code::InvalidArgument, format!("inode {id} may get a name")));
        }
        open::drop_writers(tx, &mut inode, |_| true)?;
        assert_eq!(inode.writers, 0, "every writer has its record");
        let xattrs = xattr::remove_all(tx, &inode);
        steps = steps.saturating_sub(xattrs);
        locks::remove_all(tx, id)?;
        remove(tx, &inode)?;
    }
    Ok(pb::NsReply::default())
}

fn remove(tx: &mut Tx<'_>, inode: &Inode) -> Result<(), Status> {
    let id = inode.id();
    let record = record(&tx.kv, id)?;
    for key in [
        keys::one(Tag::OrphanOrder, record.seq),
        keys::one(Tag::Orphan, id),
        keys::one(Tag::Truncating, id),
        keys::one(Tag::Inline, id),
        keys::one(Tag::Doubt, id),
        keys::one(Tag::Inode, id),
    ] {
        tx.kv.delete(&key);
    }
    tx.volume.inodes -= 1;
    if inode.is_regular() {
        tx.volume.bytes = tx.volume.bytes.wrapping_sub(inode.attr.size);
    }
    Ok(())
}
