//! getxattr and listxattr.

use bytes::Bytes;
use ff2_proto::{Status, extras, pb, status::Code};

use super::{
    acl::Acl,
    inode, perm,
    xattr::{self, Space},
};
use crate::kv::KvRead;

pub(super) fn get(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::GetXattrOp,
) -> Result<pb::NsReply, Status> {
    let space = Space::of(&op.name)?;
    let inode = inode::load(kv, op.inode)?;
    xattr::check_read(cred, &inode, space)?;
    let value = match space {
        Space::User | Space::Trusted | Space::Security => xattr::value(kv, &inode, &op.name),
        Space::AccessAcl => inode.access_acl.as_ref().map(Acl::encode),
        Space::DefaultAcl => inode.default_acl.as_ref().map(Acl::encode),
    };
    let xattr_value = value.ok_or_else(|| Status::from(Code::NoAttribute))?;
    Ok(pb::NsReply { xattr_value, ..Default::default() })
}

/// The names that the caller may know of.
pub(super) fn list(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::ListXattrsOp,
) -> Result<pb::NsReply, Status> {
    let inode = inode::load(kv, op.inode)?;
    let mut xattr_names = Vec::new();
    if inode.access_acl.is_some() {
        xattr_names.push(Bytes::from_static(extras::ACCESS_ACL_NAME));
    }
    if inode.default_acl.is_some() {
        xattr_names.push(Bytes::from_static(extras::DEFAULT_ACL_NAME));
    }
    let hidden = |name: &Bytes| !perm::is_root(cred) && name.starts_with(b"trusted.");
    xattr_names.extend(xattr::names(kv, &inode).into_iter().filter(|name| !hidden(name)));
    Ok(pb::NsReply { xattr_names, ..Default::default() })
}
