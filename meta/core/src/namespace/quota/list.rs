//! Which quotas there are, and what they leave.

use ff2_proto::{Status, pb};

use super::{Inode, Key, Tx, account::counting, chain, decode, find, limits};
use crate::{
    kv::KvRead,
    namespace::{inode, keys::Tag, trash, tx},
};

pub(super) fn told(key: Key, record: &pb::QuotaRecord) -> pb::Quota {
    let pb::QuotaRecord { bytes_max, inodes_max, bytes, inodes, above, .. } = *record;
    pb::Quota {
        key: Some(key.told()),
        bytes_max,
        inodes_max,
        bytes,
        inodes,
        above,
        counting: record.counting,
        counted: record.counted,
        ending: record.ending,
        path: record.path.clone(),
    }
}

pub(in crate::namespace) fn list(
    kv: &dyn KvRead,
    op: &pb::ListQuotasOp,
) -> Result<pb::NsReply, Status> {
    if let Some(key) = &op.applying_to {
        let quotas = applying_to(kv, Key::parse(Some(key))?)?;
        return Ok(pb::NsReply { quotas, end: true, ..Default::default() });
    }
    let volume = tx::volume(kv)?;
    // Asked by the leader from moment to moment.
    if volume.quotas == 0 || (op.counting && volume.counts == 0) {
        return Ok(pb::NsReply { end: true, ..Default::default() });
    }
    let limit = match op.limit {
        0 => limits::LIST_PAGE_MAX,
        limit => limit.min(limits::LIST_PAGE_MAX),
    } as usize;
    let mut from = match &op.after {
        Some(after) => [&Key::parse(Some(after))?.stored()[..], &[0]].concat(),
        None => vec![Tag::Quota as u8],
    };
    let mut quotas = Vec::new();
    for tag in [Tag::Quota, Tag::OwnerQuota] {
        from = from.max(vec![tag as u8]);
        while quotas.len() <= limit {
            let page = kv.scan(&from, &[tag as u8 + 1], limits::SCAN_PAGE);
            for (stored, value) in &page {
                let record: pb::QuotaRecord = decode(value)?;
                // Of one that has ended only what it still counts is left.
                let is_shown = if op.counting { record.counting } else { !is_over(&record) };
                if let Some(key) = Key::of_stored(stored).filter(|_| is_shown) {
                    quotas.push(told(key, &record));
                }
                from = [&stored[..], &[0]].concat();
            }
            if page.len() < limits::SCAN_PAGE {
                break;
            }
        }
    }
    let end = quotas.len() <= limit;
    quotas.truncate(limit);
    Ok(pb::NsReply { quotas, end, ..Default::default() })
}

fn is_over(record: &pb::QuotaRecord) -> bool {
    record.ending && !record.counting
}

fn applying_to(kv: &dyn KvRead, key: Key) -> Result<Vec<pb::Quota>, Status> {
    let records = match key {
        Key::Folder(id) => {
            let chain = chain(kv, inode::load(kv, id)?.attr.quota)?;
            chain.into_iter().map(|(root, record)| (Key::Folder(root), record)).collect()
        }
        Key::User(_) | Key::Group(_) => {
            find(kv, key)?.map(|record| (key, record)).into_iter().collect::<Vec<_>>()
        }
    };
    let live = records.into_iter().filter(|(_, record)| !is_over(record));
    Ok(live.map(|(key, record)| told(key, &record)).collect())
}

/// What is left for an inode and its like: of the same folder and owners. `None`: there is no limit.
pub(in crate::namespace) fn room(
    tx: &Tx<'_>,
    inode: &Inode,
) -> Result<Option<pb::QuotaRoom>, Status> {
    let mut room = pb::QuotaRoom::default();
    for (_, record) in counting(tx, inode)? {
        room.inodes = narrower(room.inodes, record.inodes_max, record.inodes);
        room.bytes = narrower(room.bytes, record.bytes_max, record.bytes);
    }
    Ok(Some(room).filter(|room| room.inodes.is_some() || room.bytes.is_some()))
}

fn narrower(before: Option<u64>, max: Option<u64>, used: u64) -> Option<u64> {
    let left = max.map(|max| max.saturating_sub(used));
    match (before, left) {
        (Some(before), Some(left)) => Some(before.min(left)),
        (before, left) => before.or(left),
    }
}

/// What there is in the volume, or (of what limits it most) in the folder's quota. Capacity and free space
/// are the cluster's, so the driver adds them.
pub(in crate::namespace) fn stat_fs(kv: &dyn KvRead, id: u64) -> Result<pb::NsReply, Status> {
    let volume = tx::volume(kv)?;
    let mut statfs =
        pb::StatFs { inodes_used: volume.inodes, bytes_used: volume.bytes, ..Default::default() };
    let mut quota_room = None;
    if id != 0 && volume.quotas > 0 && !trash::folder::is_folder(id) {
        let inode = inode::load(kv, id)?;
        let records = chain(kv, inode.attr.quota)?;
        let left = |max: u64, used: u64| max.saturating_sub(used);
        let bytes = records.iter().filter_map(|(_, r)| Some((r.bytes_max?, r.bytes)));
        if let Some((max, used)) = bytes.min_by_key(|(max, used)| left(*max, *used)) {
            (statfs.bytes_max, statfs.bytes_used) = (Some(max), used);
        }
        let inodes = records.iter().filter_map(|(_, r)| Some((r.inodes_max?, r.inodes)));
        if let Some((max, used)) = inodes.min_by_key(|(max, used)| left(*max, *used)) {
            (statfs.inodes_max, statfs.inodes_used) = (Some(max), used);
        }
        let (command, request) = (pb::NsCommand::default(), pb::NsRequest::default());
        quota_room = room(&Tx::new(kv, &command, &request)?, &inode)?;
    }
    Ok(pb::NsReply { statfs: Some(statfs), quota_room, ..Default::default() })
}

/// A room is told with each answer to a change that shows an inode, where there is any quota.
pub(in crate::namespace) fn add_room(tx: &Tx<'_>, reply: &mut pb::NsReply) -> Result<(), Status> {
    let Some(attr) = &reply.attr else { return Ok(()) };
    if attr.quota == 0 && tx.volume.owner_quotas == 0 {
        return Ok(());
    }
    let inode = Inode { attr: *attr, ..tx::blank(attr.inode, attr.kind(), 0) };
    reply.quota_room = room(tx, &inode)?;
    Ok(())
}
