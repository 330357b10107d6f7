//! setxattr and removexattr, ACLs included.

use bytes::Bytes;
use ff2_proto::{Status, extras, limits as wire, pb, status::Code};

use super::{
    acl::Acl,
    inode::{self, Inode},
    open, perm,
    tx::Tx,
    xattr::{self, Space},
};

pub(super) fn set(tx: &mut Tx<'_>, op: &pb::SetXattrOp) -> Result<pb::NsReply, Status> {
    let space = Space::of(&op.name)?;
    if op.value.len() > wire::XATTR_VALUE_BYTES_MAX {
        return Err(Code::ValueTooBig.into());
    }
    let mut inode = inode::load(&tx.kv, op.inode)?;
    inode.settled()?;
    xattr::check_write(&tx.cred, &inode, space)?;
    let exists = match space {
        Space::User | Space::Trusted | Space::Security => {
            xattr::value(&tx.kv, &inode, &op.name).is_some()
        }
        Space::AccessAcl => inode.access_acl.is_some(),
        Space::DefaultAcl => inode.default_acl.is_some(),
    };
    if op.create && exists {
        return Err(Code::Exists.into());
    }
    if op.replace && !exists {
        return Err(Code::NoAttribute.into());
    }
    match space {
        Space::User | Space::Trusted | Space::Security => {
            xattr::put(tx, &mut inode, &op.name, &op.value)?;
        }
        Space::AccessAcl => set_access(&tx.cred, &mut inode, Acl::parse(&op.value)?),
        Space::DefaultAcl => set_default(&mut inode, Acl::parse(&op.value)?)?,
    }
    changed(tx, inode)
}

pub(super) fn remove(tx: &mut Tx<'_>, op: &pb::RemoveXattrOp) -> Result<pb::NsReply, Status> {
    let space = Space::of(&op.name)?;
    let mut inode = inode::load(&tx.kv, op.inode)?;
    inode.settled()?;
    if !may_drop_capability(tx, &inode, &op.name)? {
        xattr::check_write(&tx.cred, &inode, space)?;
    }
    let existed = match space {
        Space::User | Space::Trusted | Space::Security => xattr::remove(tx, &mut inode, &op.name),
        Space::AccessAcl => {
            let existed = inode.access_acl.is_some();
            set_access(&tx.cred, &mut inode, None);
            existed
        }
        Space::DefaultAcl => {
            let existed = inode.default_acl.is_some();
            set_default(&mut inode, None)?;
            existed
        }
    };
    if !existed {
        return Err(Code::NoAttribute.into());
    }
    changed(tx, inode)
}

fn changed(tx: &mut Tx<'_>, mut inode: Inode) -> Result<pb::NsReply, Status> {
    inode.changed(tx.now_ns);
    tx.put_inode(&inode);
    Ok(pb::NsReply { attr: Some(inode.attr), ..Default::default() })
}

/// The kernel of a mount takes a program's capabilities away in the name of whoever writes it.
fn may_drop_capability(tx: &Tx<'_>, inode: &Inode, name: &Bytes) -> Result<bool, Status> {
    Ok(name == extras::CAPABILITY_NAME
        && (perm::is_owner(&tx.cred, &inode.attr)
            || perm::allows(&tx.cred, inode, perm::WRITE)
            || open::writer(&tx.kv, inode.id(), tx.session)?.is_some()))
}

/// The mode follows the list. A list that says no more than a mode is none.
fn set_access(cred: &pb::Credentials, inode: &mut Inode, acl: Option<Acl>) {
    let Some(acl) = acl else {
        inode.set_access_acl(None);
        return;
    };
    let (bits, is_mode) = acl.mode();
    inode.attr.mode = inode.attr.mode & !0o777 | bits;
    if !perm::is_root(cred) && !perm::in_group(cred, inode.attr.gid) {
        inode.attr.mode &= !perm::SETGID;
    }
    inode.set_access_acl(Some(acl).filter(|_| !is_mode));
}

fn set_default(inode: &mut Inode, acl: Option<Acl>) -> Result<(), Status> {
    if !inode.is_dir() && acl.is_some() {
        return Err(Status::new(Code::AccessDenied, "only directories have a default ACL"));
    }
    inode.set_default_acl(acl);
    Ok(())
}
