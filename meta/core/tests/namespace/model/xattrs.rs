//! The model's extended attributes, by the rules of xattr(7).

use ff2_proto::pb::{self, Code, FileKind};

use super::tree::{Node, Tree, ensure};
use crate::volume::Who;

type Outcome = Result<(), Code>;

impl Node {
    /// `user.` attributes are for files and directories: what a device or a symlink may do is not for its
    /// permissions to say.
    fn has_user_xattrs(&self) -> bool {
        matches!(self.kind, FileKind::Regular | FileKind::Directory)
    }

    fn may_change_xattr(&self, who: &Who, name: &[u8]) -> Outcome {
        if !name.starts_with(b"user.") {
            return ensure(who.cred.uid == 0, Code::NotPermitted);
        }
        ensure(self.has_user_xattrs(), Code::NotPermitted)?;
        let sticky = self.is_dir() && self.mode & 0o1000 != 0;
        ensure(!sticky || self.owned_by(who), Code::NotPermitted)?;
        self.may(who, 2)
    }

    /// Linux shows the names of `user.` and `security.` attributes to everybody.
    pub(super) fn xattr_names(&self, who: &Who) -> Vec<Vec<u8>> {
        let shown = |name: &&Vec<u8>| who.cred.uid == 0 || !name.starts_with(b"trusted.");
        self.xattrs.keys().filter(shown).cloned().collect()
    }
}

impl Tree {
    pub(super) fn set_xattr(&mut self, who: &Who, op: &pb::SetXattrOp) -> Outcome {
        let node = self.node(op.inode)?;
        ensure(!node.cutting, Code::Busy)?;
        node.may_change_xattr(who, &op.name)?;
        let exists = node.xattrs.contains_key(&op.name[..]);
        ensure(!op.create || !exists, Code::Exists)?;
        ensure(!op.replace || exists, Code::NoAttribute)?;
        let node = self.node_mut(op.inode);
        node.xattrs.insert(op.name.to_vec(), op.value.to_vec());
        Ok(())
    }

    pub(super) fn remove_xattr(&mut self, who: &Who, op: &pb::RemoveXattrOp) -> Outcome {
        let node = self.node(op.inode)?;
        ensure(!node.cutting, Code::Busy)?;
        node.may_change_xattr(who, &op.name)?;
        let node = self.node_mut(op.inode);
        ensure(node.xattrs.remove(&op.name[..]).is_some(), Code::NoAttribute)
    }

    pub(super) fn may_get_xattr(&self, who: &Who, op: &pb::GetXattrOp) -> Outcome {
        let node = self.node(op.inode)?;
        if op.name.starts_with(b"user.") {
            ensure(node.has_user_xattrs(), Code::NoAttribute)?;
            node.may(who, 4)?;
        }
        let hidden = op.name.starts_with(b"trusted.") && who.cred.uid != 0;
        ensure(!hidden && node.xattrs.contains_key(&op.name[..]), Code::NoAttribute)
    }
}
