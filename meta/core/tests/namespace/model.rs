//! Random operations against a plain model of a POSIX tree: every answer and the whole tree agree
//! after every step. (The volume under test also checks, after every command, that its repetition
//! changes nothing and that its keys are sound.)

mod answers;
mod content;
mod tree;
mod xattrs;

use ff2_meta_core::namespace::touched;
use ff2_proto::pb::{self, Code, FileKind, ns_request::Op};
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::{
    ops::*,
    volume::{Volume, Who},
};
use tree::Tree;

/// Choices that become an operation once it is known what there is.
#[derive(Clone, Debug)]
struct Step {
    action: u8,
    who: usize,
    inode: u8,
    parents: [u8; 2],
    names: [usize; 2],
    mode: usize,
    flags: u8,
    length: u64,
}

/// Entries of a page, so few that directories have several.
const PAGE: u32 = 3;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const XATTRS: [&str; 4] = ["user.a", "user.b", "trusted.t", "security.s"];
const MODES: [u32; 8] = [0o777, 0o755, 0o700, 0o1777, 0o2775, 0o555, 0o6755, 0o644];
const USERS: [(u32, u32, &[u32]); 3] = [(0, 0, &[]), (10, 100, &[]), (11, 101, &[100])];

fn steps() -> impl Strategy<Value = Vec<Step>> {
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

    fn op(&self, tree: &Tree) -> Op {
        let inode = self.inode(tree);
        let (from, to) = (self.parent(0, tree), self.parent(1, tree));
        let [name, other] = self.names.map(|index| NAMES[index]);
        let mode = MODES[self.mode];
        match self.action % 40 {
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
            _ => list_xattrs(inode),
        }
    }

    fn utimens(&self, inode: u64) -> Op {
        let at = |bit| self.flag(bit).then_some(self.length as i64 - 2_000);
        let (atime_ns, mtime_ns) = (at(0), at(1));
        let (atime_now, mtime_now) = (self.flag(2) && self.flag(3), self.flag(2) && self.flag(4));
        Op::SetAttr(pb::SetAttrOp { atime_ns, mtime_ns, atime_now, mtime_now, ..set(inode) })
    }
}

struct Pair {
    volume: Volume,
    users: Vec<Who>,
    tree: Tree,
    /// Removed files and folders are kept: nobody sees a difference, but for when they go.
    has_trash: bool,
}

impl Pair {
    fn new(has_trash: bool) -> Self {
        let mut volume = Volume::new();
        let users: Vec<Who> =
            USERS.iter().map(|(uid, gid, groups)| volume.user(*uid, *gid, groups)).collect();
        volume.ask(&users[0], chmod(1, 0o777)).expect("root may");
        if has_trash {
            let keep = Op::SetTrash(pb::SetTrashOp { keep_s: 60 });
            volume.lead(keep).expect("a trash");
        }
        Self { volume, users, tree: Tree::new(), has_trash }
    }

    fn run(&mut self, step: &Step) {
        if step.action >= 240 {
            self.housekeeping(step);
        } else {
            let op = step.op(&self.tree);
            let who = &self.users[step.who];
            let expected = self.tree.apply(who, &op);
            let before = self.seen();
            let request = pb::NsRequest { op: Some(op.clone()), ..Default::default() };
            let touched = touched(&self.volume.kv, &request);
            let got = self.volume.ask(who, op.clone());
            let code = got.as_ref().map(|_| ()).map_err(|code| *code);
            assert_eq!(code, expected, "{who:?} {op:?}");
            if let Ok(reply) = got {
                self.tree.check_answer(who, &op, &reply);
            }
            // Who caches any of them is told before: an inode that changed is among those named.
            for (inode, attr) in self.seen() {
                let is_known = before.get(&inode).is_none_or(|before| *before == attr);
                assert!(is_known || touched.contains(&inode), "{op:?} touched {inode} unnamed");
            }
        }
        self.compare();
    }

    /// What everybody sees of the inodes. A directory's entries show in its version.
    fn seen(&self) -> BTreeMap<u64, pb::Attr> {
        let look = |inode| self.volume.look(Op::GetAttr(pb::GetAttrOp { inode })).ok()?.attr;
        (1..self.tree.next_inode).filter_map(|inode| Some((inode, look(inode)?))).collect()
    }

