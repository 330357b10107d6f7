//! What users see of the trash: `/.trash`, with a folder for each user that has removed something, named by the
//! uid, in which the files are under the number of their entry and the name that they had. No key holds any of
//! it: these inodes and names are made up from the entries. Files are read, taken back (`mv`) and removed
//! for good (`rm`) there; nothing else is changed.

use bytes::Bytes;
use ff2_proto::{
    ROOT_INODE, Status, TRASH_INODES, TRASH_NAME, limits as wire,
    pb::{self, FileKind, ns_request::Op},
    status::Code,
};

use super::{Inode, Tx, empty::give_up, find, keys, restore::give_name};
use crate::{
    kv::KvRead,
    namespace::{confine, dir, inode, keys::Tag, limits::FIRST_COOKIE, orphans, perm, tx, unlink},
};

const FOLDER: u64 = TRASH_INODES.0;
const FIRST_USER: u64 = FOLDER + 1;

/// Whether this is the number of the trash folder or of a user's in it.
pub(in crate::namespace) fn is_folder(inode: u64) -> bool {
    inode >= FOLDER
}

fn user_of(folder: u64) -> Option<u32> {
    u32::try_from(folder.checked_sub(FIRST_USER)?).ok()
}

/// The folder of this number, as if it were stored. `None`: there is none, as there is no trash.
pub(in crate::namespace) fn inode(kv: &dyn KvRead, id: u64) -> Result<Option<Inode>, Status> {
    if !is_in_use(&tx::volume(kv)?) || (id != FOLDER && user_of(id).is_none()) {
        return Ok(None);
    }
    let made_ns = inode::load(kv, ROOT_INODE.0)?.attr.btime_ns;
    let mut folder = tx::blank(id, FileKind::Directory, made_ns);
    // Never empty, so that nobody removes or replaces it.
    folder.entries = 1;
    (folder.attr.mode, folder.parent) = (0o555, ROOT_INODE.0);
    if let Some(uid) = user_of(id) {
        folder.attr.uid = uid;
        (folder.attr.mode, folder.parent) = (0o700, FOLDER);
    }
    Ok(Some(folder))
}

/// Whether a name that is not stored may be one of those here, without a look at the keys.
pub(in crate::namespace) fn may_name(parent: u64, name: &[u8]) -> bool {
    is_folder(parent) || (parent == ROOT_INODE.0 && name == TRASH_NAME)
}

fn is_in_use(volume: &pb::VolumeRecord) -> bool {
    volume.trash_keep_s > 0 || volume.trash_entries > 0
}

/// What a name means in one of the folders, or in the root of the volume, where nothing stored has it.
pub(in crate::namespace) fn named(
    kv: &dyn KvRead,
    parent: u64,
    name: &[u8],
) -> Result<Option<pb::DentryRecord>, Status> {
    let folder = |id| pb::DentryRecord { inode: id, kind: FileKind::Directory.into(), cookie: 0 };
    if parent == ROOT_INODE.0 {
        let is_it = name == TRASH_NAME && is_in_use(&tx::volume(kv)?);
        return Ok(is_it.then(|| folder(FOLDER)));
    }
    let text = std::str::from_utf8(name).unwrap_or_default();
    if parent == FOLDER {
        let uid = text.parse::<u32>().ok().filter(|uid| uid.to_string() == text);
        return Ok(uid.map(|uid| folder(FIRST_USER + u64::from(uid))));
    }
    let Some(uid) = user_of(parent) else { return Ok(None) };
    let digits = name.iter().position(|byte| *byte == b'-').unwrap_or_default();
    let number = std::str::from_utf8(&name[..digits]).unwrap_or_default().parse().ok();
    let Some(entry) = number else { return Ok(None) };
    let key = keys::two(Tag::TrashOfUser, uid.into(), entry);
    let (Some(_), Some(record)) = (kv.get(&key), find(kv, entry)?) else { return Ok(None) };
    let is_it = shown(entry, &record.name) == name;
    let inode = record.inode;
    let kind = FileKind::Regular.into();
    Ok(is_it.then_some(pb::DentryRecord { inode, kind, cookie: entry }))
}

/// The name of an entry in its user's folder.
fn shown(entry: u64, name: &[u8]) -> Bytes {
    let mut shown = format!("{entry}-").into_bytes();
    shown.extend_from_slice(name);
    shown.truncate(wire::NAME_BYTES_MAX);
    Bytes::from(shown)
}

/// A page of one of the folders, for who may read it.
pub(in crate::namespace) fn read_dir(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    folder: &Inode,
    after_cookie: u64,
    limit: usize,
) -> Result<pb::NsReply, Status> {
    let from = (after_cookie + 1).saturating_sub(FIRST_COOKIE);
    let mut entries = match user_of(folder.id()) {
        Some(uid) => files(kv, uid, from, limit + 1)?,
        None => users(kv, cred, from, limit + 1)?,
    };
    let end = entries.len() <= limit;
    entries.truncate(limit);
    Ok(pb::NsReply { attr: Some(folder.attr), entries, end, ..Default::default() })
}

