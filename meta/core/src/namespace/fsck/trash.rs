//! The trash: each entry has its inode, each inode in it has its entry, and users have theirs.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;

use super::{Problem, count, numbered, raw, record, twice_numbered};
use crate::{
    kv::KvRead,
    namespace::{inode::Inode, keys::Tag},
};

pub(super) fn check(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    inodes: &BTreeMap<u64, Inode>,
    problems: &mut Vec<Problem>,
) {
    let mut of_users: BTreeSet<(u64, u64)> =
        twice_numbered(kv, Tag::TrashOfUser, raw, problems).into_keys().collect();
    let mut entries = BTreeMap::new();
    let (mut files, mut bytes) = (0, 0_u64);
    for (entry, _, record) in numbered(kv, Tag::Trash, record::<pb::TrashRecord>, problems) {
        let mut wrong = |what| problems.push(Problem::Inode { inode: record.inode, what });
        if entry > volume.next_trash {
            wrong("is in the trash as an entry that was not given out");
        }
        match inodes.get(&record.inode) {
            Some(inode) if inode.attr.nlink == 0 && inode.trash == entry => {
                let is_listed = of_users.remove(&(record.removed_by.into(), entry));
                if is_listed != inode.is_regular() {
                    wrong("is in the trash but not among its user's, or the other way");
                }
                if inode.is_regular() {
                    files += 1;
                    bytes = bytes.wrapping_add(inode.attr.size);
                } else if !inode.is_dir() {
                    wrong("is in the trash but neither a file nor a folder");
                }
            }
            Some(_) | None => wrong("has an entry in the trash but is not there"),
        }
        entries.insert(entry, record.inode);
    }
    for (&id, inode) in inodes.iter().filter(|(_, inode)| inode.trash > 0) {
        if entries.get(&inode.trash) != Some(&id) {
            problems.push(Problem::Inode { inode: id, what: "is in the trash without an entry" });
        }
    }
    count("entries of users in the trash that are none", 0, of_users.len() as u64, problems);
    count("files in the trash", volume.trash_entries, files, problems);
    count("bytes in the trash", volume.trash_bytes, bytes, problems);
}
