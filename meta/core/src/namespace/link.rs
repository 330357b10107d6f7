//! Hard links.

use ff2_proto::{Status, limits as wire, pb, status::Code};

use super::{dir, inode, orphans, perm, tx::Tx};

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::LinkOp) -> Result<pb::NsReply, Status> {
    let mut inode = inode::load(&tx.kv, op.inode)?;
    let mut parent = inode::load_dir(&tx.kv, op.parent)?;
    perm::search(&tx.cred, &parent)?;
    dir::check_name(&op.name)?;
    if dir::lookup(&tx.kv, &parent, &op.name)?.is_some() {
        return Err(Code::Exists.into());
    }
    perm::add_name(&tx.cred, &parent)?;
    if inode.is_dir() {
        return Err(Status::new(Code::NotPermitted, "directories have one name"));
    }
    if inode.attr.nlink == 0 && !orphans::gets_name(tx, &inode)? {
        return Err(Status::new(Code::NotFound, "the inode lost its last name"));
    }
    if inode.attr.nlink >= wire::LINKS_MAX {
        return Err(Code::TooManyLinks.into());
    }
    inode.attr.nlink += 1;
    inode.changed(tx.now_ns);
    dir::insert(tx, &mut parent, &op.name, &inode);
    tx.put_inode(&parent);
    tx.put_inode(&inode);
    Ok(pb::NsReply { attr: Some(inode.attr), parent_attr: Some(parent.attr), ..Default::default() })
}
