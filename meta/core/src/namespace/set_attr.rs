//! chmod, chown, utimens and truncate, by the rules of Linux.

use ff2_proto::{
    Status,
    pb::{self, FileKind},
    status::Code,
};

use super::{
    inode::{self, Inode},
    open, perm, quota, truncate,
    tx::Tx,
    xattr,
};

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::SetAttrOp) -> Result<pb::NsReply, Status> {
    let mut inode = inode::load(&tx.kv, op.inode)?;
    inode.settled()?;
    check_owner_changes(&tx.cred, &inode.attr, op)?;
    check_times(&tx.cred, &inode, op)?;
    if op.drop_privileges {
        check_writes(tx, &inode)?;
        xattr::drop_capability(tx, &mut inode);
        inode.attr.mode = perm::without_privileges(inode.attr.mode);
    }
    let mut truncation = None;
    if let Some(size) = op.size {
        check_size(tx, &inode, op)?;
        truncation = truncate::resize(tx, &mut inode, size)?;
    }
    if op.uid.is_some() || op.gid.is_some() {
        xattr::drop_capability(tx, &mut inode);
    }
    let (uid, gid) = (op.uid.unwrap_or(inode.attr.uid), op.gid.unwrap_or(inode.attr.gid));
    quota::change_owner(tx, &inode, uid, gid)?;
    set_owner_and_mode(&tx.cred, &mut inode, op);
    if op.atime_now {
        inode.attr.atime_ns = tx.now_ns;
    } else if let Some(atime_ns) = op.atime_ns {
        inode.attr.atime_ns = atime_ns;
    }
    if op.mtime_now {
        inode.attr.mtime_ns = tx.now_ns;
    } else if let Some(mtime_ns) = op.mtime_ns {
        inode.attr.mtime_ns = mtime_ns;
    }
    inode.changed(tx.now_ns);
    tx.put_inode(&inode);
    Ok(pb::NsReply { attr: Some(inode.attr), truncation, ..Default::default() })
}

fn check_owner_changes(
    cred: &pb::Credentials,
    attr: &pb::Attr,
    op: &pb::SetAttrOp,
) -> Result<(), Status> {
    let owner = perm::is_owner(cred, attr);
    let refused = |why: &str| Err(Status::new(Code::NotPermitted, why));
    if op.mode.is_some() && !owner {
        return refused("only the owner changes the mode");
    }
    if let Some(uid) = op.uid
        && !perm::is_root(cred)
        && !(owner && uid == attr.uid)
    {
        return refused("only root gives files away");
    }
    if let Some(gid) = op.gid
        && !perm::is_root(cred)
        && !(owner && (gid == attr.gid || perm::in_group(cred, gid)))
    {
        return refused("the owner may choose among the own groups");
    }
    Ok(())
}

fn check_times(cred: &pb::Credentials, inode: &Inode, op: &pb::SetAttrOp) -> Result<(), Status> {
    if perm::is_owner(cred, &inode.attr) {
        return Ok(());
    }
    let chosen =
        (op.atime_ns.is_some() && !op.atime_now) || (op.mtime_ns.is_some() && !op.mtime_now);
    if chosen {
        return Err(Status::new(Code::NotPermitted, "only the owner chooses times"));
    }
    // Changing the size sets the times, so its permission is enough.
    if (op.atime_now || op.mtime_now) && op.size.is_none() {
        perm::check(cred, inode, perm::WRITE)?;
    }
    Ok(())
}

fn check_size(tx: &Tx<'_>, inode: &Inode, op: &pb::SetAttrOp) -> Result<(), Status> {
    match inode.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Code::IsDirectory.into()),
        FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice
        | FileKind::KindUnknown => return Err(Code::InvalidArgument.into()),
    }
    if !op.by_handle {
        return perm::check(&tx.cred, inode, perm::WRITE);
    }
    // The permission was checked at open; the mode may have changed since.
    match open::writer(&tx.kv, inode.id(), tx.session)? {
        Some(_) => Ok(()),
        None => Err(Status::new(Code::BadHandle, "this session does not write the inode")),
    }
}

/// What a writer may do to a file, whether its mode lets it in or it did so before.
fn check_writes(tx: &Tx<'_>, inode: &Inode) -> Result<(), Status> {
    if open::writer(&tx.kv, inode.id(), tx.session)?.is_some() {
        return Ok(());
    }
    perm::check(&tx.cred, inode, perm::WRITE)
}

fn set_owner_and_mode(cred: &pb::Credentials, inode: &mut Inode, op: &pb::SetAttrOp) {
    let attr = &mut inode.attr;
    if op.uid.is_some() || op.gid.is_some() {
        attr.uid = op.uid.unwrap_or(attr.uid);
        attr.gid = op.gid.unwrap_or(attr.gid);
        if attr.kind() != FileKind::Directory {
            attr.mode = perm::without_privileges(attr.mode);
        }
    }
    if let Some(mode) = op.mode {
        attr.mode = mode & 0o7777;
        // A setgid program of a group that the owner is not in would lend its privileges.
        if !perm::is_root(cred) && !perm::in_group(cred, attr.gid) {
            attr.mode &= !perm::SETGID;
        }
        let mode = attr.mode;
        if let Some(acl) = &mut inode.access_acl {
            acl.set_mode(mode);
        }
    }
}
