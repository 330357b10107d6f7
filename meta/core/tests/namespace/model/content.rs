//! The model's files: modes, owners, sizes and writers.

use ff2_proto::pb::{self, Code, FileKind};

use super::tree::{Tree, Writer, ensure, has_group};
use crate::volume::Who;

type Outcome = Result<(), Code>;

impl Tree {
    pub(super) fn set_attr(&mut self, who: &Who, op: &pb::SetAttrOp) -> Outcome {
        let node = self.node(op.inode)?.clone();
        ensure(!node.cutting, Code::Busy)?;
        let root = who.cred.uid == 0;
        let owner = node.owned_by(who);
        ensure(op.mode.is_none() || owner, Code::NotPermitted)?;
        if let Some(uid) = op.uid {
            ensure(root || (owner && uid == node.uid), Code::NotPermitted)?;
        }
        if let Some(gid) = op.gid {
            let own_group = gid == node.gid || has_group(who, gid);
            ensure(root || (owner && own_group), Code::NotPermitted)?;
        }
        let chooses = |at: Option<i64>, now: bool| at.is_some() && !now;
        let chosen = chooses(op.atime_ns, op.atime_now) || chooses(op.mtime_ns, op.mtime_now);
        ensure(owner || !chosen, Code::NotPermitted)?;
        if (op.atime_now || op.mtime_now) && !owner {
            node.may(who, 2)?;
        }
        if op.drop_privileges {
            let is_writer = node.writers.contains_key(&who.session);
            ensure(is_writer || node.may(who, 2).is_ok(), Code::AccessDenied)?;
            self.node_mut(op.inode).drop_privileges();
        }
        if let Some(size) = op.size {
            ensure(!node.is_dir(), Code::IsDirectory)?;
            ensure(node.kind == FileKind::Regular, Code::InvalidArgument)?;
            if op.by_handle {
                ensure(node.writers.contains_key(&who.session), Code::BadHandle)?;
            } else {
                node.may(who, 2)?;
            }
            self.resize(who, op.inode, size)?;
        }
        self.change_owner(op.inode, op.uid, op.gid)?;
        let node = self.node_mut(op.inode);
        if op.uid.is_some() || op.gid.is_some() {
            node.uid = op.uid.unwrap_or(node.uid);
            node.gid = op.gid.unwrap_or(node.gid);
            if !node.is_dir() {
                node.drop_privileges();
            }
        }
        if let Some(mode) = op.mode {
            let keeps_setgid = root || has_group(who, node.gid);
            node.mode = if keeps_setgid { mode } else { mode & !0o2000 };
        }
        // What time it is now is the leader's affair.
        if op.atime_ns.is_some() || op.atime_now {
            node.atime_ns = op.atime_ns.filter(|_| !op.atime_now);
        }
        if op.mtime_ns.is_some() || op.mtime_now {
            node.mtime_ns = op.mtime_ns.filter(|_| !op.mtime_now);
        }
        Ok(())
    }

    fn resize(&mut self, who: &Who, id: u64, size: u64) -> Outcome {
        self.may_grow(id, size)?;
        let node = self.node_mut(id);
        let uncertain = !node.writers.is_empty() || node.doubt;
        node.cutting = size <= node.size && (node.data > size || uncertain);
        node.size = size;
        node.mtime_ns = None;
        if who.cred.uid != 0 {
            node.drop_privileges();
        }
        if node.cutting {
            let others = node.writers.iter_mut().filter(|(session, _)| **session != who.session);
            others.for_each(|(_, writer)| writer.overtaken = true);
        }
        Ok(())
    }

    pub(super) fn finish_truncate(&mut self, id: u64) {
        let node = self.node_mut(id);
        assert!(node.cutting);
        node.cutting = false;
        node.data = node.data.min(node.size);
    }

    pub(super) fn open(&mut self, who: &Who, op: &pb::OpenOp) -> Outcome {
        let node = self.node(op.inode)?;
        let changes = op.write || op.truncate;
        ensure(!node.is_dir() || !changes, Code::IsDirectory)?;
        ensure(node.kind != FileKind::Symlink, Code::SymlinkLoop)?;
        node.may(who, 4 * u32::from(op.read) + 2 * u32::from(changes))?;
        ensure(!node.cutting, Code::Busy)?;
        if node.kind != FileKind::Regular {
            return Ok(());
        }
        if op.truncate {
            self.resize(who, op.inode, 0)?;
        }
        if op.write {
            self.counts_again(op.inode);
            self.node_mut(op.inode).writers.entry(who.session).or_default();
        }
        Ok(())
    }

    /// Something was written up to `length`.
    pub(super) fn report(&mut self, who: &Who, id: u64, length: u64, close: bool) -> Outcome {
        let node = self.node(id)?;
        let overtaken = node.writers.get(&who.session).ok_or(Code::BadHandle)?.overtaken;
        ensure(!node.cutting, Code::Busy)?;
        let node = self.node_mut(id);
        node.mtime_ns = None;
        if overtaken {
            node.doubt = true;
        } else {
            node.size = node.size.max(length);
            node.data = node.data.max(length);
        }
        if who.cred.uid != 0 {
            node.drop_privileges();
        }
        if close {
            node.writers.remove(&who.session);
            node.nameable = false;
        }
        Ok(())
    }

    pub(super) fn expire(&mut self, session: u64) {
        for node in self.nodes.values_mut() {
            if let Some(Writer { lost, .. }) = node.writers.get_mut(&session) {
                *lost = true;
                node.doubt = true;
                node.nameable = false;
            }
        }
    }

    pub(super) fn recover(&mut self, id: u64, length: u64) -> Outcome {
        let node = self.node_mut(id);
        ensure(!node.cutting, Code::Busy)?;
        node.size = node.size.max(length);
        node.data = node.data.max(length);
        node.doubt = false;
        node.mtime_ns = None;
        node.writers.retain(|_, writer| !writer.lost);
        self.forget_quotas();
        Ok(())
    }
}
