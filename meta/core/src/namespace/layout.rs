//! Where the chunks of new files go: what a directory says to its children, and how it is set.

use ff2_proto::{
    Status, limits as wire,
    pb::{self, FileKind},
    status::Code,
};

use super::{
    inode::{self, Inode},
    length, perm,
    tx::Tx,
};

pub(super) fn check(layout: &pb::Layout) -> Result<(), Status> {
    let sizes = wire::CHUNK_SIZE_MIN..=wire::CHUNK_SIZE_MAX;
    if !layout.chunk_size.is_power_of_two() || !sizes.contains(&layout.chunk_size) {
        return Err(Status::new(Code::InvalidArgument, "chunk size: a power of two in bounds"));
    }
    if layout.stripe == 0 || layout.table == 0 {
        return Err(Status::new(Code::InvalidArgument, "a layout needs a table and a stripe"));
    }
    Ok(())
}

/// The layout of a new file: as asked, else as its directory says, else the cluster's. The seed is
/// the command's unless asked otherwise, so that files of one directory use different chains.
pub(super) fn choose(
    tx: &Tx<'_>,
    parent: &Inode,
    asked: Option<&pb::Layout>,
) -> Result<pb::Layout, Status> {
    if let Some(asked) = asked {
        check(asked)?;
        return Ok(*asked);
    }
    let Some(base) = parent.attr.layout.or(tx.default_layout) else {
        return Err(Status::new(Code::Busy, "the cluster has no chain table yet"));
    };
    check(&base)?;
    // A directory remembers the version of the day when its layout was set; its new files use the
    // chains that the table has got since.
    let newest = tx.default_layout.filter(|newest| newest.table == base.table);
    let table_version = newest.map_or(base.table_version, |newest| newest.table_version);
    Ok(pb::Layout { seed: tx.seed, table_version, ..base })
}

/// For a directory: what its children inherit from now on, or nothing. For a file: only while it
/// has no chunks.
pub(super) fn set(tx: &mut Tx<'_>, op: &pb::SetLayoutOp) -> Result<pb::NsReply, Status> {
    let mut inode = inode::load(&tx.kv, op.inode)?;
    inode.settled()?;
    if !perm::is_owner(&tx.cred, &inode.attr) {
        return Err(Code::NotPermitted.into());
    }
    if let Some(layout) = &op.layout {
        check(layout)?;
    }
    match inode.kind() {
        FileKind::Directory => inode.attr.layout = op.layout,
        FileKind::Regular => {
            let Some(layout) = op.layout else {
                return Err(Status::new(Code::InvalidArgument, "a file needs a layout"));
            };
            if inode.attr.size > 0 || length::chunks_above(&tx.kv, &inode, 0) {
                return Err(Status::new(Code::InvalidArgument, "the file may have data"));
            }
            inode.attr.layout = Some(pb::Layout { seed: tx.seed, ..layout });
        }
        FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice
        | FileKind::KindUnknown => return Err(Code::InvalidArgument.into()),
    }
    inode.changed(tx.now_ns);
    tx.put_inode(&inode);
    Ok(pb::NsReply { attr: Some(inode.attr), ..Default::default() })
}
