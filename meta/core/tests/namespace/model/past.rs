//! Snapshots: each shows the model as it was, to everybody what they may see.

use std::collections::BTreeMap;

use ff2_proto::{
    ROOT_INODE, SNAPSHOTS_FOLDER,
    pb::{self, Code, FileKind, SnapshotState, SnapshotStep, ns_request::Op},
};

use super::{Pair, tree::Tree};
use crate::ops::*;

/// So many at a time.
const SNAPSHOTS_MAX: usize = 2;

impl Pair {
    /// Makes one, or removes the oldest.
    pub(super) fn step_snapshots(&mut self) {
        if self.snapshots.len() < SNAPSHOTS_MAX {
            let name = format!("s{}", self.made);
            self.made += 1;
            let id = self.snapshot_step(SnapshotStep::Begin, &name, 0).expect("one that is new").id;
            self.snapshot_step(SnapshotStep::Cut, "", id);
            let mut tree = self.tree.clone();
            // It shows lengths as they were set.
            tree.nodes.values_mut().for_each(|node| node.cutting = false);
            self.snapshots.insert(name, tree);
            return;
        }
        let (name, _) = self.snapshots.pop_first().expect("there are as many as may be");
        let mut record = self.snapshot_step(SnapshotStep::Remove, &name, 0).expect("it is there");
        while record.state() == SnapshotState::Removing {
            record = self.snapshot_step(SnapshotStep::PassOn, "", record.id).expect("it is going");
        }
        self.snapshot_step(SnapshotStep::Forget, "", record.id);
    }

    fn snapshot_step(
        &mut self,
        step: SnapshotStep,
        name: &str,
        id: u32,
    ) -> Option<pb::SnapshotRecord> {
        let name = name.to_owned().into();
        let op = Op::StepSnapshot(pb::StepSnapshotOp { step: step.into(), name, id });
        self.volume.lead(op).expect("a step").snapshots.pop()
    }

    pub(super) fn compare_snapshots(&mut self) {
        for (name, tree) in self.snapshots.clone() {
            let numbers = self.numbers_of(&name, &tree);
            self.compare_access(&numbers, &tree);
        }
    }

    /// Looks through a snapshot: number of each inode then and now.
    fn numbers_of(&self, name: &str, tree: &Tree) -> BTreeMap<u64, u64> {
        let look = |op| self.volume.look(op).expect("an answer");
        let named = |parent, name: &str| look(lookup(parent, name)).attr.expect("an attr");
        let folder = named(ROOT_INODE.0, std::str::from_utf8(SNAPSHOTS_FOLDER).expect("text"));
        let root = named(folder.inode, name);
        let mut numbers = BTreeMap::from([(ROOT_INODE.0, root.inode)]);
        let mut left = vec![ROOT_INODE.0];
        while let Some(id) = left.pop() {
            let (inode, node) = (numbers[&id], &tree.nodes[&id]);
            let attr = look(Op::GetAttr(pb::GetAttrOp { inode })).attr.expect("an attr");
            let got = (attr.kind(), attr.mode, attr.uid, attr.gid, attr.nlink, attr.origin);
            let expected = (node.kind, node.mode, node.uid, node.gid, node.nlink, id);
            assert_eq!(got, expected, "inode {id} in {name}");
            if node.kind == FileKind::Regular {
                assert_eq!(attr.size, node.size, "inode {id} in {name}");
            }
            if node.kind == FileKind::Symlink {
                let target = look(Op::ReadLink(pb::ReadLinkOp { inode })).target;
                assert_eq!(target, node.target, "inode {id} in {name}");
            }
            for (key, value) in &node.xattrs {
                let name = key.clone().into();
                let found = look(Op::GetXattr(pb::GetXattrOp { inode, name }));
                assert_eq!(found.xattr_value, *value, "inode {id}");
            }
            if node.is_dir() {
                let page = look(read_dir(inode, 0, 100));
                let mut found: Vec<_> = page.entries.iter().map(|e| e.name.to_vec()).collect();
                found.sort();
                let expected: Vec<_> = node.names.keys().cloned().collect();
                assert_eq!(found, expected, "directory {id} in {name}");
                for entry in page.entries {
                    let child = node.names[&entry.name[..]];
                    numbers.insert(child, entry.attr.expect("an attr").inode);
                    left.push(child);
                }
            }
        }
        numbers
    }

    /// Everybody may do there what was allowed, and change nothing.
    fn compare_access(&mut self, numbers: &BTreeMap<u64, u64>, tree: &Tree) {
        for who in self.users.clone() {
            for (id, inode) in numbers {
                let questions: [fn(u64) -> Op; 6] = [
                    |inode| lookup(inode, "a"),
                    |inode| access(inode, 5),
                    |inode| read_dir(inode, 0, 1),
                    |inode| get_xattr(inode, "user.a"),
                    |inode| get_xattr(inode, "trusted.t"),
                    open_read,
                ];
                for question in questions {
                    let expected = tree.clone().apply(&who, &question(*id));
                    let got = self.volume.ask(&who, question(*inode)).map(|_| ());
                    assert_eq!(got, expected, "{who:?} {:?}", question(*id));
                }
                for change in
                    [chmod(*inode, 0o777), link(*inode, 1, "z"), touch(*inode, "z", 0o600)]
                {
                    assert_eq!(self.volume.ask(&who, change).unwrap_err(), Code::ReadOnly);
                }
            }
        }
    }
}
