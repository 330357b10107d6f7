//! Names: mknod, mkdir, symlink, unlink, rmdir, rename, link.

use ff2_client::{Caller, Code, InodeId, NodeKind, RenameHow, Result, Status, pb};
use fuser::RenameFlags;

use crate::mounted::Mounted;

/// Makes anything but an open file; the kernel takes a reference to it.
pub(crate) async fn make(
    at: &Mounted,
    caller: &Caller,
    parent: u64,
    name: &[u8],
    kind: Option<NodeKind>,
    mode: u32,
) -> Result<pb::Attr> {
    let kind = kind.ok_or_else(|| Status::new(Code::InvalidArgument, "no such kind of node"))?;
    let attr = caller.make_node(InodeId(parent), name, kind, mode & 0o7777).await?;
    at.known.looked_up(attr.inode);
    Ok(attr)
}

pub(crate) async fn link(
    at: &Mounted,
    caller: &Caller,
    inode: u64,
    parent: u64,
    name: &[u8],
) -> Result<pb::Attr> {
    let attr = caller.link(InodeId(inode), InodeId(parent), name).await?;
    at.known.looked_up(attr.inode);
    Ok(attr)
}

pub(crate) async fn rename(
    caller: &Caller,
    from: (u64, &[u8]),
    to: (u64, &[u8]),
    flags: RenameFlags,
) -> Result<()> {
    let how = if flags.is_empty() {
        RenameHow::Replace
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        RenameHow::NoReplace
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        RenameHow::Exchange
    } else {
        let why = format!("rename flags {flags}");
        return Err(Status::new(Code::InvalidArgument, why));
    };
    caller.rename(InodeId(from.0), from.1, InodeId(to.0), to.1, how).await
}
