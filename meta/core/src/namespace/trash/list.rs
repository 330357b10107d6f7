//! What is in the trash, page by page.

use bytes::Bytes;
use ff2_proto::{Status, pb};

use super::{decode, goes_ns, keys, path::Paths, sums};
use crate::{
    kv::KvRead,
    namespace::{inode, keys::Tag, limits, tx},
};

pub(in crate::namespace) fn list(
    kv: &dyn KvRead,
    op: &pb::ListTrashOp,
) -> Result<pb::NsReply, Status> {
    let volume = tx::volume(kv)?;
    let mut reply = pb::NsReply { trash_sums: Some(sums(&volume)), ..Default::default() };
    let limit = op.limit.min(limits::LIST_PAGE_MAX) as usize;
    if limit == 0 {
        return Ok(reply);
    }
    let from = keys::one(Tag::Trash, op.after.saturating_add(1));
    let to = keys::end_of(&[Tag::Trash as u8]);
    let page = kv.scan(&from, &to, limit + 1);
    reply.end = page.len() <= limit;
    reply.trash_after = op.after;
    let mut paths = Paths::default();
    for (key, value) in page.iter().take(limit) {
        let record: pb::TrashRecord = decode(value)?;
        let inode = inode::load(kv, record.inode)?;
        reply.trash_after = keys::split(key).map_or(op.after, |(entry, _)| entry);
        if !inode.is_regular() {
            continue;
        }
        let path = paths.of(kv, record.parent, &record.name)?;
        if !is_under(&path, &op.under) {
            continue;
        }
        reply.trash.push(pb::TrashEntry {
            entry: reply.trash_after,
            inode: record.inode,
            path,
            removed_by: record.removed_by,
            removed_ns: record.removed_ns,
            goes_ns: goes_ns(&volume, record.removed_ns),
            size: inode.attr.size,
            owner: inode.attr.uid,
        });
    }
    Ok(reply)
}

/// Whether a path is of something in `folder`, or below. A slash at the end of the folder says nothing.
fn is_under(path: &Bytes, folder: &[u8]) -> bool {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let path = Bytes::from_static(b"/a/b/c");
        for folder in ["", "/", "/a", "/a/", "/a/b"] {
            assert!(is_under(&path, folder.as_bytes()), "{folder}");
        }
        for other in ["/a/b/c", "/a/b/c/", "/b", "/a/b/cd", "a"] {
            assert!(!is_under(&path, other.as_bytes()), "{other}");
        }
    }
}
