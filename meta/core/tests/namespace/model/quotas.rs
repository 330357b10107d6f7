//! The model's quotas: what counts is looked for anew each time.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb::{self, Code, FileKind};
use pb::quota_key::Of;

use super::tree::{Node, Tree, ensure};

type Outcome = Result<(), Code>;

/// `u64::MAX`: no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) inodes: u64,
    pub(super) bytes: u64,
}

impl Limits {
    const NONE: Self = Self { inodes: u64::MAX, bytes: u64::MAX };
}

#[derive(Clone, Debug)]
struct FolderQuota {
    limits: Limits,
    /// The next folder with a quota that this one lies in; 0: none.
    above: u64,
    removed: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas {
    folders: BTreeMap<u64, FolderQuota>,
    users: BTreeMap<u32, Limits>,
    groups: BTreeMap<u32, Limits>,
}

/// Inodes and bytes.
type Amount = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Folder(u64),
    User(u32),
    Group(u32),
}

impl Quotas {
    pub(super) fn folder_removed(&mut self, id: u64) {
        if let Some(quota) = self.folders.get_mut(&id) {
            quota.removed = true;
            quota.limits = Limits::NONE;
        }
    }

    fn limits(&self, key: Key) -> Option<Limits> {
        match key {
            Key::Folder(id) => self.folders.get(&id).map(|quota| quota.limits),
            Key::User(uid) => self.users.get(&uid).copied(),
            Key::Group(gid) => self.groups.get(&gid).copied(),
        }
    }

    /// A folder and those that it lies in, as far as they have quotas.
    fn chain(&self, folder: u64) -> BTreeSet<Key> {
        let mut chain = BTreeSet::new();
        let mut at = folder;
        while let Some(quota) = self.folders.get(&at) {
            chain.insert(Key::Folder(at));
            at = quota.above;
        }
        chain
    }

    fn keys(&self, node: &Node) -> BTreeSet<Key> {
        let mut keys = self.chain(node.counted_by);
        keys.extend([Key::User(node.uid), Key::Group(node.gid)]);
        keys
    }

    pub(super) fn of_owner(&mut self, of: Of, limits: Limits) {
        match of {
            Of::Uid(uid) => drop(self.users.insert(uid, limits)),
            Of::Gid(gid) => drop(self.groups.insert(gid, limits)),
            Of::Inode(_) => panic!("a folder's is set in the tree"),
        }
    }
}

impl Node {
    fn is_counted(&self) -> bool {
        self.nlink > 0 || !self.writers.is_empty()
    }

    fn amount(&self) -> Amount {
        (1, if self.kind == FileKind::Regular { self.size } else { 0 })
    }
}

impl Tree {
    /// Of an empty folder.
    pub(super) fn set_quota(&mut self, folder: u64, limits: Limits) {
        let above = std::mem::replace(&mut self.node_mut(folder).counted_by, folder);
        self.quotas.folders.insert(folder, FolderQuota { limits, above, removed: false });
    }

    /// Inodes and bytes, of each quota that there is.
    pub(super) fn usage(&self) -> Vec<(Of, Amount)> {
        let folders = self.quotas.folders.keys().map(|id| (Of::Inode(*id), Key::Folder(*id)));
        let users = self.quotas.users.keys().map(|uid| (Of::Uid(*uid), Key::User(*uid)));
        let groups = self.quotas.groups.keys().map(|gid| (Of::Gid(*gid), Key::Group(*gid)));
        folders.chain(users).chain(groups).map(|(of, key)| (of, self.used(key))).collect()
    }

