//! Entries go for good, the oldest first, in steps: others come between.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};

use super::{Inode, Tx, decode, forget, keys, record, sums};
use crate::{
    kv::KvRead,
    namespace::{inode, keys::Tag, limits, orphans},
};

pub(in crate::namespace) fn empty(
    tx: &mut Tx<'_>,
    op: &pb::EmptyTrashOp,
) -> Result<pb::NsReply, Status> {
    let limit = (op.limit as usize).clamp(1, limits::TRASH_STEP_MAX);
    let (from, to) = (keys::one(Tag::Trash, 0), keys::end_of(&[Tag::Trash as u8]));
    let page: Vec<(Bytes, Bytes)> = tx.kv.scan(&from, &to, limit + 1);
    let (mut taken, mut end) = (0, page.len() <= limit);
    for (_, value) in page.iter().take(limit) {
        let record: pb::TrashRecord = decode(value)?;
        if record.removed_ns > op.removed_by_ns {
            // Those behind it were removed later.
            end = true;
            break;
        }
        let mut inode = inode::load(&tx.kv, record.inode)?;
        give_up(tx, &mut inode)?;
        tx.put_inode(&inode);
        taken += 1;
    }
    Ok(pb::NsReply {
        trash_emptied: taken,
        trash_sums: Some(sums(&tx.volume)),
        end,
        ..Default::default()
    })
}

/// It becomes the orphan that it would have been. The caller stores it.
pub(super) fn give_up(tx: &mut Tx<'_>, inode: &mut Inode) -> Result<(), Status> {
    if inode.trash == 0 {
        return Err(Status::new(Code::Corrupt, "an entry of an inode that is not in the trash"));
    }
    let record = record(&tx.kv, inode)?;
    forget(tx, inode, &record);
    orphans::add(tx, inode, false);
    Ok(())
}
