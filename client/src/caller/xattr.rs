//! Extended attributes and ACLs, by inode number.

use ff2_proto::{InodeId, pb, pb::ns_request::Op};

use super::Caller;
use crate::Result;

/// What [`Caller::set_xattr`] expects to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrHow {
    /// Set it, whether there is one or not.
    #[default]
    Set,
    /// [`ff2_proto::Code::Exists`] if there is one.
    Create,
    /// [`ff2_proto::Code::NoAttribute`] if there is none.
    Replace,
}

impl Caller {
    /// The value; [`ff2_proto::Code::NoAttribute`] if there is none, or none that this user may know of.
    pub async fn get_xattr(&self, inode: InodeId, name: &[u8]) -> Result<Vec<u8>> {
        let op = pb::GetXattrOp { inode: inode.0, name: name.to_vec().into() };
        Ok(self.read(Op::GetXattr(op)).await?.xattr_value.to_vec())
    }

    /// The names that this user may know of.
    pub async fn list_xattrs(&self, inode: InodeId) -> Result<Vec<Vec<u8>>> {
        let op = pb::ListXattrsOp { inode: inode.0 };
        let reply = self.read(Op::ListXattrs(op)).await?;
        Ok(reply.xattr_names.iter().map(|name| name.to_vec()).collect())
    }

    /// ACLs are set under their names, in the form of Linux; the mode follows the access ACL.
    pub async fn set_xattr(
        &self,
        inode: InodeId,
        name: &[u8],
        value: &[u8],
        how: XattrHow,
    ) -> Result<pb::Attr> {
        let op = pb::SetXattrOp {
            inode: inode.0,
            name: name.to_vec().into(),
            value: value.to_vec().into(),
            create: how == XattrHow::Create,
            replace: how == XattrHow::Replace,
        };
        self.attr_of(self.mutate(Op::SetXattr(op)).await?)
    }

    pub async fn remove_xattr(&self, inode: InodeId, name: &[u8]) -> Result<pb::Attr> {
        let op = pb::RemoveXattrOp { inode: inode.0, name: name.to_vec().into() };
        self.attr_of(self.mutate(Op::RemoveXattr(op)).await?)
    }
}
