//! Small files: their bytes lie beside the inode until the file grows beyond what is worth it, and
//! then move to the first chunk (`SpillOp`). A file that has left never comes back, so a client that
//! knows of chunks is right for ever.

use bytes::Bytes;
use ff2_proto::{Status, limits as wire, pb, status::Code};

use super::{
    close,
    inode::{self, Inode},
    keys::{self, Tag},
    truncate,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// The bytes of an inline file. They may be fewer than its size: the rest is a hole.
pub(super) fn data(kv: &dyn KvRead, inode: u64) -> Bytes {
    kv.get(&keys::one(Tag::Inline, inode)).unwrap_or_default()
}

/// Who asks has shown the grant of an open.
pub(super) fn read(kv: &dyn KvRead, op: &pb::ReadInlineOp) -> Result<pb::NsReply, Status> {
    let inode = inode::load(kv, op.inode)?;
    inode.settled()?;
    let inline_data = if inode.attr.inline { data(kv, op.inode) } else { Bytes::new() };
    Ok(pb::NsReply { attr: Some(inode.attr), inline_data, ..Default::default() })
}

/// Takes writes in. The caller stores the inode.
pub(super) fn write(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    writes: &[pb::InlineWrite],
) -> Result<(), Status> {
    assert!(inode.attr.inline, "the caller looked");
    if writes.is_empty() {
        return Ok(());
    }
    let mut bytes = data(&tx.kv, inode.id()).to_vec();
    for write in writes {
        let start = write.offset as usize;
        let end = start.saturating_add(write.bytes.len());
        if end > wire::INLINE_BYTES_MAX as usize {
            let why = format!("an inline file has at most {} bytes", wire::INLINE_BYTES_MAX);
            return Err(Status::new(Code::InvalidArgument, why));
        }
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(&write.bytes);
    }
    if bytes.len() as u64 > inode.attr.size {
        tx.set_size(inode, bytes.len() as u64)?;
    }
    tx.kv.put(&keys::one(Tag::Inline, inode.id()), Bytes::from(bytes));
    Ok(())
}

/// Drops the bytes above a new size.
pub(super) fn cut(tx: &mut Tx<'_>, inode: &Inode, size: u64) {
    let bytes = data(&tx.kv, inode.id());
    let key = keys::one(Tag::Inline, inode.id());
    match usize::try_from(size) {
        Ok(0) => tx.kv.delete(&key),
        Ok(size) if size < bytes.len() => tx.kv.put(&key, bytes.slice(..size)),
        Ok(_) | Err(_) => {}
    }
}

/// A file without bytes becomes one of chunks at once. Others wait until the leader's driver has
/// written the first chunk and says so; nobody looks at the inode meanwhile.
pub(super) fn spill(tx: &mut Tx<'_>, op: &pb::SpillOp) -> Result<pb::NsReply, Status> {
    let (mut inode, _) = close::writing(tx, op.inode)?;
    let mut truncation = None;
    if inode.attr.inline {
        inode.changed(tx.now_ns);
        let has_bytes = !data(&tx.kv, op.inode).is_empty();
        if has_bytes {
            let size = inode.attr.size;
            truncate::unsettle(tx, &mut inode, size);
            truncation = Some(truncate::describe(&tx.kv, &inode));
        } else {
            inode.attr.inline = false;
        }
        tx.put_inode(&inode);
    }
    // The answer leaves when it is so.
    let attr = Some(pb::Attr { inline: false, ..inode.attr });
    Ok(pb::NsReply { attr, truncation, ..Default::default() })
}

/// The first chunk holds the bytes. The caller stores the inode.
pub(super) fn spilled(tx: &mut Tx<'_>, inode: &mut Inode) {
    let length = data(&tx.kv, inode.id()).len() as u64;
    inode.attr.inline = false;
    inode.length_bound = inode.length_bound.max(length);
    inode.changed(tx.now_ns);
    tx.kv.delete(&keys::one(Tag::Inline, inode.id()));
}
