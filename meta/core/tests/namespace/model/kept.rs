//! The model's trash: what was removed, until it is emptied or had back.

use ff2_proto::{
    TRASH_INODES,
    pb::{self, Code},
};

use super::tree::{Tree, ensure};
use crate::volume::Who;

type Outcome = Result<(), Code>;

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(super) inode: u64,
    pub(super) removed_by: u32,
    pub(super) parent: u64,
    pub(super) name: Vec<u8>,
}

impl Tree {
    pub(super) fn keep(&mut self, who: &Who, inode: u64, parent: u64, name: &[u8]) {
        let kept = Kept { inode, removed_by: who.cred.uid, parent, name: name.to_vec() };
        self.kept.insert(self.next_kept, kept);
        self.next_kept += 1;
    }

    /// Entry, inode and who removed it: folders are kept, and no entries.
    pub(super) fn kept_files(&self) -> Vec<(u64, u64, u32)> {
        let files = self.kept.iter().filter(|(_, kept)| !self.nodes[&kept.inode].is_dir());
        files.map(|(entry, kept)| (*entry, kept.inode, kept.removed_by)).collect()
    }

    fn entry_of(&self, inode: u64) -> Option<u64> {
        self.kept.iter().find(|(_, kept)| kept.inode == inode).map(|(entry, _)| *entry)
    }

    /// The oldest go for good.
    pub(super) fn empty(&mut self, count: usize) {
        for _ in 0..count {
            let Some((_, kept)) = self.kept.pop_first() else { return };
            self.orphans.push(kept.inode);
        }
    }

    /// As an administrator wants it: to where it was, with the folders that are missing.
    pub(super) fn restore(&mut self, entry: u64) -> Outcome {
        let before = self.clone();
        let outcome = self.attempt_restore(entry);
        if outcome.is_err() {
            *self = before;
        }
        self.forget_quotas();
        outcome
    }

    fn attempt_restore(&mut self, entry: u64) -> Outcome {
        let kept = self.kept.get(&entry).ok_or(Code::NotFound)?.clone();
        let node = &self.nodes[&kept.inode];
        ensure(!node.is_dir(), Code::NotFound)?;
        ensure(!node.cutting, Code::Busy)?;
        let mut missing = Vec::new();
        let mut folder = kept.parent;
        while let Some(entry) = self.entry_of(folder) {
            missing.push(entry);
            folder = self.kept[&entry].parent;
        }
        let is_there = self.nodes.get(&folder).is_some_and(|node| node.nlink > 0);
        ensure(is_there, Code::NotFound)?;
        for entry in missing.into_iter().rev() {
            let Kept { inode, name, .. } = self.kept[&entry].clone();
            folder = match self.nodes[&folder].names.get(&name).copied() {
                Some(other) => {
                    ensure(self.nodes[&other].is_dir(), Code::Exists)?;
                    other
                }
                None => {
                    self.give_name(entry, folder, &name)?;
                    inode
                }
            };
        }
        ensure(!self.nodes[&folder].names.contains_key(&kept.name), Code::Exists)?;
        self.give_name(entry, folder, &kept.name)
    }

    fn give_name(&mut self, entry: u64, folder: u64, name: &[u8]) -> Outcome {
        let id = self.kept[&entry].inode;
        self.arrive_from_trash(id, folder)?;
        self.kept.remove(&entry);
        let node = self.node_mut(id);
        node.nlink = if node.is_dir() { 2 } else { 1 };
        self.put(folder, name, id);
        Ok(())
    }

    /// An entry that a user names in the folder of a user.
    fn named(&self, who: &Who, folder: u64, name: &[u8]) -> Result<u64, Code> {
        ensure(self.has_trash, Code::StaleInode)?;
        let removed_by = folder - TRASH_INODES.0 - 1;
        let is_mine = who.cred.uid == 0 || u64::from(who.cred.uid) == removed_by;
        ensure(is_mine, Code::AccessDenied)?;
        let shown = |entry: u64| [format!("{entry}-").as_bytes(), &self.kept[&entry].name].concat();
        let found = self.kept.keys().copied().find(|entry| shown(*entry) == name);
        found.ok_or(Code::NotFound)
    }

    /// `mv` of a file out of the trash.
    pub(super) fn take_back(&mut self, who: &Who, op: &pb::RenameOp) -> Outcome {
        let entry = self.named(who, op.parent, &op.name)?;
        ensure(!self.nodes[&self.kept[&entry].inode].cutting, Code::Busy)?;
        let there = self.child(who, op.new_parent, &op.new_name)?;
        self.may_add(who, op.new_parent)?;
        if let Some(there) = there {
            ensure(!op.no_replace, Code::Exists)?;
            self.may_replace(there, false)?;
            self.may_remove(who, op.new_parent, there)?;
            self.take(op.new_parent, &op.new_name);
            self.lose_name(who, there, op.new_parent, &op.new_name);
        }
        self.give_name(entry, op.new_parent, &op.new_name)
    }

    /// `rm` of a file in the trash.
    pub(super) fn remove_for_good(&mut self, who: &Who, op: &pb::UnlinkOp) -> Outcome {
        let entry = self.named(who, op.parent, &op.name)?;
        let kept = self.kept.remove(&entry).expect("it was just found");
        self.orphans.push(kept.inode);
        Ok(())
    }
}
