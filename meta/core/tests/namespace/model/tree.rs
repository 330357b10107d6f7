//! A POSIX tree as maps, with the rules written down once more and as directly as possible.

use std::collections::BTreeMap;

use ff2_proto::{
    TRASH_INODES,
    pb::{self, Code, FileKind, ns_request::Op},
};

use super::{kept::Kept, quotas::Quotas};
use crate::volume::Who;

type Outcome = Result<(), Code>;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    pub(crate) names: BTreeMap<Vec<u8>, u64>,
    pub(crate) cutting: bool,
    /// Highest byte that was reported written since the last cut.
    pub(crate) data: u64,
    /// By session.
    pub(crate) writers: BTreeMap<u64, Writer>,
    pub(crate) doubt: bool,
    /// Of a symlink.
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Chosen by somebody, and not set by anything since.
    pub(crate) atime_ns: Option<i64>,
    pub(crate) mtime_ns: Option<i64>,
    /// Where it is, or was before it lost its name. Of a directory.
    pub(crate) parent: u64,
    /// The folder whose quota counts it; 0: none.
    pub(crate) counted_by: u64,
    /// Made without a name, it may still get one.
    pub(crate) nameable: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) lost: bool,
    pub(crate) overtaken: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) next_inode: u64,
    pub(crate) orphans: Vec<u64>,
    /// Removed files and folders are kept from now on.
    pub(crate) has_trash: bool,
    /// By the number of the entry.
    pub(crate) kept: BTreeMap<u64, Kept>,
    pub(crate) next_kept: u64,
    pub(crate) quotas: Quotas,
}

pub(crate) fn ensure(holds: bool, code: Code) -> Outcome {
    if holds { Ok(()) } else { Err(code) }
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub(crate) fn owned_by(&self, who: &Who) -> bool {
        who.cred.uid == 0 || who.cred.uid == self.uid
    }

    pub(crate) fn may(&self, who: &Who, bits: u32) -> Outcome {
        let cred = &who.cred;
        let shift = match () {
            () if cred.uid == self.uid => 6,
            () if has_group(who, self.gid) => 3,
            () => 0,
        };
        let mut allowed = (self.mode >> shift) & 7;
        if cred.uid == 0 {
            allowed = if self.is_dir() || self.mode & 0o111 != 0 { 7 } else { 6 };
        }
        ensure(bits & !allowed == 0, Code::AccessDenied)
    }

    pub(crate) fn drop_privileges(&mut self) {
        if self.mode & 0o010 != 0 {
            self.mode &= !0o2000;
        }
        self.mode &= !0o4000;
    }
}

pub(crate) fn has_group(who: &Who, gid: u32) -> bool {
    who.cred.gid == gid || who.cred.groups.contains(&gid)
}

impl Tree {
    pub(crate) fn new() -> Self {
        let mut tree = Self {
            nodes: BTreeMap::new(),
            next_inode: 1,
            orphans: vec![],
            has_trash: false,
            kept: BTreeMap::new(),
            next_kept: 1,
            quotas: Quotas::default(),
        };
        tree.add(FileKind::Directory, 0o777, 0, 0);
        tree
    }

