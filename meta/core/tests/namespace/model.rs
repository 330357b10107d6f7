//! Random operations against a plain model of a POSIX tree: every answer and the whole tree agree
//! after every step. (The volume under test also checks, after every command, that its repetition
//! changes nothing and that its keys are sound.)

mod answers;
mod content;
mod kept;
mod past;
mod paths;
mod quotas;
mod rename;
mod steps;
mod tree;
mod xattrs;

use ff2_meta_core::namespace::{next_to_go_from_trash, touched};
use ff2_proto::pb::{self, Code, FileKind, ns_request::Op};
use pb::quota_key::Of;
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::{
    ops::*,
    volume::{Volume, Who},
};
use quotas::Limits;
use steps::{Step, USERS, steps};
use tree::Tree;

/// Entries of a page, so few that directories have several.
const PAGE: u32 = 3;

/// What a volume has beside a tree.
#[derive(Clone, Copy, Default)]
struct Setting {
    /// Removed files and folders are kept.
    trash: bool,
    /// Two folders, one in the other, a user and a group have limits.
    quotas: bool,
}

struct Pair {
    volume: Volume,
    users: Vec<Who>,
    tree: Tree,
    /// What each snapshot is to show.
    snapshots: BTreeMap<String, Tree>,
    /// Snapshots so far.
    made: u32,
}

impl Pair {
    fn new(setting: Setting) -> Self {
        let mut volume = Volume::new();
        let users: Vec<Who> =
            USERS.iter().map(|(uid, gid, groups)| volume.user(*uid, *gid, groups)).collect();
        volume.ask(&users[0], chmod(1, 0o777)).expect("root may");
        let snapshots = BTreeMap::new();
        let mut pair = Self { volume, users, tree: Tree::new(), snapshots, made: 0 };
        if setting.trash {
            let keep = Op::SetTrash(pb::SetTrashOp { keep_s: 60 });
            pair.volume.lead(keep).expect("a trash");
            pair.tree.has_trash = true;
        }
        if setting.quotas {
            pair.set_quotas();
        }
        pair
    }

    fn set_quotas(&mut self) {
        let mut above = 1;
        for limits in [Limits { inodes: 9, bytes: 9_000 }, Limits { inodes: 4, bytes: 5_000 }] {
            let op = mkdir(above, "a", 0o777);
            above = self.ask_both(0, &op).expect("a folder").attr.expect("an attr").inode;
            self.set_quota(Of::Inode(above), limits);
            self.tree.set_quota(above, limits);
        }
        for (of, limits) in [
            (Of::Uid(10), Limits { inodes: 7, bytes: 8_000 }),
            (Of::Gid(101), Limits { inodes: 6, bytes: u64::MAX }),
        ] {
            self.set_quota(of, limits);
            self.tree.quotas.of_owner(of, limits);
        }
    }

    fn set_quota(&mut self, of: Of, limits: Limits) {
        let limit = |max: u64| Some(pb::QuotaLimit { max: (max < u64::MAX).then_some(max) });
        let key = Some(pb::QuotaKey { of: Some(of) });
        let (bytes, inodes) = (limit(limits.bytes), limit(limits.inodes));
        let set = pb::SetQuotaOp { key, bytes, inodes, path: "/".into() };
        self.volume.lead(Op::SetQuota(set)).expect("a quota");
        let all = Op::ListQuotas(pb::ListQuotasOp { counting: true, ..Default::default() });
        while let Some(quota) = self.volume.look(all.clone()).expect("quotas").quotas.pop() {
            let count = pb::CountQuotaOp { key: quota.key, counted: quota.counted };
            self.volume.lead(Op::CountQuota(count)).expect("a step of a count");
        }
    }

    /// Both agree whether it may be done.
    fn ask_both(&mut self, user: usize, op: &Op) -> Option<pb::NsReply> {
        let who = &self.users[user];
        let expected = self.tree.apply(who, op);
        let got = self.volume.ask(who, op.clone());
        let code = got.as_ref().map(|_| ()).map_err(|code| *code);
        assert_eq!(code, expected, "{who:?} {op:?}");
        let reply = got.ok()?;
        self.tree.check_answer(who, op, &reply);
        Some(reply)
    }

