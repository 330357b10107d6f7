//! Cutting files: the size changes at once, the chunks are cut by the leader's driver, and until it
//! says that this is done ([`pb::FinishTruncateOp`]) nobody else may look at the inode. An inline file
//! that is to have chunks waits in the same way for its first one.

use std::collections::BTreeSet;

use bytes::Bytes;
use ff2_proto::{Status, limits as wire, pb, status::Code};
use prost::Message;

use super::{
    inline,
    inode::{self, Inode, decode},
    keys::{self, Tag},
    length, perm, quota,
    tx::Tx,
    xattr,
};
use crate::kv::{Kv, KvRead};

/// Sets the size as truncate does. `Some`: chunks must be cut. The caller stores the inode.
pub(super) fn resize(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    size: u64,
) -> Result<Option<pb::Truncation>, Status> {
    assert!(inode.truncating_to.is_none(), "one truncation at a time");
    if size > wire::FILE_SIZE_MAX {
        return Err(Code::FileTooBig.into());
    }
    let grows = size > inode.attr.size;
    if grows {
        quota::check_growth(tx, inode, size - inode.attr.size)?;
    }
    tx.set_size(inode, size)?;
    inode.modified(tx.now_ns);
    if !perm::is_root(&tx.cred) {
        inode.attr.mode = perm::without_privileges(inode.attr.mode);
    }
    xattr::drop_capability(tx, inode);
    if inode.attr.inline {
        inline::cut(tx, inode, size);
        return Ok(None);
    }
    // Growing makes a hole. A file that has no chunks above the new size needs no cut either.
    if grows || !length::chunks_above(&tx.kv, inode, size) {
        return Ok(None);
    }
    unsettle(tx, inode, size);
    overtake(tx, inode)?;
    Ok(Some(describe(&tx.kv, inode)))
}

/// From now on nobody looks at the inode, until the driver is done with its chunks.
pub(super) fn unsettle(tx: &mut Tx<'_>, inode: &mut Inode, size: u64) {
    inode.truncating_to = Some(size);
    inode.truncate_version += 1;
    tx.kv.put(&keys::one(Tag::Truncating, inode.id()), Bytes::new());
}

/// Writers of other sessions do not know of the cut: what they report from now on may have been
/// written before it, so the chains will be asked instead. Answers of chains under way are void.
fn overtake(tx: &mut Tx<'_>, inode: &Inode) -> Result<(), Status> {
    let prefix = keys::one(Tag::Writer, inode.id());
    let writers: Vec<(Bytes, Bytes)> = keys::all(&tx.kv, &prefix).collect();
    for (key, value) in writers {
        let session = keys::split(&key).and_then(|(_, rest)| keys::number(rest));
        let mut writer: pb::WriteSessionRecord = decode(&value)?;
        if session != Some(tx.session) && !writer.overtaken {
            writer.overtaken = true;
            tx.kv.put(&key, Bytes::from(writer.encode_to_vec()));
        }
    }
    if tx.kv.get(&keys::one(Tag::Doubt, inode.id())).is_some() {
        length::raise_doubt(tx, inode.id());
    }
    Ok(())
}

pub(super) fn describe(kv: &dyn KvRead, inode: &Inode) -> pb::Truncation {
    pb::Truncation {
        inode: inode.id(),
        truncate_version: inode.truncate_version,
        size: inode.truncating_to.unwrap_or(inode.attr.size),
        layout: inode.attr.layout,
        length_bound: inode.chunks_end(),
        uncertain: length::uncertain(kv, inode),
        spill: if inode.attr.inline { inline::data(kv, inode.id()) } else { Bytes::new() },
    }
}

/// The chunks are cut. Of an older truncation, or a second time: no effect.
pub(super) fn finish(tx: &mut Tx<'_>, op: &pb::FinishTruncateOp) -> Result<pb::NsReply, Status> {
    let Some(mut inode) = inode::find(&tx.kv, op.inode)? else {
        return Ok(pb::NsReply::default());
    };
    if let Some(size) = inode.truncating_to
        && inode.truncate_version == op.truncate_version
    {
        inode.truncating_to = None;
        if inode.attr.inline {
            inline::spilled(tx, &mut inode);
        }
        inode.length_bound = inode.length_bound.min(size);
        tx.kv.delete(&keys::one(Tag::Truncating, inode.id()));
        tx.put_inode(&inode);
    }
    Ok(pb::NsReply { attr: Some(inode.attr), ..Default::default() })
}

/// Inode and version of every truncation that is not finished.
pub fn unfinished(kv: &dyn KvRead) -> Result<BTreeSet<(u64, u64)>, Status> {
    let keys = keys::all(kv, &[Tag::Truncating as u8]);
    let inodes = keys.filter_map(|(key, _)| keys::split(&key).map(|(inode, _)| inode));
    inodes.map(|id| Ok((id, inode::load(kv, id)?.truncate_version))).collect()
}

pub(super) fn list(kv: &dyn KvRead, op: &pb::ListTruncatingOp) -> Result<pb::NsReply, Status> {
    let (page, end) = length::page_after(kv, Tag::Truncating, op.after_inode, op.limit);
    let mut truncations = Vec::with_capacity(page.len());
    for (id, _) in page {
        truncations.push(describe(kv, &inode::load(kv, id)?));
    }
    Ok(pb::NsReply { truncations, end, ..Default::default() })
}
