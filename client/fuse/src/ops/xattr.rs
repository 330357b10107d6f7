//! Extended attributes and ACLs.

use ff2_client::{Caller, Code, InodeId, Result, Status, XattrHow, extras};

use ff2_ring::control::ATTRIBUTE;

use crate::mounted::Mounted;

/// A value. That there is none is answered from what the kernel was told of the inode, if that is not
/// older than the mode that it goes by: it asks for ACLs and capabilities of every file that it meets,
/// and so does `ls -l`.
pub(crate) async fn get(at: &Mounted, caller: &Caller, inode: u64, name: &[u8]) -> Result<Vec<u8>> {
    // Of no file, and not listed: how programs find the mount's socket.
    if name == ATTRIBUTE.as_bytes() {
        let socket = at.rings.name().ok_or(Code::NoAttribute)?;
        return Ok(socket.into());
    }
    if let Some(known) = at.known.extras(inode)
        && !extras::may_have(known, name)
    {
        return Err(Code::NoAttribute.into());
    }
    caller.get_xattr(InodeId(inode), name).await
}

/// Names with a NUL behind each.
pub(crate) async fn list(at: &Mounted, caller: &Caller, inode: u64) -> Result<Vec<u8>> {
    if at.known.extras(inode) == Some(0) {
        return Ok(Vec::new());
    }
    let names = caller.list_xattrs(InodeId(inode)).await?;
    Ok(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect())
}

pub(crate) async fn set(
    at: &Mounted,
    caller: &Caller,
    inode: u64,
    name: &[u8],
    value: &[u8],
    flags: i32,
) -> Result<()> {
    let how = match flags {
        0 => XattrHow::Set,
        libc::XATTR_CREATE => XattrHow::Create,
        libc::XATTR_REPLACE => XattrHow::Replace,
        _ => return Err(Status::new(Code::InvalidArgument, format!("flags {flags:#x}"))),
    };
    if name == ATTRIBUTE.as_bytes() {
        return Err(Status::new(Code::NotPermitted, "this name is the mount's own"));
    }
    let outcome = caller.set_xattr(InodeId(inode), name, value, how).await;
    changed(at, inode);
    outcome.map(drop)
}

pub(crate) async fn remove(at: &Mounted, caller: &Caller, inode: u64, name: &[u8]) -> Result<()> {
    let outcome = caller.remove_xattr(InodeId(inode), name).await;
    changed(at, inode);
    outcome.map(drop)
}

/// The mode may have followed an ACL.
fn changed(at: &Mounted, inode: u64) {
    at.known.extras_changed(inode);
    at.drop_attr(inode);
}