    /// What the leader's driver does, and sessions that end.
    fn housekeeping(&mut self, step: &Step) {
        match step.action % 4 {
            0 => {
                for cut in self.volume.truncations() {
                    let finish = finish_truncate(cut.inode, cut.truncate_version);
                    self.volume.lead(finish).expect("finished");
                    self.tree.finish_truncate(cut.inode);
                }
            }
            1 => {
                if self.has_trash {
                    let (removed_by_ns, limit) = (self.volume.now_ns, 256);
                    let empty = pb::EmptyTrashOp { removed_by_ns, limit };
                    self.volume.lead(Op::EmptyTrash(empty)).expect("emptied");
                }
                for orphan in self.volume.orphans() {
                    self.volume.lead(collect(&[orphan.inode])).expect("collected");
                    self.tree.collect(orphan.inode);
                }
            }
            2 => {
                for doubt in self.volume.doubts() {
                    let expected = self.tree.recover(doubt.inode, step.length);
                    let got = self.volume.lead(recover(doubt.inode, doubt.doubt, step.length));
                    assert_eq!(got.map(|_| ()), expected);
                }
            }
            _ => {
                let (uid, gid, groups) = USERS[step.who];
                let old = self.users[step.who].session;
                self.volume.lead(expire(&[old])).expect("expired");
                self.tree.expire(old);
                self.users[step.who] = self.volume.user(uid, gid, groups);
            }
        }
    }

    fn compare(&self) {
        for id in 1..self.tree.next_inode + 2 {
            let got = self.volume.look(Op::GetAttr(pb::GetAttrOp { inode: id }));
            let Some(node) = self.tree.nodes.get(&id) else {
                assert_eq!(got, Err(Code::StaleInode), "inode {id}");
                continue;
            };
            if node.cutting {
                assert_eq!(got, Err(Code::Busy), "inode {id}");
                continue;
            }
            let attr = got.expect("an inode").attr.expect("an attr");
            let got = (attr.kind(), attr.mode, attr.uid, attr.gid, attr.nlink);
            assert_eq!(got, (node.kind, node.mode, node.uid, node.gid, node.nlink), "inode {id}");
            match node.kind {
                FileKind::Directory => {}
                FileKind::Symlink => assert_eq!(attr.size, node.target.len() as u64, "inode {id}"),
                _ => assert_eq!(attr.size, node.size, "inode {id}"),
            }
            assert!(node.atime_ns.is_none_or(|atime| attr.atime_ns == atime), "inode {id}");
            assert!(node.mtime_ns.is_none_or(|mtime| attr.mtime_ns == mtime), "inode {id}");
            if node.kind == FileKind::Directory {
                self.compare_names(id, node);
            }
        }
        let orphans: Vec<u64> = self.volume.orphans().iter().map(|o| o.inode).collect();
        if self.has_trash {
            assert!(orphans.iter().all(|orphan| self.tree.orphans.contains(orphan)));
        } else {
            assert_eq!(orphans, self.tree.orphans);
        }
        let doubts: Vec<u64> = self.volume.doubts().iter().map(|d| d.inode).collect();
        assert_eq!(doubts, self.tree.doubts());
    }

    fn compare_names(&self, id: u64, node: &tree::Node) {
        let mut names: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut after = 0;
        loop {
            let page = self.volume.look(read_dir(id, after, PAGE)).expect("entries");
            assert!(page.entries.len() <= PAGE as usize);
            for entry in page.entries {
                assert!(entry.cookie > after, "a page goes on behind the one before");
                after = entry.cookie;
                names.push((entry.name.to_vec(), entry.attr.expect("a number").inode));
            }
            if page.end {
                break;
            }
        }
        names.sort();
        let expected: Vec<(Vec<u8>, u64)> =
            node.names.iter().map(|(name, inode)| (name.clone(), *inode)).collect();
        assert_eq!(names, expected, "directory {id}");
    }
}

proptest! {
    #[test]
    fn the_volume_is_a_posix_tree(steps in steps()) {
        agree(&steps, false);
    }

    #[test]
    fn with_a_trash_it_is_one_as_well(steps in steps()) {
        agree(&steps, true);
    }
}

fn agree(steps: &[Step], has_trash: bool) {
    let mut pair = Pair::new(has_trash);
    for step in steps {
        pair.run(step);
    }
    // Equal logs give equal states.
    assert_eq!(pair.volume.replayed().hash(), pair.volume.kv.hash());
}
