//! A POSIX tree as maps, with the rules written down once more and as directly as possible.

use std::collections::BTreeMap;

use ff2_proto::pb::{self, Code, FileKind, ns_request::Op};

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
        let mut tree = Self { nodes: BTreeMap::new(), next_inode: 1, orphans: vec![] };
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

    pub(crate) fn apply(&mut self, who: &Who, op: &Op) -> Outcome {
        match op {
            Op::MakeNode(op) => self.make_node(who, op),
            Op::Create(op) => self.create(who, op),
            Op::Link(op) => self.link(who, op),
            Op::Unlink(op) => self.unlink(who, op),
            Op::Rename(op) => self.rename(who, op),
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
    fn child(&self, who: &Who, parent: u64, name: &[u8]) -> Result<Option<u64>, Code> {
        let dir = self.node(parent)?;
        ensure(dir.is_dir(), Code::NotDirectory)?;
        dir.may(who, 1)?;
        Ok(dir.names.get(name).copied())
    }

    fn may_add(&self, who: &Who, parent: u64) -> Outcome {
        ensure(self.nodes[&parent].nlink > 0, Code::NotFound)?;
        self.nodes[&parent].may(who, 3)
    }

    fn may_remove(&self, who: &Who, parent: u64, victim: u64) -> Outcome {
        let (dir, victim) = (&self.nodes[&parent], &self.nodes[&victim]);
        dir.may(who, 3)?;
        let free = dir.mode & 0o1000 == 0 || dir.owned_by(who) || victim.owned_by(who);
        ensure(free, Code::NotPermitted)
    }

    fn put(&mut self, parent: u64, name: &[u8], id: u64) {
        let is_dir = self.nodes[&id].is_dir();
        let dir = self.node_mut(parent);
        assert_eq!(dir.names.insert(name.to_vec(), id), None);
        dir.mtime_ns = None;
        dir.nlink += u32::from(is_dir);
    }

    fn take(&mut self, parent: u64, name: &[u8]) -> u64 {
        let dir = self.node_mut(parent);
        let id = dir.names.remove(name).expect("a name");
        dir.mtime_ns = None;
        let is_dir = self.nodes[&id].is_dir();
        self.node_mut(parent).nlink -= u32::from(is_dir);
        id
    }

    fn lose_name(&mut self, id: u64) {
        let node = self.node_mut(id);
        node.nlink = if node.is_dir() { 0 } else { node.nlink - 1 };
        if node.nlink == 0 {
            self.orphans.push(id);
        }
    }

    fn make(&mut self, who: &Who, parent: u64, name: &[u8], kind: FileKind, mode: u32) -> u64 {
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
        let id = self.add(kind, mode, who.cred.uid, gid);
        self.put(parent, name, id);
        id
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
        let id = self.make(who, op.parent, &op.name, op.kind(), mode);
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
        let id = self.make(who, op.parent, &op.name, FileKind::Regular, op.mode);
        if op.write {
            self.node_mut(id).writers.insert(who.session, Writer::default());
        }
        Ok(())
    }

    fn link(&mut self, who: &Who, op: &pb::LinkOp) -> Outcome {
        self.node(op.inode)?;
        let there = self.child(who, op.parent, &op.name)?;
        ensure(there.is_none(), Code::Exists)?;
        self.may_add(who, op.parent)?;
        ensure(!self.nodes[&op.inode].is_dir(), Code::NotPermitted)?;
        ensure(self.nodes[&op.inode].nlink > 0, Code::NotFound)?;
        self.put(op.parent, &op.name, op.inode);
        self.node_mut(op.inode).nlink += 1;
        Ok(())
    }

    fn unlink(&mut self, who: &Who, op: &pb::UnlinkOp) -> Outcome {
        let id = self.child(who, op.parent, &op.name)?.ok_or(Code::NotFound)?;
        self.may_remove(who, op.parent, id)?;
        self.may_replace(id, op.directory)?;
        ensure(self.nodes[&id].names.is_empty(), Code::NotEmpty)?;
        self.take(op.parent, &op.name);
        self.lose_name(id);
        Ok(())
    }

    fn may_replace(&self, victim: u64, by_directory: bool) -> Outcome {
        let is_dir = self.nodes[&victim].is_dir();
        ensure(is_dir || !by_directory, Code::NotDirectory)?;
        ensure(!is_dir || by_directory, Code::IsDirectory)
    }

    /// Whether `inode` is reached from `top` downwards.
    fn contains(&self, top: u64, inode: u64) -> bool {
        top == inode || self.nodes[&top].names.values().any(|child| self.contains(*child, inode))
    }

    fn rename(&mut self, who: &Who, op: &pb::RenameOp) -> Outcome {
        ensure(self.node(op.parent)?.is_dir(), Code::NotDirectory)?;
        ensure(self.node(op.new_parent)?.is_dir(), Code::NotDirectory)?;
        ensure(!(op.no_replace && op.exchange), Code::InvalidArgument)?;
        let source = self.child(who, op.parent, &op.name)?;
        let target = self.child(who, op.new_parent, &op.new_name)?;
        let source = source.ok_or(Code::NotFound)?;
        ensure(self.nodes[&op.new_parent].nlink > 0, Code::NotFound)?;
        ensure(!op.no_replace || target.is_none(), Code::Exists)?;
        ensure(!op.exchange || target.is_some(), Code::NotFound)?;
        let moves = op.parent != op.new_parent;
        ensure(!moves || !self.contains(source, op.new_parent), Code::InvalidArgument)?;
        if let Some(target) = target {
            let code = if op.exchange { Code::InvalidArgument } else { Code::NotEmpty };
            ensure(!moves || !self.contains(target, op.parent), code)?;
            if target == source {
                return Ok(());
            }
        }
        self.may_remove(who, op.parent, source)?;
        match target {
            Some(target) => self.may_remove(who, op.new_parent, target)?,
            None => self.may_add(who, op.new_parent)?,
        }
        if let (Some(target), false) = (target, op.exchange) {
            self.may_replace(target, self.nodes[&source].is_dir())?;
        }
        let exchanged = target.filter(|_| op.exchange);
        for moved in [Some(source), exchanged].into_iter().flatten() {
            if moves && self.nodes[&moved].is_dir() {
                self.nodes[&moved].may(who, 2)?;
            }
        }
        if let (Some(target), false) = (target, op.exchange) {
            ensure(self.nodes[&target].names.is_empty(), Code::NotEmpty)?;
        }
        self.take(op.parent, &op.name);
        if let Some(target) = target {
            self.take(op.new_parent, &op.new_name);
            if op.exchange {
                self.put(op.parent, &op.name, target);
            } else {
                self.lose_name(target);
            }
        }
        self.put(op.new_parent, &op.new_name, source);
        Ok(())
    }

    pub(crate) fn collect(&mut self, id: u64) {
        self.orphans.retain(|orphan| *orphan != id);
        assert_eq!(self.nodes.remove(&id).map(|node| node.nlink), Some(0));
    }
}
