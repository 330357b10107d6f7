//! Names in directories, and the cookies beside them.

use bytes::Bytes;
use ff2_proto::{Status, pb};
use prost::Message;

use super::{Outcome, given, shown};
use crate::{
    kv::{Kv, KvRead},
    namespace::{
        inode::{self, Inode, decode},
        keys::{self, Tag},
        limits,
        tx::Tx,
    },
};

/// What is wrong with a name.
enum Fault {
    /// It goes.
    Stray(&'static str),
    /// It says another kind than its inode has.
    Kind,
    /// It has no place in the order of its directory.
    Cookie,
}

pub(super) fn name(tx: &mut Tx<'_>, op: &pb::MendName) -> Outcome {
    let place = given(op.place.as_ref())?;
    let Some(entry) = stored(&tx.kv, place)? else { return Ok(None) };
    let parent = inode::find(&tx.kv, place.parent)?;
    let child = inode::find(&tx.kv, entry.inode)?;
    let what = format!("name {} in directory {}", shown(&place.name), place.parent);
    let fault = fault(&tx.kv, op, &entry, (parent.as_ref(), child.as_ref()))?;
    let done = match (fault, parent, child) {
        (None, ..) => return Ok(None),
        (Some(Fault::Stray(why)), ..) => {
            take_out(tx, place, &entry)?;
            format!("{what} {why}: removed")
        }
        (Some(Fault::Kind), Some(mut parent), Some(child)) => {
            let was_dir = entry.kind() == pb::FileKind::Directory;
            let links = &mut parent.attr.nlink;
            match (was_dir, child.is_dir()) {
                (true, false) if *links > 2 => *links -= 1,
                (false, true) => *links = links.saturating_add(1),
                _ => {}
            }
            put(tx, place, &pb::DentryRecord { kind: child.attr.kind, ..entry });
            parent.changed(tx.now_ns);
            tx.put_inode(&parent);
            format!("{what} said another kind than its inode: set")
        }
        (Some(Fault::Cookie), Some(mut parent), _) => {
            let cookie = parent.next_cookie.max(limits::FIRST_COOKIE);
            let key = keys::two(Tag::Cookie, place.parent, cookie);
            if tx.kv.get(&key).is_some() {
                // How far cookies were given out is mended first.
                return Ok(None);
            }
            parent.next_cookie = cookie + 1;
            forget_cookie(tx, place, entry.cookie);
            tx.kv.put(&key, place.name.clone());
            put(tx, place, &pb::DentryRecord { cookie, ..entry });
            parent.changed(tx.now_ns);
            tx.put_inode(&parent);
            format!("{what} was in no listing of it: listed")
        }
        (Some(Fault::Kind | Fault::Cookie), ..) => return Ok(None),
    };
    Ok(Some(done))
}

fn fault(
    kv: &dyn KvRead,
    op: &pb::MendName,
    entry: &pb::DentryRecord,
    (parent, child): (Option<&Inode>, Option<&Inode>),
) -> Result<Option<Fault>, Status> {
    let place = given(op.place.as_ref())?;
    let Some(child) = child else { return Ok(Some(Fault::Stray("leads to no inode"))) };
    let parent = match parent {
        // It is made anew.
        None => return Ok(None),
        Some(parent) if !parent.is_dir() => return Ok(Some(Fault::Stray("is in no directory"))),
        Some(parent) => parent,
    };
    if let Some(other) = op.other.as_ref().filter(|other| *other != place)
        && child.is_dir()
        && child.parent == other.parent
        && stored(kv, other)?.is_some_and(|entry| entry.inode == child.id())
    {
        return Ok(Some(Fault::Stray("is the second one of a directory")));
    }
    if child.kind() != entry.kind() {
        return Ok(Some(Fault::Kind));
    }
    let given_out = limits::FIRST_COOKIE..parent.next_cookie;
    let listed = kv.get(&keys::two(Tag::Cookie, place.parent, entry.cookie));
    let is_listed = listed.is_some_and(|name| name == place.name);
    Ok((!is_listed || !given_out.contains(&entry.cookie)).then_some(Fault::Cookie))
}

/// A cookie of no name.
pub(super) fn cookie(tx: &mut Tx<'_>, op: &pb::MendCookie) -> Outcome {
    let key = keys::two(Tag::Cookie, op.parent, op.cookie);
    let Some(name) = tx.kv.get(&key) else { return Ok(None) };
    let place = pb::Place { parent: op.parent, name };
    if stored(&tx.kv, &place)?.is_some_and(|entry| entry.cookie == op.cookie) {
        return Ok(None);
    }
    tx.kv.delete(&key);
    if let Some(mut parent) = inode::find(&tx.kv, op.parent)?.filter(Inode::is_dir) {
        parent.changed(tx.now_ns);
        tx.put_inode(&parent);
    }
    let name = shown(&place.name);
    Ok(Some(format!(
        "a listing of directory {} had {name}, which is not there: removed",
        op.parent
    )))
}

/// As [`crate::namespace::dir::remove`], where counts may be wrong.
pub(super) fn take_out(
    tx: &mut Tx<'_>,
    place: &pb::Place,
    entry: &pb::DentryRecord,
) -> Result<(), Status> {
    tx.kv.delete(&keys::dentry(place.parent, &place.name));
    forget_cookie(tx, place, entry.cookie);
    let Some(mut parent) = inode::find(&tx.kv, place.parent)?.filter(Inode::is_dir) else {
        return Ok(());
    };
    parent.entries = parent.entries.saturating_sub(1);
    if entry.kind() == pb::FileKind::Directory && parent.attr.nlink > 2 {
        parent.attr.nlink -= 1;
    }
    parent.modified(tx.now_ns);
    tx.put_inode(&parent);
    Ok(())
}

/// If it is this name's.
fn forget_cookie(tx: &mut Tx<'_>, place: &pb::Place, cookie: u64) {
    let key = keys::two(Tag::Cookie, place.parent, cookie);
    if tx.kv.get(&key).is_some_and(|name| name == place.name) {
        tx.kv.delete(&key);
    }
}

/// The name as it is stored.
pub(super) fn stored(
    kv: &dyn KvRead,
    place: &pb::Place,
) -> Result<Option<pb::DentryRecord>, Status> {
    kv.get(&keys::dentry(place.parent, &place.name)).map(|bytes| decode(&bytes)).transpose()
}

fn put(tx: &mut Tx<'_>, place: &pb::Place, entry: &pb::DentryRecord) {
    let key = keys::dentry(place.parent, &place.name);
    tx.kv.put(&key, Bytes::from(entry.encode_to_vec()));
}
