//! What a volume shows of its snapshots: a folder `.snapshots` in its root that no listing has, with a folder
//! for each. Everything in them has a number of its own, and can be read and not changed.
//!
//! A request that names such a number is answered from the rows as they were ([`super::preserve`]), by the
//! same code as any other.

use bytes::Bytes;
use ff2_proto::{
    SNAPSHOTS_FOLDER, Status,
    pb::{self, FileKind, ns_request::Op},
    status::Code,
};
use pb::SnapshotState;

use super::{
    confine, inode, keys, number, perm,
    preserve::{self, Past},
    quota, snapshots, tx,
};
use crate::kv::KvRead;

/// Refuses what would change a snapshot, or the folder of them. A root that has another entry of its name shows that
/// one.
pub(super) fn refuse_change(kv: &dyn KvRead, op: &Op, subtree: u64) -> Result<(), Status> {
    if confine::inodes(op).into_iter().flatten().any(number::is_past) {
        return Err(Status::new(Code::ReadOnly, "a snapshot does not change"));
    }
    let root = confine::root(subtree);
    let is_folder = |parent: u64, name: &[u8]| {
        parent == root && name == SNAPSHOTS_FOLDER && kv.get(&keys::dentry(parent, name)).is_none()
    };
    let named = match op {
        Op::Create(op) => !op.unnamed && is_folder(op.parent, &op.name),
        Op::MakeNode(op) => is_folder(op.parent, &op.name),
        Op::Link(op) => is_folder(op.parent, &op.name),
        Op::Unlink(op) => is_folder(op.parent, &op.name),
        Op::Rename(op) => is_folder(op.parent, &op.name) || is_folder(op.new_parent, &op.new_name),
        _ => false,
    };
    if named {
        return Err(Status::new(Code::ReadOnly, "the folder of snapshots is there already"));
    }
    Ok(())
}

/// The answer to a question about a snapshot, or about the folder of them; `None`: it is about neither.
pub(super) fn answer(
    kv: &dyn KvRead,
    request: &pb::NsRequest,
    op: &Op,
    subtree: u64,
) -> Result<Option<pb::NsReply>, Status> {
    let root = confine::root(subtree);
    match op {
        Op::Lookup(lookup) if lookup.parent == root && lookup.name == SNAPSHOTS_FOLDER => {
            return Folder::new(kv, subtree)?.enter(request, lookup);
        }
        Op::Resolve(resolve) if matches!(resolve.base, 0 | 1) || resolve.base == root => {
            if let Some(rest) = below_folder(kv, root, &resolve.path) {
                return Folder::new(kv, subtree)?.resolve(request, resolve, rest).map(Some);
            }
            return Ok(None);
        }
        _ => {}
    }
    let mut named = confine::inodes(op).into_iter().flatten().filter(|id| number::is_past(*id));
    let Some(named) = named.next() else { return Ok(None) };
    let folder = Folder::new(kv, subtree)?;
    let gone = || Status::new(Code::StaleInode, "there is no such snapshot");
    let (slot, inode) = number::of_past(folder.key, named).ok_or_else(gone)?;
    if slot == 0 {
        return folder.answer(request, op).map(Some);
    }
    let is_it = |record: &&pb::SnapshotRecord| record.slot == slot;
    let record = folder.ready().find(is_it).ok_or_else(gone)?;
    folder.ask(record, request, at(op, inode)).map(Some)
}

/// What of a path lies below the folder of snapshots; `None`: it does not lead there.
fn below_folder<'a>(kv: &dyn KvRead, root: u64, path: &'a [u8]) -> Option<&'a [u8]> {
    let path = trimmed(path);
    let rest = path.strip_prefix(SNAPSHOTS_FOLDER)?;
    let ends = rest.is_empty() || rest.starts_with(b"/");
    (ends && kv.get(&keys::dentry(root, SNAPSHOTS_FOLDER)).is_none()).then_some(trimmed(rest))
}

fn trimmed(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    &path[start..]
}

/// The same operation on another inode.
fn at(op: &Op, inode: u64) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Lookup(op) => op.parent = inode,
        Op::GetAttr(op) => op.inode = inode,
        Op::ReadLink(op) => op.inode = inode,
        Op::ReadDir(op) => op.inode = inode,
        Op::Resolve(op) => op.base = inode,
        Op::Access(op) => op.inode = inode,
        Op::ReadInline(op) => op.inode = inode,
        Op::GetXattr(op) => op.inode = inode,
        Op::ListXattrs(op) => op.inode = inode,
        Op::GetLock(op) => op.inode = inode,
        Op::Open(op) => op.inode = inode,
        Op::StatFs(op) => op.inode = inode,
        // Changes, which are refused before, and what names no inode.
        _ => {}
    }
    op
}

/// The folder of snapshots.
struct Folder<'a> {
    kv: &'a dyn KvRead,
    key: u64,
    subtree: u64,
    snapshots: Vec<pb::SnapshotRecord>,
}

impl<'a> Folder<'a> {
    fn new(kv: &'a dyn KvRead, subtree: u64) -> Result<Self, Status> {
        let key = tx::volume(kv)?.number_key;
        Ok(Self { kv, key, subtree, snapshots: snapshots::all(kv)? })
    }

    fn ready(&self) -> impl Iterator<Item = &pb::SnapshotRecord> {
        self.snapshots.iter().filter(|record| record.state() == SnapshotState::Ready)
    }

    fn named(&self, name: &[u8]) -> Option<&pb::SnapshotRecord> {
        self.ready().find(|record| record.name == name)
    }

