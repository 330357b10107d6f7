//! A file gets a name again: for an administrator the one that it had, with the folders that are missing,
//! or another one; for a user by a rename out of [`super::folder`].

use ff2_proto::{ROOT_INODE, Status, limits as wire, pb, status::Code};

use super::{Inode, Tx, find, forget, goes_ns, path::Paths, record};
use crate::{
    kv::KvRead,
    namespace::{dir, inode, limits, quota},
};

pub(in crate::namespace) fn restore(
    tx: &mut Tx<'_>,
    op: &pb::RestoreTrashOp,
) -> Result<pb::NsReply, Status> {
    let gone = || Status::new(Code::NotFound, format!("there is no entry {}", op.entry));
    let record = find(&tx.kv, op.entry)?.ok_or_else(gone)?;
    let mut inode = inode::load(&tx.kv, record.inode)?;
    if !inode.is_regular() {
        return Err(gone());
    }
    inode.settled()?;
    let (mut folder, name) = if op.path.is_empty() {
        (folder_it_was_in(tx, record.parent)?, record.name.clone())
    } else {
        let (folder, name) = named(&tx.kv, &op.path)?;
        (folder, bytes::Bytes::copy_from_slice(name))
    };
    if dir::lookup(&tx.kv, &folder, &name)?.is_some() {
        let why = "something has that name: say where to with --to PATH";
        return Err(Status::new(Code::Exists, why));
    }
    give_name(tx, &mut inode, &mut folder, &name)?;
    tx.put_inode(&folder);
    tx.put_inode(&inode);
    let entry = pb::TrashEntry {
        entry: op.entry,
        inode: inode.id(),
        path: Paths::default().of(&tx.kv, folder.id(), &name)?,
        removed_by: record.removed_by,
        removed_ns: record.removed_ns,
        goes_ns: goes_ns(&tx.volume, record.removed_ns),
        size: inode.attr.size,
        owner: inode.attr.uid,
    };
    Ok(pb::NsReply {
        attr: Some(inode.attr),
        parent_attr: Some(folder.attr),
        trash: vec![entry],
        ..Default::default()
    })
}

/// The inodes that a restore changes.
pub(in crate::namespace) fn touched(kv: &dyn KvRead, op: &pb::RestoreTrashOp) -> Vec<u64> {
    // What cannot be read is said when it is applied.
    let Ok(Some(record)) = find(kv, op.entry) else { return Vec::new() };
    let mut touched = vec![record.inode];
    if !op.path.is_empty() {
        touched.extend(named(kv, &op.path).ok().map(|(folder, _)| folder.id()));
        return touched;
    }
    let Ok((way, base)) = way_up(kv, record.parent) else { return touched };
    touched.extend(way.iter().map(|(inode, _)| inode.id()));
    let mut at = Some(base);
    // Those that are there under the old name are used instead.
    for (_, record) in way.iter().rev() {
        let Some(folder) = at else { break };
        touched.push(folder.id());
        at = taken(kv, &folder, &record.name).ok().flatten();
    }
    touched.extend(at.map(|folder| folder.id()));
    touched
}

/// It is in the trash no more, and has this name, if the quotas there have room. The caller stores both.
pub(super) fn give_name(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    folder: &mut Inode,
    name: &[u8],
) -> Result<(), Status> {
    let record = record(&tx.kv, inode)?;
    quota::returns(tx, inode, folder)?;
    forget(tx, inode, &record);
    inode.attr.nlink = if inode.is_dir() { 2 } else { 1 };
    if inode.is_dir() {
        inode.parent = folder.id();
    }
    inode.changed(tx.now_ns);
    dir::insert(tx, folder, name, inode);
    Ok(())
}

/// Removed folders from the lowest on, with their entries, and the one above them that is there.
type Way = (Vec<(Inode, pb::TrashRecord)>, Inode);

fn way_up(kv: &dyn KvRead, folder: u64) -> Result<Way, Status> {
    let mut way = Vec::new();
    let mut at = folder;
    loop {
        let found = inode::find(kv, at)?.filter(|inode| inode.attr.nlink > 0 || inode.trash > 0);
        let Some(inode) = found.filter(|_| way.len() < limits::PATH_DEPTH) else {
            let why = "the folder that it was in is gone for good: say where to with --to PATH";
            return Err(Status::new(Code::NotFound, why));
        };
        if inode.trash == 0 {
            return Ok((way, inode));
        }
        let record = record(kv, &inode)?;
        at = record.parent;
        way.push((inode, record));
    }
}

/// The folder, with all that are missing of those above it. One that was made anew under its name since is taken
/// for it.
fn folder_it_was_in(tx: &mut Tx<'_>, folder: u64) -> Result<Inode, Status> {
    let (way, mut at) = way_up(&tx.kv, folder)?;
    for (mut removed, record) in way.into_iter().rev() {
        if let Some(present) = taken(&tx.kv, &at, &record.name)? {
            at = present;
            continue;
        }
        give_name(tx, &mut removed, &mut at, &record.name)?;
        tx.put_inode(&at);
        tx.put_inode(&removed);
        at = removed;
    }
    Ok(at)
}

/// The folder of this name, if there is anything of it.
fn taken(kv: &dyn KvRead, folder: &Inode, name: &[u8]) -> Result<Option<Inode>, Status> {
    let Some(entry) = dir::lookup(kv, folder, name)? else { return Ok(None) };
    let inode = inode::load_named(kv, &entry)?;
    if inode.is_dir() {
        return Ok(Some(inode));
    }
    let why = "a folder that it was in was removed, and something else has its name: say where to with --to PATH";
    Err(Status::new(Code::Exists, why))
}

/// The folder of a path from the root, and the last name. No symlinks are followed.
fn named<'a>(kv: &dyn KvRead, path: &'a [u8]) -> Result<(Inode, &'a [u8]), Status> {
    if path.len() > wire::PATH_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    let mut names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|n| !n.is_empty()).collect();
    let last = names.pop().unwrap_or_default();
    dir::check_name(last)?;
    let mut at = inode::load(kv, ROOT_INODE.0)?;
    for name in names {
        let missing = || {
            let shown = String::from_utf8_lossy(name);
            Status::new(
                Code::NotFound,
                format!("there is no folder {shown:?} on the way to that path"),
            )
        };
        at = taken(kv, &at, name)?.ok_or_else(missing)?;
    }
    if super::folder::is_folder(at.id()) {
        return Err(Status::new(Code::InvalidArgument, "nothing is restored into the trash"));
    }
    Ok((at, last))
}