    fn run(&mut self, step: &Step) {
        if step.action >= 224 {
            self.housekeeping(step);
        } else {
            let op = step.op(&self.tree);
            let before = self.seen();
            let request = pb::NsRequest { op: Some(op.clone()), ..Default::default() };
            let touched = touched(&self.volume.kv, &request);
            self.ask_both(step.who, &op);
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
        match (step.action % 32) / 2 {
            0..=2 => {
                for cut in self.volume.truncations() {
                    let finish = finish_truncate(cut.inode, cut.truncate_version);
                    self.volume.lead(finish).expect("finished");
                    self.tree.finish_truncate(cut.inode);
                }
            }
            3 | 4 => {
                for orphan in self.volume.orphans().into_iter().filter(|orphan| !orphan.nameable) {
                    self.volume.lead(collect(&[orphan.inode])).expect("collected");
                    self.tree.collect(orphan.inode);
                }
            }
            5 | 6 => {
                for doubt in self.volume.doubts() {
                    let expected = self.tree.recover(doubt.inode, step.length);
                    let got = self.volume.lead(recover(doubt.inode, doubt.doubt, step.length));
                    assert_eq!(got.map(|_| ()), expected);
                }
            }
            7 => {
                let (uid, gid, groups) = USERS[step.who];
                let old = self.users[step.who].session;
                self.volume.lead(expire(&[old])).expect("expired");
                self.tree.expire(old);
                self.users[step.who] = self.volume.user(uid, gid, groups);
            }
            8 | 9 => self.empty_trash(1 + usize::from(step.flags % 3)),
            10..=12 => {
                let entry = 1 + u64::from(step.flags) % self.tree.next_kept;
                let restore = pb::RestoreTrashOp { entry, ..Default::default() };
                let expected = self.tree.restore(entry);
                let got = self.volume.lead(Op::RestoreTrash(restore));
                assert_eq!(got.map(|_| ()), expected, "entry {entry}");
            }
            _ => {
                self.step_snapshots();
                self.compare_snapshots();
            }
        }
    }

    /// The oldest go: none of them was removed at the time of another.
    fn empty_trash(&mut self, count: usize) {
        let next = next_to_go_from_trash(&self.volume.kv, self.volume.now_ns, count);
        let Some(removed_by_ns) = next.expect("entries") else { return };
        let empty = pb::EmptyTrashOp { removed_by_ns, limit: 256 };
        self.volume.lead(Op::EmptyTrash(empty)).expect("emptied");
        self.tree.empty(count);
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
        let orphans: Vec<(u64, bool)> =
            self.volume.orphans().iter().map(|o| (o.inode, o.nameable)).collect();
        let nameable = |id: &u64| self.tree.nodes[id].nameable;
        let expected: Vec<(u64, bool)> =
            self.tree.orphans.iter().map(|id| (*id, nameable(id))).collect();
        assert_eq!(orphans, expected);
        self.compare_trash();
        self.compare_usage();
        let doubts: Vec<u64> = self.volume.doubts().iter().map(|d| d.inode).collect();
        assert_eq!(doubts, self.tree.doubts());
    }

    fn compare_trash(&self) {
        let list = Op::ListTrash(pb::ListTrashOp { limit: 1_000, ..Default::default() });
        let got = self.volume.look(list).expect("entries").trash;
        let got: Vec<(u64, u64, u32)> =
            got.iter().map(|entry| (entry.entry, entry.inode, entry.removed_by)).collect();
        assert_eq!(got, self.tree.kept_files());
    }

    fn compare_usage(&self) {
        let all = Op::ListQuotas(pb::ListQuotasOp::default());
        let quotas = self.volume.look(all).expect("quotas").quotas;
        for (of, used) in self.tree.usage() {
            let key = Some(pb::QuotaKey { of: Some(of) });
            // One that has ended is not told of.
            if let Some(quota) = quotas.iter().find(|quota| quota.key == key) {
                assert_eq!((quota.inodes, quota.bytes), used, "{of:?}");
            }
        }
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
        agree(&steps, Setting::default());
    }

    #[test]
    fn with_a_trash_it_is_one_as_well(steps in steps()) {
        agree(&steps, Setting { trash: true, ..Setting::default() });
    }

    #[test]
    fn within_quotas_too(steps in steps()) {
        agree(&steps, Setting { quotas: true, ..Setting::default() });
    }

    #[test]
    fn and_with_both(steps in steps()) {
        agree(&steps, Setting { trash: true, quotas: true });
    }
}

fn agree(steps: &[Step], setting: Setting) {
    let mut pair = Pair::new(setting);
    for step in steps {
        pair.run(step);
    }
    pair.compare_snapshots();
    // Equal logs give equal states.
    assert_eq!(pair.volume.replayed().hash(), pair.volume.kv.hash());
}
