//! What is left of inodes that are gone, and the sums of the volume.

use ff2_proto::pb;

use super::Outcome;
use crate::{
    kv::{Kv, KvRead},
    namespace::{
        inode::{self, decode},
        keys::{self, Tag},
        limits,
        tx::Tx,
    },
};

/// Extended attributes, inline bytes and notes of an inode that is gone; in steps, as there may be many.
pub(super) fn remains(tx: &mut Tx<'_>, op: &pb::MendRemains) -> Outcome {
    if inode::find(&tx.kv, op.inode)?.is_some() {
        return Ok(None);
    }
    let mut done = Vec::new();
    let attributes = keys::one(Tag::Xattr, op.inode);
    let page = tx.kv.scan(&attributes, &keys::end_of(&attributes), limits::SCAN_PAGE);
    if !page.is_empty() {
        done.push(format!("{} extended attributes", page.len()));
    }
    page.iter().for_each(|(key, _)| tx.kv.delete(key));
    if let Some(bytes) = tx.kv.get(&keys::one(Tag::Inline, op.inode)) {
        done.push(format!("{} bytes of a small file", bytes.len()));
    }
    if let Some(orphan) = tx.kv.get(&keys::one(Tag::Orphan, op.inode)) {
        let orphan: pb::OrphanRecord = decode(&orphan)?;
        let order = keys::one(Tag::OrphanOrder, orphan.seq);
        if tx.kv.get(&order).is_some_and(|inode| keys::number(&inode) == Some(op.inode)) {
            tx.kv.delete(&order);
        }
    }
    for (tag, what) in [
        (Tag::Orphan, "its removal"),
        (Tag::Truncating, "a cut"),
        (Tag::Doubt, "a doubt of its length"),
    ] {
        if tx.kv.get(&keys::one(tag, op.inode)).is_some() {
            done.push(format!("the note of {what}"));
        }
    }
    for tag in [Tag::Inline, Tag::Orphan, Tag::Truncating, Tag::Doubt] {
        tx.kv.delete(&keys::one(tag, op.inode));
    }
    let what = done.join(", ");
    Ok((!done.is_empty())
        .then(|| format!("inode {} is gone, and {what} of it were left: removed", op.inode)))
}

/// All other operations keep the difference between what is counted and what is there: so it is the same as when it
/// was found, unless somebody mended it.
pub(super) fn sums(tx: &mut Tx<'_>, op: &pb::MendSums) -> Outcome {
    let is_right = op.inodes == 0 && op.bytes == 0;
    if is_right || tx.volume.sums_mended != op.mended {
        return Ok(None);
    }
    tx.volume.sums_mended += 1;
    tx.volume.inodes = tx.volume.inodes.wrapping_add(op.inodes);
    tx.volume.bytes = tx.volume.bytes.wrapping_add(op.bytes);
    let (inodes, bytes) = (op.inodes.cast_signed(), op.bytes.cast_signed());
    Ok(Some(format!("the volume's sums missed {inodes} inodes and {bytes} bytes: set")))
}
