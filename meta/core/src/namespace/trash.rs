//! The trash: removed files, kept for a while so that they can be had back (`ff2ctl trash`).
//!
//! While it is on, a regular file that loses its last name does not become an orphan: it gets an *entry*, a
//! number that grows with each removal, and its inode says which. A removed folder is kept too, so that a
//! file can go back to where it was; it is no entry that anybody sees. All else is as with an orphan: there
//! are no names, whoever has it open goes on, and no quota counts it. An entry ends in one of two ways: the
//! inode gets a name again (`restore`), or it becomes the orphan that it would have been (`empty`), and the
//! leader's collector does the rest.
//!
//! - `folder`: what users see of it, `/.trash`, is made up from the entries.
//! - `list`: entries with the paths that they had.

mod empty;
pub(super) mod folder;
mod list;
mod path;
mod restore;

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inode::{Inode, decode},
    keys::{self, Tag},
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

pub(super) use empty::empty;
pub(super) use list::list;
pub(super) use restore::{restore, touched};

/// The level of a cluster whose programs all know the trash.
const LEVEL: u32 = 2;

/// The name that an inode lost.
#[derive(Clone, Copy)]
pub(super) struct Lost<'a> {
    pub(super) parent: u64,
    pub(super) name: &'a [u8],
}

/// Keeps an inode that lost its last name, if it is of a kind that is kept. The caller stores it.
pub(super) fn keep(tx: &mut Tx<'_>, inode: &mut Inode, lost: Lost<'_>) -> bool {
    assert!(inode.attr.nlink == 0 && inode.trash == 0, "it lost its last name just now");
    if tx.volume.trash_keep_s == 0 || !(inode.is_regular() || inode.is_dir()) {
        return false;
    }
    tx.volume.next_trash += 1;
    let entry = tx.volume.next_trash;
    inode.trash = entry;
    let record = pb::TrashRecord {
        inode: inode.id(),
        removed_by: tx.cred.uid,
        removed_ns: tx.now_ns,
        parent: lost.parent,
        name: Bytes::copy_from_slice(lost.name),
    };
    tx.kv.put(&keys::one(Tag::Trash, entry), Bytes::from(record.encode_to_vec()));
    if inode.is_regular() {
        let of_user = keys::two(Tag::TrashOfUser, record.removed_by.into(), entry);
        tx.kv.put(&of_user, Bytes::new());
        tx.volume.trash_entries += 1;
        tx.volume.trash_bytes = tx.volume.trash_bytes.wrapping_add(inode.attr.size);
    }
    true
}

/// It is in the trash no more. The caller stores the inode, and says what it is now.
fn forget(tx: &mut Tx<'_>, inode: &mut Inode, record: &pb::TrashRecord) {
    let entry = std::mem::take(&mut inode.trash);
    assert!(entry > 0 && record.inode == inode.id(), "an entry is of its inode");
    tx.kv.delete(&keys::one(Tag::Trash, entry));
    if inode.is_regular() {
        tx.kv.delete(&keys::two(Tag::TrashOfUser, record.removed_by.into(), entry));
        tx.volume.trash_entries -= 1;
        tx.volume.trash_bytes = tx.volume.trash_bytes.wrapping_sub(inode.attr.size);
    }
}

fn find(kv: &dyn KvRead, entry: u64) -> Result<Option<pb::TrashRecord>, Status> {
    kv.get(&keys::one(Tag::Trash, entry)).map(|bytes| decode(&bytes)).transpose()
}

/// The next step of emptying it: the time of removal of the last entry that should go with the oldest ones, if any was
/// removed by `by_ns`. Times are nanoseconds of the leader's clock.
pub fn next_to_go(kv: &dyn KvRead, by_ns: i64, limit: usize) -> Result<Option<i64>, Status> {
    let (from, to) = (keys::one(Tag::Trash, 0), keys::end_of(&[Tag::Trash as u8]));
    let mut last = None;
    for (_, value) in kv.scan(&from, &to, limit) {
        let removed_ns = decode::<pb::TrashRecord>(&value)?.removed_ns;
        if removed_ns > by_ns {
            break;
        }
        last = last.max(Some(removed_ns));
    }
    Ok(last)
}

/// Where an inode that is in the trash was.
fn record(kv: &dyn KvRead, inode: &Inode) -> Result<pb::TrashRecord, Status> {
    find(kv, inode.trash)?
        .ok_or_else(|| Status::new(Code::Corrupt, "an inode in the trash that has no entry"))
}

/// Whoever opens a file in the trash does so by its name there: it is none that is about to go.
pub(super) fn opened(inode: &Inode) -> pb::Attr {
    let nlink = if inode.trash > 0 { 1 } else { inode.attr.nlink };
    pb::Attr { nlink, ..inode.attr }
}

/// For how long what is removed is kept.
pub(super) fn set(tx: &mut Tx<'_>, op: &pb::SetTrashOp) -> Result<pb::NsReply, Status> {
    tx.require_level(LEVEL, "the trash")?;
    if op.keep_s > super::limits::TRASH_KEEP_S_MAX {
        let days = super::limits::TRASH_KEEP_S_MAX / 86_400;
        let why = format!("the trash keeps what is removed for at most {days} days");
        return Err(Status::new(Code::InvalidArgument, why));
    }
    if op.keep_s == tx.volume.trash_keep_s {
        return Ok(pb::NsReply { trash_sums: Some(sums(&tx.volume)), ..Default::default() });
    }
    tx.volume.trash_keep_s = op.keep_s;
    if op.keep_s > 0 {
        tx.volume.trash_kept_s = op.keep_s;
    }
    // It shows in the root, or does not any more.
    let mut root = super::inode::load(&tx.kv, ff2_proto::ROOT_INODE.0)?;
    root.changed(tx.now_ns);
    tx.put_inode(&root);
    Ok(pb::NsReply { trash_sums: Some(sums(&tx.volume)), ..Default::default() })
}

fn sums(volume: &pb::VolumeRecord) -> pb::TrashSums {
    pb::TrashSums {
        keep_s: volume.trash_keep_s,
        kept_s: volume.trash_kept_s,
        entries: volume.trash_entries,
        bytes: volume.trash_bytes,
    }
}

/// When what was removed then goes.
fn goes_ns(volume: &pb::VolumeRecord, removed_ns: i64) -> i64 {
    let kept_ns = i64::try_from(volume.trash_kept_s.saturating_mul(1_000_000_000));
    removed_ns.saturating_add(kept_ns.unwrap_or(i64::MAX))
}
