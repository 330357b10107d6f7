//! mkdir, symlink and mknod.

use ff2_proto::{
    Status, limits as wire,
    pb::{self, FileKind},
    status::Code,
};

use super::{allot, dir, inode, layout, perm, tx::Tx};

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::MakeNodeOp) -> Result<pb::NsReply, Status> {
    let mut parent = inode::load_dir(&tx.kv, op.parent)?;
    perm::search(&tx.cred, &parent)?;
    dir::check_name(&op.name)?;
    if dir::lookup(&tx.kv, &parent, &op.name)?.is_some() {
        return Err(Code::Exists.into());
    }
    perm::add_name(&tx.cred, &parent)?;
    let mode = check(&tx.cred, op)?;
    let id = allot::number(tx, op.inode)?;
    let mut node = tx.new_inode(&parent, op.kind(), mode, op.umask, id)?;
    match op.kind() {
        FileKind::Regular => node.attr.layout = Some(layout::choose(tx, &parent, None)?),
        FileKind::Symlink => {
            node.attr.size = op.symlink_target.len() as u64;
            node.symlink_target = op.symlink_target.clone();
        }
        FileKind::CharDevice | FileKind::BlockDevice => node.attr.rdev = op.rdev,
        FileKind::Directory | FileKind::Fifo | FileKind::Socket | FileKind::KindUnknown => {}
    }
    dir::insert(tx, &mut parent, &op.name, &node);
    tx.put_inode(&parent);
    tx.put_inode(&node);
    Ok(pb::NsReply {
        attr: Some(node.attr),
        parent_attr: Some(parent.attr),
        created: true,
        ..Default::default()
    })
}

/// What only this kind of node needs; returns the mode it may have.
fn check(cred: &pb::Credentials, op: &pb::MakeNodeOp) -> Result<u32, Status> {
    match op.kind() {
        FileKind::Directory => Ok(op.mode & (0o777 | perm::STICKY)),
        FileKind::Symlink => {
            check_target(&op.symlink_target)?;
            Ok(0o777)
        }
        FileKind::Regular | FileKind::Fifo | FileKind::Socket => Ok(op.mode & 0o7777),
        FileKind::CharDevice | FileKind::BlockDevice if perm::is_root(cred) => Ok(op.mode & 0o7777),
        FileKind::CharDevice | FileKind::BlockDevice => {
            Err(Status::new(Code::NotPermitted, "only root makes devices"))
        }
        FileKind::KindUnknown => Err(Status::new(Code::InvalidArgument, "no kind of node")),
    }
}

fn check_target(target: &[u8]) -> Result<(), Status> {
    if target.is_empty() {
        return Err(Status::new(Code::NotFound, "an empty symlink"));
    }
    if target.len() > wire::PATH_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    if target.contains(&0) {
        return Err(Status::new(Code::InvalidArgument, "a target with NUL"));
    }
    Ok(())
}