fn files(kv: &dyn KvRead, uid: u32, from: u64, limit: usize) -> Result<Vec<pb::Entry>, Status> {
    let prefix = keys::one(Tag::TrashOfUser, uid.into());
    let from = keys::two(Tag::TrashOfUser, uid.into(), from);
    let mut entries = Vec::new();
    for (key, _) in kv.scan(&from, &keys::end_of(&prefix), limit) {
        let entry = keys::split(&key).and_then(|(_, rest)| keys::number(rest)).unwrap_or_default();
        let Some(record) = find(kv, entry)? else { continue };
        let attr =
            pb::Attr { inode: record.inode, kind: FileKind::Regular.into(), ..Default::default() };
        let name = shown(entry, &record.name);
        entries.push(pb::Entry { name, cookie: entry + FIRST_COOKIE, attr: Some(attr) });
    }
    Ok(entries)
}

/// The users that have removed something; for all but root only themselves.
fn users(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    from: u64,
    limit: usize,
) -> Result<Vec<pb::Entry>, Status> {
    let end = keys::end_of(&[Tag::TrashOfUser as u8]);
    let mut entries = Vec::new();
    let mut from = from;
    while entries.len() < limit
        && let Some((key, _)) = kv.scan(&keys::one(Tag::TrashOfUser, from), &end, 1).pop()
        && let Some((uid, _)) = keys::split(&key)
    {
        from = uid + 1;
        if !perm::is_root(cred) && u64::from(cred.uid) != uid {
            continue;
        }
        let id = FIRST_USER + uid;
        let attr = pb::Attr { inode: id, kind: FileKind::Directory.into(), ..Default::default() };
        let name = Bytes::from(uid.to_string());
        entries.push(pb::Entry { name, cookie: uid + FIRST_COOKIE, attr: Some(attr) });
    }
    Ok(entries)
}

/// Refuses what would change one of the folders, but for names that are taken from them.
pub(in crate::namespace) fn check(op: &Op) -> Result<(), Status> {
    let refused = match op {
        Op::Unlink(_) => false,
        Op::Rename(op) => is_folder(op.new_parent) || (is_folder(op.parent) && op.exchange),
        op => confine::inodes(op).into_iter().flatten().any(is_folder),
    };
    if refused {
        let why = "the trash is not written: take files back (mv) or remove them for good (rm)";
        return Err(Status::new(Code::ReadOnly, why));
    }
    Ok(())
}

/// `rm` of a file in the trash.
pub(in crate::namespace) fn remove(
    tx: &mut Tx<'_>,
    op: &pb::UnlinkOp,
) -> Result<pb::NsReply, Status> {
    let (folder, mut inode) = mine(tx, op.parent, &op.name)?;
    unlink::check_kind(&inode, op.directory)?;
    give_up(tx, &mut inode)?;
    tx.put_inode(&inode);
    Ok(pb::NsReply {
        attr: Some(inode.attr),
        parent_attr: Some(folder.attr),
        replaced_attr: Some(inode.attr),
        ..Default::default()
    })
}

/// `mv` of a file out of the trash, onto another file if it must be.
pub(in crate::namespace) fn take_back(
    tx: &mut Tx<'_>,
    op: &pb::RenameOp,
) -> Result<pb::NsReply, Status> {
    let (_, mut inode) = mine(tx, op.parent, &op.name)?;
    inode.settled()?;
    let mut folder = inode::load_dir(&tx.kv, op.new_parent)?;
    perm::search(&tx.cred, &folder)?;
    dir::check_name(&op.new_name)?;
    perm::add_name(&tx.cred, &folder)?;
    let mut reply = pb::NsReply::default();
    if let Some(entry) = dir::lookup(&tx.kv, &folder, &op.new_name)? {
        if op.no_replace {
            return Err(Code::Exists.into());
        }
        let mut replaced = inode::load_named(&tx.kv, &entry)?;
        unlink::check_kind(&replaced, false)?;
        perm::remove_name(&tx.cred, &folder, &replaced)?;
        dir::remove(tx, &mut folder, &op.new_name, &entry);
        let lost = super::Lost { parent: op.new_parent, name: &op.new_name };
        orphans::lose_name(tx, &mut replaced, lost)?;
        tx.put_inode(&replaced);
        reply.replaced_attr = Some(replaced.attr);
    }
    give_name(tx, &mut inode, &mut folder, &op.new_name)?;
    tx.put_inode(&folder);
    tx.put_inode(&inode);
    (reply.attr, reply.parent_attr) = (Some(inode.attr), Some(folder.attr));
    Ok(reply)
}

/// A file in a user's folder, for whom that is.
fn mine(tx: &Tx<'_>, folder: u64, name: &[u8]) -> Result<(Inode, Inode), Status> {
    let folder = inode::load_dir(&tx.kv, folder)?;
    perm::search(&tx.cred, &folder)?;
    dir::check_name(name)?;
    let Some(entry) = dir::lookup(&tx.kv, &folder, name)? else {
        return Err(Code::NotFound.into());
    };
    perm::check(&tx.cred, &folder, perm::WRITE | perm::EXECUTE)?;
    let inode = inode::load_named(&tx.kv, &entry)?;
    Ok((folder, inode))
}
