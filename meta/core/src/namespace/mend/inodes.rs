//! What inodes count, and where directories hang.

use std::collections::BTreeSet;

use ff2_proto::{ROOT_INODE, Status, pb};

use super::{
    Outcome, given, is_listed_orphan,
    lost::{links, take_in},
    names::{stored, take_out},
};
use crate::{
    kv::KvRead,
    namespace::{
        inode::{self, Inode},
        quota,
        tx::Tx,
    },
};

/// An inode as its names have it.
pub(super) fn counts(tx: &mut Tx<'_>, op: &pb::MendInode) -> Outcome {
    let is_as_found = |inode: &Inode| inode.attr.version == op.version;
    let Some(before) = inode::find(&tx.kv, op.inode)?.filter(is_as_found) else { return Ok(None) };
    // The collector, or who empties the trash, goes on with those.
    if before.trash > 0 || is_listed_orphan(&tx.kv, op.inode) {
        return Ok(None);
    }
    let mut inode = before.clone();
    let mut done = Vec::new();
    let is_lost = op.names == 0 && op.inode != ROOT_INODE.0;
    if inode.is_dir() {
        directory(tx, op, &mut inode, &mut done)?;
    } else {
        inode.attr.nlink = u32::try_from(op.names).unwrap_or(u32::MAX).max(1);
        if inode.attr.nlink != before.attr.nlink && !is_lost {
            done.push(format!("counted {} names, there are {}", before.attr.nlink, op.names));
        }
    }
    if is_lost {
        if !quota::is_counted(&before) {
            quota::add(tx, &inode)?;
        }
        let path = take_in(tx, &mut inode)?;
        done.push(format!("had no name, and is {path} now"));
    } else if !quota::is_counted(&before) && inode != before {
        quota::add(tx, &inode)?;
    }
    if done.is_empty() {
        return Ok(None);
    }
    inode.changed(tx.now_ns);
    tx.put_inode(&inode);
    Ok(Some(format!("inode {} {}", op.inode, done.join("; "))))
}

fn directory(
    tx: &Tx<'_>,
    op: &pb::MendInode,
    inode: &mut Inode,
    done: &mut Vec<String>,
) -> Result<(), Status> {
    let has = given(op.has.as_ref())?;
    if inode.entries != has.entries {
        done.push(format!("counted {} entries, there are {}", inode.entries, has.entries));
        inode.entries = has.entries;
    }
    if inode.attr.nlink != links(has) {
        let counted = inode.attr.nlink;
        done.push(format!("counted {counted} links of a directory, there are {}", links(has)));
        inode.attr.nlink = links(has);
    }
    if inode.next_cookie < has.next_cookie {
        done.push("gave cookies out twice".to_owned());
        inode.next_cookie = has.next_cookie;
    }
    if let Some(place) = op.place.as_ref().filter(|place| place.parent != inode.parent)
        && op.inode != ROOT_INODE.0
        && stored(&tx.kv, place)?.is_some_and(|entry| entry.inode == op.inode)
    {
        done.push(format!("said {} for the directory above, it is {}", inode.parent, place.parent));
        inode.parent = place.parent;
    }
    Ok(())
}

/// A directory that is in one that is in it: nobody reaches either.
pub(super) fn circle(tx: &mut Tx<'_>, op: &pb::MendCircle) -> Outcome {
    let place = given(op.place.as_ref())?;
    let Some(inode) = inode::find(&tx.kv, op.inode)?.filter(Inode::is_dir) else { return Ok(None) };
    let entry = stored(&tx.kv, place)?.filter(|entry| entry.inode == op.inode);
    let Some(entry) = entry.filter(|_| inode.parent == place.parent) else { return Ok(None) };
    if !is_in_itself(&tx.kv, &inode)? {
        return Ok(None);
    }
    take_out(tx, place, &entry)?;
    // It may have been in itself.
    let mut inode = inode::load(&tx.kv, op.inode)?;
    let path = take_in(tx, &mut inode)?;
    inode.changed(tx.now_ns);
    tx.put_inode(&inode);
    Ok(Some(format!("directory {} hung in itself, and is {path} now", op.inode)))
}

fn is_in_itself(kv: &dyn KvRead, inode: &Inode) -> Result<bool, Status> {
    let mut passed = BTreeSet::new();
    let mut at = inode.parent;
    while at != ROOT_INODE.0 && passed.insert(at) {
        if at == inode.id() {
            return Ok(true);
        }
        match inode::find(kv, at)? {
            Some(above) => at = above.parent,
            None => return Ok(false),
        }
    }
    Ok(false)
}