    fn used(&self, key: Key) -> Amount {
        let counted = self.nodes.values().filter(|node| node.is_counted());
        let here = counted.filter(|node| self.quotas.keys(node).contains(&key));
        here.map(Node::amount).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn have_room(&self, keys: &BTreeSet<Key>, more: Amount) -> Outcome {
        for &key in keys {
            let Some(limits) = self.quotas.limits(key) else { continue };
            let used = self.used(key);
            ensure(more.0 == 0 || used.0 + more.0 <= limits.inodes, Code::QuotaExceeded)?;
            ensure(more.1 == 0 || used.1 + more.1 <= limits.bytes, Code::QuotaExceeded)?;
        }
        Ok(())
    }

    /// Whether there is room for a node that was just made.
    pub(super) fn may_have_one_more(&self, id: u64) -> Outcome {
        let mut without = self.clone();
        let node = without.nodes.remove(&id).expect("it was just made");
        without.have_room(&self.quotas.keys(&node), (1, 0))
    }

    pub(super) fn may_grow(&self, id: u64, size: u64) -> Outcome {
        let node = &self.nodes[&id];
        self.have_room(&self.quotas.keys(node), (0, size.saturating_sub(node.size)))
    }

    /// Only asks: the caller changes it.
    pub(super) fn change_owner(&self, id: u64, uid: Option<u32>, gid: Option<u32>) -> Outcome {
        let node = &self.nodes[&id];
        let user = uid.filter(|uid| *uid != node.uid).map(Key::User);
        let group = gid.filter(|gid| *gid != node.gid).map(Key::Group);
        let keys: BTreeSet<Key> = user.into_iter().chain(group).collect();
        if node.is_counted() { self.have_room(&keys, node.amount()) } else { Ok(()) }
    }

    /// It is about to be written.
    pub(super) fn counts_again(&mut self, id: u64) {
        let is_gone = !self.quotas.folders.contains_key(&self.nodes[&id].counted_by);
        if is_gone && !self.nodes[&id].is_counted() {
            self.node_mut(id).counted_by = 0;
        }
    }

    /// An inode that has no name in this moment comes into a folder.
    pub(super) fn arrive(&mut self, id: u64, folder: u64, is_other_folder: bool) -> Outcome {
        let to = self.nodes[&folder].counted_by;
        let node = &self.nodes[&id];
        if node.is_dir() && node.counted_by == id {
            let above = self.quotas.folders[&id].above;
            self.have_room(&self.entered(above, to), self.used(Key::Folder(id)))?;
            self.quotas.folders.get_mut(&id).expect("looked at above").above = to;
            return Ok(());
        }
        if node.counted_by == to {
            return Ok(());
        }
        if node.is_dir() {
            ensure(node.names.is_empty() || !is_other_folder, Code::CrossVolume)?;
        }
        if node.is_dir() || node.nlink <= 1 {
            self.transfer(id, to)?;
        }
        Ok(())
    }

    /// An inode from the trash comes into a folder.
    pub(super) fn arrive_from_trash(&mut self, id: u64, folder: u64) -> Outcome {
        let to = self.nodes[&folder].counted_by;
        let was_counted = self.nodes[&id].is_counted();
        self.transfer(id, to)?;
        let node = &self.nodes[&id];
        if was_counted { Ok(()) } else { self.have_room(&self.quotas.keys(node), node.amount()) }
    }

    fn transfer(&mut self, id: u64, to: u64) -> Outcome {
        let node = &self.nodes[&id];
        if node.is_counted() {
            self.have_room(&self.entered(node.counted_by, to), node.amount())?;
        }
        self.node_mut(id).counted_by = to;
        Ok(())
    }

    fn entered(&self, from: u64, to: u64) -> BTreeSet<Key> {
        &self.quotas.chain(to) - &self.quotas.chain(from)
    }

    /// Quotas of folders that are gone go with the last inode that they count.
    pub(super) fn forget_quotas(&mut self) {
        let gone: Vec<u64> =
            self.quotas.folders.iter().filter(|(_, q)| q.removed).map(|(id, _)| *id).collect();
        for id in gone {
            if self.used(Key::Folder(id)).0 == 0 {
                self.quotas.folders.remove(&id);
            }
        }
    }
}
