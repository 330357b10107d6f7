//! Operations in short.

use bytes::Bytes;
use ff2_proto::pb::{self, FileKind, ns_request::Op};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn lookup(parent: u64, name: &str) -> Op {
    Op::Lookup(pb::LookupOp { parent, name: bytes(name), ..Default::default() })
}

/// A new file, open for writing.
pub(crate) fn create(parent: u64, name: &str, mode: u32) -> Op {
    Op::Create(pb::CreateOp { exclusive: true, write: true, ..open_or_create(parent, name, mode) })
}

/// A new file, not open.
pub(crate) fn touch(parent: u64, name: &str, mode: u32) -> Op {
    Op::Create(open_or_create(parent, name, mode))
}

pub(crate) fn open_or_create(parent: u64, name: &str, mode: u32) -> pb::CreateOp {
    pb::CreateOp { parent, name: bytes(name), mode, ..Default::default() }
}

pub(crate) fn mkdir(parent: u64, name: &str, mode: u32) -> Op {
    mknod(parent, name, FileKind::Directory, mode)
}

pub(crate) fn mknod(parent: u64, name: &str, kind: FileKind, mode: u32) -> Op {
    let kind = kind.into();
    Op::MakeNode(pb::MakeNodeOp { parent, name: bytes(name), kind, mode, ..Default::default() })
}

pub(crate) fn symlink(parent: u64, name: &str, target: &str) -> Op {
    Op::MakeNode(pb::MakeNodeOp {
        parent,
        name: bytes(name),
        kind: FileKind::Symlink.into(),
        symlink_target: bytes(target),
        ..Default::default()
    })
}

pub(crate) fn link(inode: u64, parent: u64, name: &str) -> Op {
    Op::Link(pb::LinkOp { inode, parent, name: bytes(name) })
}

pub(crate) fn unlink(parent: u64, name: &str) -> Op {
    Op::Unlink(pb::UnlinkOp { parent, name: bytes(name), directory: false })
}

pub(crate) fn rmdir(parent: u64, name: &str) -> Op {
    Op::Unlink(pb::UnlinkOp { parent, name: bytes(name), directory: true })
}

pub(crate) fn rename(parent: u64, name: &str, new_parent: u64, new_name: &str) -> pb::RenameOp {
    let (name, new_name) = (bytes(name), bytes(new_name));
    pb::RenameOp { parent, name, new_parent, new_name, no_replace: false, exchange: false }
}

pub(crate) fn mv(parent: u64, name: &str, new_parent: u64, new_name: &str) -> Op {
    Op::Rename(rename(parent, name, new_parent, new_name))
}

pub(crate) fn exchange(parent: u64, name: &str, new_parent: u64, new_name: &str) -> Op {
    Op::Rename(pb::RenameOp { exchange: true, ..rename(parent, name, new_parent, new_name) })
}

pub(crate) fn set(inode: u64) -> pb::SetAttrOp {
    pb::SetAttrOp { inode, ..Default::default() }
}

pub(crate) fn chmod(inode: u64, mode: u32) -> Op {
    Op::SetAttr(pb::SetAttrOp { mode: Some(mode), ..set(inode) })
}

pub(crate) fn chown(inode: u64, uid: Option<u32>, gid: Option<u32>) -> Op {
    Op::SetAttr(pb::SetAttrOp { uid, gid, ..set(inode) })
}

pub(crate) fn truncate(inode: u64, size: u64) -> Op {
    Op::SetAttr(pb::SetAttrOp { size: Some(size), ..set(inode) })
}

pub(crate) fn ftruncate(inode: u64, size: u64) -> Op {
    Op::SetAttr(pb::SetAttrOp { size: Some(size), by_handle: true, ..set(inode) })
}

pub(crate) fn open_read(inode: u64) -> Op {
    Op::Open(pb::OpenOp { inode, read: true, ..Default::default() })
}

pub(crate) fn open_write(inode: u64) -> Op {
    Op::Open(pb::OpenOp { inode, write: true, ..Default::default() })
}

/// The last close, after writing up to `length`.
pub(crate) fn close(inode: u64, length: u64) -> Op {
    Op::Close(pb::CloseOp { inode, length_at_least: length, wrote: true, ..Default::default() })
}

pub(crate) fn report(inode: u64, length: u64) -> Op {
    Op::ReportLength(pb::ReportLengthOp { inode, length_at_least: length, ..Default::default() })
}

/// A report by who wrote up to `length`, and perhaps up to `end`.
pub(crate) fn report_attempt(inode: u64, length: u64, end: u64) -> Op {
    Op::ReportLength(pb::ReportLengthOp {
        inode,
        length_at_least: length,
        attempted_end: end,
        ..Default::default()
    })
}

pub(crate) fn finish_truncate(inode: u64, truncate_version: u64) -> Op {
    Op::FinishTruncate(pb::FinishTruncateOp { inode, truncate_version })
}

pub(crate) fn recover(inode: u64, doubt: u64, length: u64) -> Op {
    Op::RecoverLength(pb::RecoverLengthOp { inode, doubt, length })
}

pub(crate) fn collect(inodes: &[u64]) -> Op {
    Op::Collect(pb::CollectOp { inodes: inodes.to_vec() })
}

pub(crate) fn expire(sessions: &[u64]) -> Op {
    Op::ExpireSessions(pb::ExpireSessionsOp { sessions: sessions.to_vec() })
}

pub(crate) fn resolve(path: &str, follow_last: bool) -> Op {
    Op::Resolve(pb::ResolveOp { base: 1, path: bytes(path), follow_last })
}

pub(crate) fn read_dir(inode: u64, after_cookie: u64, limit: u32) -> Op {
    Op::ReadDir(pb::ReadDirOp { inode, after_cookie, limit, plus: true })
}

pub(crate) fn access(inode: u64, mask: u32) -> Op {
    Op::Access(pb::AccessOp { inode, mask })
}

fn xattr_op(inode: u64, name: &str, value: &[u8]) -> pb::SetXattrOp {
    let value = Bytes::copy_from_slice(value);
    pb::SetXattrOp { inode, name: bytes(name), value, create: false, replace: false }
}

pub(crate) fn set_xattr(inode: u64, name: &str, value: &[u8]) -> Op {
    Op::SetXattr(xattr_op(inode, name, value))
}

pub(crate) fn create_xattr(inode: u64, name: &str, value: &[u8]) -> Op {
    Op::SetXattr(pb::SetXattrOp { create: true, ..xattr_op(inode, name, value) })
}

pub(crate) fn replace_xattr(inode: u64, name: &str, value: &[u8]) -> Op {
    Op::SetXattr(pb::SetXattrOp { replace: true, ..xattr_op(inode, name, value) })
}

pub(crate) fn remove_xattr(inode: u64, name: &str) -> Op {
    Op::RemoveXattr(pb::RemoveXattrOp { inode, name: bytes(name) })
}

pub(crate) fn get_xattr(inode: u64, name: &str) -> Op {
    Op::GetXattr(pb::GetXattrOp { inode, name: bytes(name) })
}

pub(crate) fn list_xattrs(inode: u64) -> Op {
    Op::ListXattrs(pb::ListXattrsOp { inode })
}

pub(crate) fn drop_privileges(inode: u64) -> Op {
    Op::SetAttr(pb::SetAttrOp { drop_privileges: true, ..set(inode) })
}
