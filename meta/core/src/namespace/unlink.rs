//! unlink and rmdir.

use ff2_proto::{Status, pb, status::Code};

use super::{
    dir,
    inode::{self, Inode},
    orphans, perm,
    trash::{self, Lost},
    tx::Tx,
};

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::UnlinkOp) -> Result<pb::NsReply, Status> {
    if trash::folder::is_folder(op.parent) {
        return trash::folder::remove(tx, op);
    }
    let mut parent = inode::load_dir(&tx.kv, op.parent)?;
    perm::search(&tx.cred, &parent)?;
    dir::check_name(&op.name)?;
    let Some(entry) = dir::lookup(&tx.kv, &parent, &op.name)? else {
        return Err(Code::NotFound.into());
    };
    let mut victim = inode::load_named(&tx.kv, &entry)?;
    perm::remove_name(&tx.cred, &parent, &victim)?;
    check_kind(&victim, op.directory)?;
    if victim.entries > 0 {
        return Err(Code::NotEmpty.into());
    }
    dir::remove(tx, &mut parent, &op.name, &entry);
    let lost = Lost { parent: op.parent, name: &op.name };
    orphans::lose_name(tx, &mut victim, lost)?;
    tx.put_inode(&parent);
    tx.put_inode(&victim);
    Ok(pb::NsReply {
        attr: Some(victim.attr),
        parent_attr: Some(parent.attr),
        replaced_attr: Some(victim.attr),
        ..Default::default()
    })
}

/// Whether `victim` may be removed or replaced by something that is (not) a directory.
pub(super) fn check_kind(victim: &Inode, directory: bool) -> Result<(), Status> {
    match (directory, victim.is_dir()) {
        (true, false) => Err(Code::NotDirectory.into()),
        (false, true) => Err(Code::IsDirectory.into()),
        (true, true) | (false, false) => Ok(()),
    }
}
