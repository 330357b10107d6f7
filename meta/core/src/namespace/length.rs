//! How far chunks of a file may reach, and files whose length only the chains know.
//!
//! A length is in doubt when a writer's session expired (nobody will report what it wrote), when a
//! writer gave up on a write without an answer, or when a file was truncated under a writer of another
//! session (what that one reports may lie before the truncation). The leader's driver lists doubts,
//! asks the chains and answers with `RecoverLength`.

use bytes::Bytes;
use ff2_proto::{Status, limits as wire, pb, status::Code};
use prost::Message;

use super::{
    inode::{self, Inode, decode},
    keys::{self, Tag},
    limits, number, open,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// Whether chunks may lie further than anybody reported.
pub(super) fn uncertain(kv: &dyn KvRead, inode: &Inode) -> bool {
    // A chunk of an inline file is written by the driver only, while the file is unsettled. But what was restored
    // from a backup may be newer in the chains.
    if inode.attr.inline {
        return is_restored(kv, inode);
    }
    inode.writers > 0 || kv.get(&keys::one(Tag::Doubt, inode.id())).is_some()
}

/// Whether the inode is one of a backup that the volume was restored from.
fn is_restored(kv: &dyn KvRead, inode: &Inode) -> bool {
    let volume = kv.get(&keys::VOLUME).map(|value| decode::<pb::VolumeRecord>(&value));
    volume.and_then(Result::ok).is_some_and(|volume| {
        volume.restored_below != 0
            && number::count_of(volume.number_key, inode.id()) < volume.restored_below
    })
}

/// Whether a chunk may have bytes above `length`.
pub(super) fn chunks_above(kv: &dyn KvRead, inode: &Inode, length: u64) -> bool {
    inode.chunks_end() > length || uncertain(kv, inode)
}

/// Whether empty chunks, which cuts leave behind, may lie above all others. (The bytes of an inline file
/// that went to a chunk were a truncation too.)
pub(super) fn was_cut(inode: &Inode) -> bool {
    inode.truncate_version > 0
}

/// Somebody wrote up to `length`.
pub(super) fn grow(tx: &mut Tx<'_>, inode: &mut Inode, length: u64) -> Result<(), Status> {
    if length > wire::FILE_SIZE_MAX {
        return Err(Code::FileTooBig.into());
    }
    inode.length_bound = inode.length_bound.max(length);
    if length > inode.attr.size {
        tx.set_size(inode, length)?;
    }
    Ok(())
}

/// Somebody may have written up to `end`, and gave up waiting for the answer.
pub(super) fn attempted(tx: &mut Tx<'_>, inode: &mut Inode, end: u64) -> Result<(), Status> {
    if end > wire::FILE_SIZE_MAX {
        return Err(Code::FileTooBig.into());
    }
    if end > inode.attr.size {
        // Whatever the chains say now: the update may still arrive, and must be found by a removal.
        inode.attempted_end = inode.attempted_end.max(end);
        raise_doubt(tx, inode.id());
    }
    Ok(())
}

/// Puts the inode among those to ask about, or makes an answer that is on its way void.
pub(super) fn raise_doubt(tx: &mut Tx<'_>, inode: u64) {
    tx.volume.next_doubt += 1;
    let record = pb::LengthDoubtRecord { doubt: tx.volume.next_doubt };
    tx.kv.put(&keys::one(Tag::Doubt, inode), Bytes::from(record.encode_to_vec()));
}

pub(super) fn list_doubts(
    kv: &dyn KvRead,
    op: &pb::ListLengthDoubtsOp,
) -> Result<pb::NsReply, Status> {
    let (page, end) = page_after(kv, Tag::Doubt, op.after_inode, op.limit);
    let mut length_doubts = Vec::with_capacity(page.len());
    for (id, value) in page {
        let record: pb::LengthDoubtRecord = decode(&value)?;
        let inode = inode::load(kv, id)?;
        length_doubts.push(pb::LengthDoubt {
            inode: id,
            doubt: record.doubt,
            layout: inode.attr.layout,
            size: inode.attr.size,
        });
    }
    Ok(pb::NsReply { length_doubts, end, ..Default::default() })
}

/// The chains answered. Write sessions that were lost are over; so is the doubt.
pub(super) fn recover(tx: &mut Tx<'_>, op: &pb::RecoverLengthOp) -> Result<pb::NsReply, Status> {
    let Some(mut inode) = inode::find(&tx.kv, op.inode)? else {
        return Ok(pb::NsReply::default());
    };
    inode.settled()?;
    let key = keys::one(Tag::Doubt, op.inode);
    let doubt = tx.kv.get(&key).map(|bytes| decode::<pb::LengthDoubtRecord>(&bytes)).transpose()?;
    if doubt.is_some_and(|record| record.doubt == op.doubt) {
        let before = (inode.attr.size, inode.writers);
        // A chunk beyond the largest size cannot be: chunk numbers end there.
        grow(tx, &mut inode, op.length.min(wire::FILE_SIZE_MAX))?;
        tx.kv.delete(&key);
        open::drop_writers(tx, &mut inode, |writer| writer.lost)?;
        // A lost writer may have written below the known size: caches of that content are void.
        if (inode.attr.size, inode.writers) != before {
            inode.modified(tx.now_ns);
        }
        tx.put_inode(&inode);
    }
    Ok(pb::NsReply { attr: Some(inode.attr), ..Default::default() })
}

/// A page of keys `tag number` above `after`: numbers and values, and whether it is the last.
pub(super) fn page_after(
    kv: &dyn KvRead,
    tag: Tag,
    after: u64,
    limit: u32,
) -> (Vec<(u64, Bytes)>, bool) {
    let limit = match limit {
        0 => limits::LIST_PAGE_MAX,
        limit => limit.min(limits::LIST_PAGE_MAX),
    } as usize;
    let from = keys::one(tag, after.saturating_add(1));
    let pairs = kv.scan(&from, &[tag as u8 + 1], limit + 1);
    let end = pairs.len() <= limit;
    let page = pairs
        .into_iter()
        .take(limit)
        .filter_map(|(key, value)| Some((keys::split(&key)?.0, value)))
        .collect();
    (page, end)
}
