//! Random choices, and the operations that they become.

use ff2_proto::{
    TRASH_INODES,
    pb::{self, FileKind, ns_request::Op},
};
use proptest::prelude::*;

use super::tree::Tree;
use crate::ops::*;

/// Choices that become an operation once it is known what there is.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) action: u8,
    pub(super) who: usize,
    inode: u8,
    pub(super) parents: [u8; 2],
    names: [usize; 2],
    mode: usize,
    pub(super) flags: u8,
    pub(super) length: u64,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const XATTRS: [&str; 4] = ["user.a", "user.b", "trusted.t", "security.s"];
const MODES: [u32; 8] = [0o777, 0o755, 0o700, 0o1777, 0o2775, 0o555, 0o6755, 0o644];
/// Through symlinks, whose targets are names; `.`, `..` and slashes where programs put them.
const BETWEEN: [&str; 4] = ["/", "/../", "/./", "//"];
pub(super) const USERS: [(u32, u32, &[u32]); 3] = [(0, 0, &[]), (10, 100, &[]), (11, 101, &[100])];

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        (any::<u8>(), 0..USERS.len(), any::<u8>(), any::<[u8; 2]>()),
        ([0..NAMES.len(), 0..NAMES.len()], 0..MODES.len(), any::<u8>(), 0..5_000_u64),
    );
    let step = step.prop_map(|((action, who, inode, parents), (names, mode, flags, length))| {
        Step { action, who, inode, parents, names, mode, flags, length }
    });
    prop::collection::vec(step, 1..120)
}

impl Step {
    /// One that is or was there: removed and collected ones are asked for, too.
    fn inode(&self, tree: &Tree) -> u64 {
        1 + u64::from(self.inode) % tree.next_inode
    }

    /// Mostly a directory.
    fn parent(&self, place: usize, tree: &Tree) -> u64 {
        let pick = u64::from(self.parents[place]);
        if pick >= 240 {
            return 1 + pick % tree.next_inode;
        }
        let dirs = tree.directories();
        dirs[pick as usize % dirs.len()]
    }

    fn flag(&self, bit: u8) -> bool {
        self.flags & (1 << bit) != 0
    }

    pub(super) fn op(&self, tree: &Tree) -> Op {
        let inode = self.inode(tree);
        let (from, to) = (self.parent(0, tree), self.parent(1, tree));
        let [name, other] = self.names.map(|index| NAMES[index]);
        let mode = MODES[self.mode];
        match self.action % 48 {
            0..=4 => mkdir(from, name, mode),
            5..=7 => Op::Create(pb::CreateOp {
                exclusive: self.flag(0),
                truncate: self.flag(1),
                write: self.flag(2),
                read: self.flag(3),
                ..open_or_create(from, name, mode)
            }),
            8 => symlink(from, name, other),
            9 => mknod(from, name, FileKind::Fifo, mode),
            10 => mknod(from, name, FileKind::BlockDevice, mode),
            11 | 12 => link(inode, from, name),
            13 | 14 => unlink(from, name),
            15 => rmdir(from, name),
            16..=20 => Op::Rename(pb::RenameOp {
                no_replace: self.flags.is_multiple_of(5),
                exchange: self.flags.is_multiple_of(4),
                ..rename(from, name, to, other)
            }),
            21 => chmod(inode, mode),
            22 => {
                let ids = [None, Some(10), Some(11), Some(100), Some(101)];
                let [uid, gid] = self.parents.map(|pick| ids[usize::from(pick) % ids.len()]);
                chown(inode, uid, gid)
            }
            23 => truncate(inode, self.length),
            24 => ftruncate(inode, self.length),
            25 => Op::Open(pb::OpenOp {
                inode,
                read: self.flag(0),
                write: self.flag(1),
                truncate: self.flag(2),
                execute: false,
            }),
            26 => close(inode, self.length),
            27 => report(inode, self.length),
            28 | 29 => lookup(from, name),
            30 => access(inode, u32::from(self.flags & 7)),
            31 => Op::ReadDir(pb::ReadDirOp { inode: from, ..Default::default() }),
            32 => Op::ReadLink(pb::ReadLinkOp { inode }),
            33 => self.utimens(inode),
            34..=36 => {
                let value = vec![self.flags; self.length as usize % 40];
                let Op::SetXattr(op) = set_xattr(inode, XATTRS[self.names[1]], &value) else {
                    unreachable!("it is one");
                };
                Op::SetXattr(pb::SetXattrOp { create: self.flag(0), replace: self.flag(1), ..op })
            }
            37 => remove_xattr(inode, XATTRS[self.names[1]]),
            38 => get_xattr(inode, XATTRS[self.names[1]]),
            39 => list_xattrs(inode),
            40 => Op::Create(pb::CreateOp {
                unnamed: true,
                write: true,
                exclusive: self.flag(0),
                ..open_or_create(from, "", mode)
            }),
            41 => drop_privileges(inode),
            // Linked while it is written, mostly: who made it is who names it.
            42 => link(tree.next_inode.saturating_sub(1 + u64::from(self.inode % 3)), from, name),
            43 => self.take_back(tree, to, other),
            44 => self.remove_for_good(tree),
            _ => self.resolve(from, name, other),
        }
    }

    fn utimens(&self, inode: u64) -> Op {
        let at = |bit| self.flag(bit).then_some(self.length as i64 - 2_000);
        let (atime_ns, mtime_ns) = (at(0), at(1));
        let (atime_now, mtime_now) = (self.flag(2) && self.flag(3), self.flag(2) && self.flag(4));
        Op::SetAttr(pb::SetAttrOp { atime_ns, mtime_ns, atime_now, mtime_now, ..set(inode) })
    }

    fn resolve(&self, base: u64, name: &str, other: &str) -> Op {
        let between = BETWEEN[usize::from(self.flags >> 6)];
        let path = match self.flags & 7 {
            0 => format!("/{name}{between}{other}"),
            1 => format!("{name}{between}{other}/"),
            2..=4 => format!("{name}{between}{other}"),
            _ => name.to_owned(),
        };
        Op::Resolve(pb::ResolveOp { base, path: path.into(), follow_last: self.flag(3) })
    }

    /// An entry's folder in `/.trash` and its name there. Without a trash: what is not there.
    fn entry(&self, tree: &Tree) -> (u64, String) {
        let files = tree.kept_files();
        let Some((entry, ..)) = files.get(usize::from(self.inode) % files.len().max(1)) else {
            return (self.parent(0, tree), "1-a".into());
        };
        let kept = &tree.kept[entry];
        let name = String::from_utf8(kept.name.clone()).expect("names of the test are text");
        (TRASH_INODES.0 + 1 + u64::from(kept.removed_by), format!("{entry}-{name}"))
    }

    fn take_back(&self, tree: &Tree, to: u64, name: &str) -> Op {
        let (folder, entry) = self.entry(tree);
        let no_replace = self.flag(0);
        Op::Rename(pb::RenameOp { no_replace, ..rename(folder, &entry, to, name) })
    }

    fn remove_for_good(&self, tree: &Tree) -> Op {
        let (folder, entry) = self.entry(tree);
        unlink(folder, &entry)
    }
}
