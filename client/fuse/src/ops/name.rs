//! Names: mknod, mkdir, symlink, rename.

use ff2_client::{Caller, Code, InodeId, NodeKind, RenameHow, Result, Status, pb};
use fuser::RenameFlags;

use crate::requests::Place;

/// Makes anything but an open file.
pub(crate) async fn make(
    caller: &Caller,
    place: &Place,
    kind: Option<NodeKind>,
    mode: u32,
) -> Result<pb::Attr> {
    let kind = kind.ok_or_else(|| Status::new(Code::InvalidArgument, "no such kind of node"))?;
    caller.make_node(InodeId(place.parent), &place.name, kind, mode & 0o7777).await
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
