//! Quotas come, change and go.

use ff2_proto::{Status, limits as wire, pb, status::Code};

use super::{
    Inode, Key, Tx, chain, count, decode, find, is_root, keys, limits,
    list::told,
    place::{move_root, transfer},
    put,
};
use crate::{
    kv::{Kv, KvRead},
    namespace::{inode, keys::Tag},
};

pub(in crate::namespace) fn set(
    tx: &mut Tx<'_>,
    op: &pb::SetQuotaOp,
) -> Result<pb::NsReply, Status> {
    let key = Key::parse(op.key.as_ref())?;
    if op.path.len() > wire::PATH_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    let before = find(&tx.kv, key)?;
    if before.as_ref().is_some_and(|record| record.ending && record.counting) {
        let why = "its quota was removed a moment ago, and that is not done yet: try again soon";
        return Err(Status::new(Code::InvalidArgument, why));
    }
    if before.as_ref().is_none_or(|record| record.ending) {
        begin(tx, key, before)?;
    }
    let Some(mut record) = find(&tx.kv, key)? else {
        return Err(Status::new(Code::Corrupt, "a quota that was just made is gone"));
    };
    if let Some(limit) = &op.bytes {
        record.bytes_max = limit.max;
    }
    if let Some(limit) = &op.inodes {
        record.inodes_max = limit.max;
    }
    if !op.path.is_empty() {
        record.path = op.path.clone();
    }
    put(tx, key, &record);
    Ok(pb::NsReply { quotas: vec![told(key, &record)], ..Default::default() })
}

/// There is a quota from now on, of which nothing is counted yet but what is told here.
fn begin(tx: &mut Tx<'_>, key: Key, left: Option<pb::QuotaRecord>) -> Result<(), Status> {
    if left.is_none() && tx.volume.quotas >= limits::QUOTAS_MAX {
        let why = format!("a volume has at most {} quotas", limits::QUOTAS_MAX);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    tx.volume.quotas += u64::from(left.is_none());
    match key {
        Key::Folder(id) => begin_folder(tx, id, left),
        Key::User(0) | Key::Group(0) => {
            Err(Status::new(Code::InvalidArgument, "root has no quota"))
        }
        Key::User(_) | Key::Group(_) => {
            tx.volume.owner_quotas += 1;
            tx.volume.counts += 1;
            put(tx, key, &pb::QuotaRecord { counting: true, ..Default::default() });
            Ok(())
        }
    }
}

fn begin_folder(tx: &mut Tx<'_>, id: u64, left: Option<pb::QuotaRecord>) -> Result<(), Status> {
    let mut folder = inode::load_dir(&tx.kv, id)?;
    if folder.attr.nlink == 0 {
        return Err(Status::new(Code::NotFound, "the folder was removed"));
    }
    let above = folder.attr.quota;
    let depth = chain(&tx.kv, above)?.len() + 1 + depth_below(&tx.kv, above)?.saturating_sub(1);
    if depth > limits::QUOTA_DEPTH_MAX {
        let why = format!("quotas are nested at most {} deep", limits::QUOTA_DEPTH_MAX);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    match left {
        // Of an earlier quota of this folder, which still counts a file that has its names elsewhere.
        Some(record) => {
            put(tx, Key::Folder(id), &pb::QuotaRecord { ending: false, ..record });
            move_root(tx, id, above, false)?;
        }
        None => put(tx, Key::Folder(id), &pb::QuotaRecord { above, ..Default::default() }),
    }
    relabel(tx, &mut folder, id)
}

/// The folder itself comes to another root, and all that is in it does from now on.
fn relabel(tx: &mut Tx<'_>, folder: &mut Inode, root: u64) -> Result<(), Status> {
    let id = folder.id();
    transfer(tx, folder, root, false)?;
    folder.attr.version += 1;
    tx.put_inode(folder);
    if folder.entries > 0 {
        count::begin(tx, id)?;
    }
    Ok(())
}

/// What is not there, or ends already, is passed over.
pub(in crate::namespace) fn remove(
    tx: &mut Tx<'_>,
    op: &pb::RemoveQuotaOp,
) -> Result<pb::NsReply, Status> {
    let key = Key::parse(op.key.as_ref())?;
    let Some(mut record) = find(&tx.kv, key)?.filter(|record| !record.ending) else {
        return Ok(pb::NsReply::default());
    };
    let Key::Folder(id) = key else {
        tx.kv.delete(&key.stored());
        tx.volume.quotas -= 1;
        tx.volume.owner_quotas -= 1;
        tx.volume.counts -= u64::from(record.counting);
        return Ok(pb::NsReply::default());
    };
    if record.counting {
        let why = "its folder is still being counted: remove it when that is done";
        return Err(Status::new(Code::InvalidArgument, why));
    }
    let mut folder = inode::load_dir(&tx.kv, id)?;
    assert!(is_root(&folder), "a quota that goes on has its folder");
    record.ending = true;
    (record.bytes_max, record.inodes_max) = (None, None);
    put(tx, key, &record);
    relabel(tx, &mut folder, record.above)?;
    Ok(pb::NsReply::default())
}

/// How many quotas lie below a root at most, one below the other, itself included; 0: of the whole volume. It
/// may say more than there are: those beside are looked at as well, if they are below the same.
pub(super) fn depth_below(kv: &dyn KvRead, root: u64) -> Result<usize, Status> {
    let mut deepest = 1;
    for (key, value) in keys::all(kv, &[Tag::Quota as u8]) {
        let record: pb::QuotaRecord = decode(&value)?;
        let Some((id, _)) = keys::split(&key) else { continue };
        if record.ending && !record.counting {
            continue;
        }
        let chain = chain(kv, id)?;
        let place = chain.iter().position(|(at, _)| *at == root);
        let below = if root == 0 { Some(chain.len()) } else { place };
        deepest = deepest.max(below.map_or(0, |below| below + 1));
    }
    Ok(deepest)
}