    pub(crate) fn directories(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.is_dir()).map(|(id, _)| *id).collect()
    }

    pub(crate) fn doubts(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.doubt).map(|(id, _)| *id).collect()
    }

    fn add(&mut self, kind: FileKind, mode: u32, uid: u32, gid: u32) -> u64 {
        let id = self.next_inode;
        self.next_inode += 1;
        let node = Node {
            kind,
            mode,
            uid,
            gid,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: 0,
            names: BTreeMap::new(),
            cutting: false,
            data: 0,
            writers: BTreeMap::new(),
            doubt: false,
            target: vec![],
            xattrs: BTreeMap::new(),
            atime_ns: None,
            mtime_ns: None,
            parent: id,
            counted_by: 0,
            nameable: false,
        };
        self.nodes.insert(id, node);
        id
    }

    pub(crate) fn node(&self, id: u64) -> Result<&Node, Code> {
        self.nodes.get(&id).ok_or(Code::StaleInode)
    }

    pub(crate) fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("it was there")
    }

    /// What fails changes nothing.
    pub(crate) fn apply(&mut self, who: &Who, op: &Op) -> Outcome {
        let before = self.clone();
        let outcome = self.attempt(who, op);
        if outcome.is_err() {
            *self = before;
        }
        self.forget_quotas();
        outcome
    }

    fn attempt(&mut self, who: &Who, op: &Op) -> Outcome {
        match op {
            Op::MakeNode(op) => self.make_node(who, op),
            Op::Create(op) if op.unnamed => self.create_unnamed(who, op),
            Op::Create(op) => self.create(who, op),
            Op::Link(op) => self.link(who, op),
            Op::Unlink(op) if op.parent >= TRASH_INODES.0 => self.remove_for_good(who, op),
            Op::Unlink(op) => self.unlink(who, op),
            Op::Rename(op) if op.parent >= TRASH_INODES.0 => self.take_back(who, op),
            Op::Rename(op) => self.rename(who, op),
            Op::Resolve(op) => self.resolve(who, op).map(|_| ()),
            Op::SetAttr(op) => self.set_attr(who, op),
            Op::Open(op) => self.open(who, op),
            Op::Close(op) => self.report(who, op.inode, op.length_at_least, true),
            Op::ReportLength(op) => self.report(who, op.inode, op.length_at_least, false),
            Op::Access(op) => self.node(op.inode)?.may(who, op.mask),
            Op::Lookup(op) => {
                let child = self.child(who, op.parent, &op.name)?.ok_or(Code::NotFound)?;
                ensure(!self.nodes[&child].cutting, Code::Busy)
            }
            Op::ReadLink(op) => {
                let is_symlink = self.node(op.inode)?.kind == FileKind::Symlink;
                ensure(is_symlink, Code::InvalidArgument)
            }
            Op::SetXattr(op) => self.set_xattr(who, op),
            Op::RemoveXattr(op) => self.remove_xattr(who, op),
            Op::GetXattr(op) => self.may_get_xattr(who, op),
            Op::ListXattrs(op) => self.node(op.inode).map(|_| ()),
            Op::ReadDir(op) => {
                let dir = self.node(op.inode)?;
                ensure(dir.is_dir(), Code::NotDirectory)?;
                dir.may(who, 4)
            }
            other => panic!("not modelled: {other:?}"),
        }
    }

    /// What a name means to somebody who may search its directory.
    pub(super) fn child(&self, who: &Who, parent: u64, name: &[u8]) -> Result<Option<u64>, Code> {
        let dir = self.node(parent)?;
        ensure(dir.is_dir(), Code::NotDirectory)?;
        dir.may(who, 1)?;
        Ok(dir.names.get(name).copied())
    }

    pub(super) fn may_add(&self, who: &Who, parent: u64) -> Outcome {
        ensure(self.nodes[&parent].nlink > 0, Code::NotFound)?;
        self.nodes[&parent].may(who, 3)
    }

    pub(super) fn may_remove(&self, who: &Who, parent: u64, victim: u64) -> Outcome {
        let (dir, victim) = (&self.nodes[&parent], &self.nodes[&victim]);
        dir.may(who, 3)?;
        let free = dir.mode & 0o1000 == 0 || dir.owned_by(who) || victim.owned_by(who);
        ensure(free, Code::NotPermitted)
    }

    pub(super) fn put(&mut self, parent: u64, name: &[u8], id: u64) {
        let is_dir = self.nodes[&id].is_dir();
        self.node_mut(id).parent = parent;
        let dir = self.node_mut(parent);
        assert_eq!(dir.names.insert(name.to_vec(), id), None);
        dir.mtime_ns = None;
        dir.nlink += u32::from(is_dir);
    }

    pub(super) fn take(&mut self, parent: u64, name: &[u8]) -> u64 {
        let dir = self.node_mut(parent);
        let id = dir.names.remove(name).expect("a name");
        dir.mtime_ns = None;
        let is_dir = self.nodes[&id].is_dir();
        self.node_mut(parent).nlink -= u32::from(is_dir);
        id
    }

    /// A name that is taken away already.
    pub(super) fn lose_name(&mut self, who: &Who, id: u64, parent: u64, name: &[u8]) {
        let node = self.node_mut(id);
        node.nlink = if node.is_dir() { 0 } else { node.nlink - 1 };
        if node.nlink == 0 {
            let kind = node.kind;
            self.quotas.folder_removed(id);
            if self.has_trash && matches!(kind, FileKind::Regular | FileKind::Directory) {
                self.keep(who, id, parent, name);
            } else {
                self.orphans.push(id);
            }
        }
    }

    fn make(&mut self, who: &Who, parent: u64, kind: FileKind, mode: u32) -> Result<u64, Code> {
        let dir = &self.nodes[&parent];
        let (mut mode, mut gid) = (mode, who.cred.gid);
        if dir.mode & 0o2000 != 0 {
            gid = dir.gid;
            if kind == FileKind::Directory {
                mode |= 0o2000;
            } else if mode & 0o2010 == 0o2010 && who.cred.uid != 0 && !has_group(who, gid) {
                mode &= !0o2000;
            }
        }
        let counted_by = dir.counted_by;
        let id = self.add(kind, mode, who.cred.uid, gid);
        self.node_mut(id).counted_by = counted_by;
        self.may_have_one_more(id)?;
        Ok(id)
    }

    fn make_node(&mut self, who: &Who, op: &pb::MakeNodeOp) -> Outcome {
        let there = self.child(who, op.parent, &op.name)?;
        ensure(there.is_none(), Code::Exists)?;
        self.may_add(who, op.parent)?;
        let mode = match op.kind() {
            FileKind::Symlink => 0o777,
            FileKind::Directory => op.mode & 0o1777,
            _ => op.mode,
        };
        let device = op.kind() == FileKind::BlockDevice;
        ensure(!device || who.cred.uid == 0, Code::NotPermitted)?;
        let id = self.make(who, op.parent, op.kind(), mode)?;
        self.put(op.parent, &op.name, id);
        self.node_mut(id).target = op.symlink_target.to_vec();
        Ok(())
    }

    fn create(&mut self, who: &Who, op: &pb::CreateOp) -> Outcome {
        if let Some(inode) = self.child(who, op.parent, &op.name)? {
            ensure(!op.exclusive, Code::Exists)?;
            ensure(!self.nodes[&inode].is_dir(), Code::IsDirectory)?;
            let (read, write, truncate) = (op.read, op.write, op.truncate);
            return self.open(who, &pb::OpenOp { inode, read, write, truncate, execute: false });
        }
        self.may_add(who, op.parent)?;
        let id = self.make(who, op.parent, FileKind::Regular, op.mode)?;
        self.put(op.parent, &op.name, id);
        if op.write {
            self.node_mut(id).writers.insert(who.session, Writer::default());
        }
        Ok(())
    }

    fn create_unnamed(&mut self, who: &Who, op: &pb::CreateOp) -> Outcome {
        self.child(who, op.parent, b"")?;
        self.may_add(who, op.parent)?;
        let id = self.make(who, op.parent, FileKind::Regular, op.mode)?;
        let node = self.node_mut(id);
        node.writers.insert(who.session, Writer::default());
        node.nlink = 0;
        node.nameable = !op.exclusive;
        self.orphans.push(id);
        Ok(())
    }

    fn link(&mut self, who: &Who, op: &pb::LinkOp) -> Outcome {
        self.node(op.inode)?;
        let there = self.child(who, op.parent, &op.name)?;
        ensure(there.is_none(), Code::Exists)?;
        self.may_add(who, op.parent)?;
        ensure(!self.nodes[&op.inode].is_dir(), Code::NotPermitted)?;
        let node = self.node_mut(op.inode);
        let is_mine = node.nameable && node.writers.contains_key(&who.session);
        ensure(node.nlink > 0 || is_mine, Code::NotFound)?;
        node.nlink += 1;
        node.nameable = false;
        self.orphans.retain(|orphan| *orphan != op.inode);
        self.put(op.parent, &op.name, op.inode);
        Ok(())
    }

    fn unlink(&mut self, who: &Who, op: &pb::UnlinkOp) -> Outcome {
        let id = self.child(who, op.parent, &op.name)?.ok_or(Code::NotFound)?;
        self.may_remove(who, op.parent, id)?;
        self.may_replace(id, op.directory)?;
        ensure(self.nodes[&id].names.is_empty(), Code::NotEmpty)?;
        self.take(op.parent, &op.name);
        self.lose_name(who, id, op.parent, &op.name);
        Ok(())
    }

    pub(super) fn may_replace(&self, victim: u64, by_directory: bool) -> Outcome {
        let is_dir = self.nodes[&victim].is_dir();
        ensure(is_dir || !by_directory, Code::NotDirectory)?;
        ensure(!is_dir || by_directory, Code::IsDirectory)
    }

    pub(crate) fn collect(&mut self, id: u64) {
        self.orphans.retain(|orphan| *orphan != id);
        assert_eq!(self.nodes.remove(&id).map(|node| node.nlink), Some(0));
        self.forget_quotas();
    }
}
