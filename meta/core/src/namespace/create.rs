//! Open-or-create of a regular file in one step, and files that are made without a name.

use ff2_proto::{
    Status,
    pb::{self, FileKind},
    status::Code,
};

use super::{
    allot, dir,
    inode::{self, Inode},
    layout, open, orphans, perm,
    tx::Tx,
};

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::CreateOp) -> Result<pb::NsReply, Status> {
    let mut parent = inode::load_dir(&tx.kv, op.parent)?;
    perm::search(&tx.cred, &parent)?;
    if op.unnamed {
        return unnamed(tx, op, &parent);
    }
    dir::check_name(&op.name)?;
    if let Some(entry) = dir::lookup(&tx.kv, &parent, &op.name)? {
        return if op.exclusive { Err(Code::Exists.into()) } else { open_it(tx, op, &entry) };
    }
    perm::add_name(&tx.cred, &parent)?;
    let mut file = new_file(tx, op, &parent)?;
    // The mode does not bind who made the file: a read-only file can be created and written.
    if op.write {
        open::begin_write(tx, &mut file)?;
    }
    dir::insert(tx, &mut parent, &op.name, &file);
    tx.put_inode(&parent);
    tx.put_inode(&file);
    Ok(pb::NsReply {
        attr: Some(file.attr),
        parent_attr: Some(parent.attr),
        created: true,
        ..Default::default()
    })
}

fn new_file(tx: &mut Tx<'_>, op: &pb::CreateOp, parent: &Inode) -> Result<Inode, Status> {
    let layout = layout::choose(tx, parent, op.layout.as_ref())?;
    let id = allot::number(tx, op.inode)?;
    let mut file = tx.new_inode(parent, FileKind::Regular, op.mode & 0o7777, op.umask, id)?;
    file.attr.layout = Some(layout);
    file.attr.inline = op.inline;
    Ok(file)
}

/// O_TMPFILE: an orphan from the beginning, which changes nothing of its directory.
fn unnamed(tx: &mut Tx<'_>, op: &pb::CreateOp, parent: &Inode) -> Result<pb::NsReply, Status> {
    if !op.name.is_empty() || !op.write {
        let why = "a file without a name has none, and is opened for writing";
        return Err(Status::new(Code::InvalidArgument, why));
    }
    // As if it got a name here: it may.
    perm::add_name(&tx.cred, parent)?;
    let mut file = new_file(tx, op, parent)?;
    // Written first: without a name and a writer it would not count.
    open::begin_write(tx, &mut file)?;
    file.attr.nlink = 0;
    orphans::add(tx, &file, !op.exclusive);
    tx.put_inode(&file);
    Ok(pb::NsReply { attr: Some(file.attr), created: true, ..Default::default() })
}

fn open_it(
    tx: &mut Tx<'_>,
    op: &pb::CreateOp,
    entry: &pb::DentryRecord,
) -> Result<pb::NsReply, Status> {
    let mut file = inode::load_named(&tx.kv, entry)?;
    if file.is_dir() {
        return Err(Code::IsDirectory.into());
    }
    let as_open = pb::OpenOp {
        inode: entry.inode,
        read: op.read,
        write: op.write,
        truncate: op.truncate,
        execute: false,
    };
    let truncation = open::existing(tx, &mut file, &as_open)?;
    Ok(pb::NsReply { attr: Some(file.attr), truncation, ..Default::default() })
}
