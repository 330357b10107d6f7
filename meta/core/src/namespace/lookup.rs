//! Small reads: lookup, getattr, readlink, access.

use ff2_proto::{
    Status,
    pb::{self, FileKind},
    status::Code,
};

use super::{dir, inode, perm};
use crate::kv::KvRead;

pub(super) fn lookup(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::LookupOp,
) -> Result<pb::NsReply, Status> {
    let parent = inode::load(kv, op.parent)?;
    perm::search(cred, &parent)?;
    dir::check_name(&op.name)?;
    let parent_attr = Some(parent.attr);
    let Some(entry) = dir::lookup(kv, &parent, &op.name)? else {
        let absent = pb::NsReply { parent_attr, ..Default::default() };
        return if op.absent_is_answer { Ok(absent) } else { Err(Code::NotFound.into()) };
    };
    let child = inode::load_named(kv, &entry)?;
    child.settled()?;
    Ok(pb::NsReply { attr: Some(child.attr), parent_attr, ..Default::default() })
}

pub(super) fn get_attr(kv: &dyn KvRead, op: &pb::GetAttrOp) -> Result<pb::NsReply, Status> {
    let inode = inode::load(kv, op.inode)?;
    inode.settled()?;
    Ok(pb::NsReply { attr: Some(inode.attr), ..Default::default() })
}

pub(super) fn read_link(kv: &dyn KvRead, op: &pb::ReadLinkOp) -> Result<pb::NsReply, Status> {
    let inode = inode::load(kv, op.inode)?;
    if inode.kind() != FileKind::Symlink {
        return Err(Status::new(Code::InvalidArgument, "not a symlink"));
    }
    Ok(pb::NsReply { attr: Some(inode.attr), target: inode.symlink_target, ..Default::default() })
}

pub(super) fn access(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::AccessOp,
) -> Result<pb::NsReply, Status> {
    let inode = inode::load(kv, op.inode)?;
    if op.mask & !(perm::READ | perm::WRITE | perm::EXECUTE) != 0 {
        return Err(Status::new(Code::InvalidArgument, "an unknown access"));
    }
    perm::check(cred, &inode, op.mask)?;
    Ok(pb::NsReply::default())
}