    /// Owned and dated as the root, for everybody to look into.
    fn attr(&self) -> Result<pb::Attr, Status> {
        let root = inode::load_dir(self.kv, confine::root(self.subtree))?.attr;
        Ok(pb::Attr {
            inode: self.number(0, root.inode)?,
            kind: FileKind::Directory.into(),
            mode: 0o555,
            uid: root.uid,
            gid: root.gid,
            nlink: 2,
            atime_ns: root.btime_ns,
            mtime_ns: self.ready().map(|record| record.made_ns).max().unwrap_or(root.btime_ns),
            ctime_ns: root.btime_ns,
            btime_ns: root.btime_ns,
            generation: 1,
            version: 1,
            ..Default::default()
        })
    }

    fn number(&self, slot: u32, inode: u64) -> Result<u64, Status> {
        let none = || Status::new(Code::Unsupported, "the volume has given out too many numbers");
        number::past_of(self.key, slot, inode).ok_or_else(none)
    }

    /// The lookup of the folder in the root.
    fn enter(
        &self,
        request: &pb::NsRequest,
        op: &pb::LookupOp,
    ) -> Result<Option<pb::NsReply>, Status> {
        if self.kv.get(&keys::dentry(op.parent, &op.name)).is_some() {
            return Ok(None);
        }
        let root = inode::load_dir(self.kv, op.parent)?;
        perm::search(&request.cred.clone().unwrap_or_default(), &root)?;
        let (attr, parent_attr) = (Some(self.attr()?), Some(root.attr));
        Ok(Some(pb::NsReply { attr, parent_attr, ..Default::default() }))
    }

    fn answer(&self, request: &pb::NsRequest, op: &Op) -> Result<pb::NsReply, Status> {
        let attr = Some(self.attr()?);
        let shown = |attr| Ok(pb::NsReply { attr, ..Default::default() });
        match op {
            Op::Lookup(op) => match self.named(&op.name) {
                Some(record) => {
                    let found = self.root_of(record, request)?;
                    Ok(pb::NsReply { parent_attr: attr, ..found })
                }
                None if op.absent_is_answer => {
                    Ok(pb::NsReply { parent_attr: attr, ..Default::default() })
                }
                None => Err(Code::NotFound.into()),
            },
            Op::GetAttr(_) | Op::Open(_) => shown(attr),
            Op::Access(op) if op.mask & perm::WRITE != 0 => Err(Code::ReadOnly.into()),
            Op::Access(_) | Op::ListXattrs(_) => Ok(pb::NsReply::default()),
            Op::GetXattr(_) => Err(Code::NoAttribute.into()),
            Op::StatFs(_) => quota::stat_fs(self.kv, self.subtree),
            Op::ReadDir(op) => self.list(request, op),
            Op::Resolve(op) => self.resolve(request, op, trimmed(&op.path)),
            _ => Err(Status::new(Code::InvalidArgument, "not of a folder")),
        }
    }

    /// In the order of their making. A snapshot in which the folder of a confined connection is not yet is none.
    fn list(&self, request: &pb::NsRequest, op: &pb::ReadDirOp) -> Result<pb::NsReply, Status> {
        let mut entries = Vec::new();
        for record in self.ready().filter(|record| u64::from(record.id) > op.after_cookie) {
            if let Ok(found) = self.root_of(record, request) {
                let (name, cookie) = (record.name.clone(), record.id.into());
                entries.push(pb::Entry { name, cookie, attr: found.attr });
            }
        }
        let attr = Some(self.attr()?);
        Ok(pb::NsReply { attr, entries, end: true, ..Default::default() })
    }

    fn root_of(
        &self,
        record: &pb::SnapshotRecord,
        request: &pb::NsRequest,
    ) -> Result<pb::NsReply, Status> {
        let root = confine::root(self.subtree);
        self.ask(record, request, Op::GetAttr(pb::GetAttrOp { inode: root }))
    }

    /// A path below the folder.
    fn resolve(
        &self,
        request: &pb::NsRequest,
        op: &pb::ResolveOp,
        path: &[u8],
    ) -> Result<pb::NsReply, Status> {
        let mut parts = path.splitn(2, |byte| *byte == b'/');
        let name = parts.next().unwrap_or_default();
        if name.is_empty() {
            return Ok(pb::NsReply { attr: Some(self.attr()?), ..Default::default() });
        }
        let record = self.named(name).ok_or_else(|| Status::from(Code::NotFound))?;
        let rest = trimmed(parts.next().unwrap_or_default());
        if rest.is_empty() {
            return self.root_of(record, request);
        }
        let path = Bytes::copy_from_slice(rest);
        let within = pb::ResolveOp { base: confine::root(self.subtree), path, ..op.clone() };
        self.ask(record, request, Op::Resolve(within))
    }

    /// Asks what a snapshot shows, by the numbers that inodes had.
    fn ask(
        &self,
        record: &pb::SnapshotRecord,
        request: &pb::NsRequest,
        op: Op,
    ) -> Result<pb::NsReply, Status> {
        match &op {
            Op::Access(op) if op.mask & perm::WRITE != 0 => return Err(Code::ReadOnly.into()),
            Op::StatFs(_) => return quota::stat_fs(self.kv, self.subtree),
            _ => {}
        }
        let past = Past::new(self.kv, preserve::ids_from(&self.snapshots, record.id));
        let mut reply = super::answer(&past, request, &op, self.subtree)?;
        reply.walked.clear();
        reply.within = 0;
        let entries = reply.entries.iter_mut().filter_map(|entry| entry.attr.as_mut());
        for attr in [&mut reply.attr, &mut reply.parent_attr].into_iter().flatten().chain(entries) {
            attr.origin = attr.inode;
            attr.snapshot = record.id;
            attr.quota = 0;
            attr.inode = self.number(record.slot, attr.inode)?;
        }
        Ok(reply)
    }
}
