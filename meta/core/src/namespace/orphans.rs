//! Inodes that lost their last name: they stay readable by number until the leader's driver knows
//! that no session has them open and their chunks are gone, and then collects them.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inode::{self, Inode, decode},
    keys::{self, Tag},
    length, limits, locks, open,
    tx::Tx,
    xattr,
};
use crate::kv::{Kv, KvRead};

/// One name of `inode` is gone; with the last one it becomes an orphan. The caller stores it.
pub(super) fn lose_name(tx: &mut Tx<'_>, inode: &mut Inode) {
    assert!(inode.attr.nlink > 0, "an orphan has no name to lose");
    // A directory has one name; its `.` and the `..` of its children end with it.
    inode.attr.nlink = if inode.is_dir() { 0 } else { inode.attr.nlink - 1 };
    inode.changed(tx.now_ns);
    if inode.attr.nlink > 0 {
        return;
    }
    let seq = tx.volume.next_orphan_seq;
    tx.volume.next_orphan_seq += 1;
    let record = pb::OrphanRecord { seq };
    tx.kv.put(&keys::one(Tag::Orphan, inode.id()), Bytes::from(record.encode_to_vec()));
    let id = Bytes::copy_from_slice(&inode.id().to_be_bytes());
    tx.kv.put(&keys::one(Tag::OrphanOrder, seq), id);
}

pub(super) fn list(kv: &dyn KvRead, op: &pb::ListOrphansOp) -> Result<pb::NsReply, Status> {
    let (page, end) = length::page_after(kv, Tag::OrphanOrder, op.after, op.limit);
    let mut orphan_inodes = Vec::with_capacity(page.len());
    for (seq, value) in page {
        let Some(id) = keys::number(&value) else {
            return Err(Status::new(Code::Corrupt, "an orphan without a number"));
        };
        let inode = inode::load(kv, id)?;
        let uncertain = length::uncertain(kv, &inode);
        let has_chunks = inode.is_regular() && length::chunks_above(kv, &inode, 0);
        orphan_inodes.push(pb::Orphan {
            inode: id,
            seq,
            layout: inode.attr.layout.filter(|_| has_chunks),
            size: inode.chunks_end(),
            uncertain,
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
        if inode.attr.nlink > 0 {
            return Err(Status::new(Code::InvalidArgument, format!("inode {id} has a name")));
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
    let Some(record) = tx.kv.get(&keys::one(Tag::Orphan, id)) else {
        return Err(Status::new(Code::Corrupt, "an orphan that is not listed"));
    };
    let record: pb::OrphanRecord = decode(&record)?;
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
