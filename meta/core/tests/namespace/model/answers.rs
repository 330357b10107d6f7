//! What a good answer brings, beside that it is one.

use ff2_proto::pb::{self, ns_request::Op};

use super::tree::Tree;
use crate::volume::Who;

impl Tree {
    /// After the operation took effect here and there.
    pub(super) fn check_answer(&self, who: &Who, op: &Op, reply: &pb::NsReply) {
        let named = |parent: u64, name: &[u8]| {
            let told = reply.attr.map(|attr| attr.inode);
            assert_eq!(told, self.nodes[&parent].names.get(name).copied(), "{op:?}");
        };
        match op {
            Op::Lookup(op) => named(op.parent, &op.name),
            Op::Create(op) if op.unnamed => {
                assert_eq!(reply.attr.map(|attr| attr.inode), Some(self.next_inode - 1));
            }
            Op::Create(op) => named(op.parent, &op.name),
            Op::MakeNode(op) => named(op.parent, &op.name),
            Op::Link(op) => named(op.parent, &op.name),
            Op::Resolve(op) => {
                let told = reply.attr.map(|attr| attr.inode);
                assert_eq!(told, self.resolve(who, op).ok(), "{op:?}");
            }
            Op::ReadLink(op) => assert_eq!(reply.target, self.nodes[&op.inode].target),
            Op::GetXattr(op) => {
                assert_eq!(reply.xattr_value, self.nodes[&op.inode].xattrs[&op.name[..]]);
            }
            Op::ListXattrs(op) => {
                assert_eq!(reply.xattr_names, self.nodes[&op.inode].xattr_names(who));
            }
            _ => {}
        }
    }
}
