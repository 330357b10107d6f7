//! `/lost+found`: inodes without a name get one here, `#` and their number; and directories that are gone are made anew
//! here for the names in them.

use ff2_proto::{ROOT_INODE, Status, pb, pb::FileKind, status::Code};

use super::Outcome;
use crate::{
    kv::KvRead,
    namespace::{
        dir,
        inode::{self, Inode},
        keys::{self, Tag},
        number, quota,
        tx::{self, Tx},
    },
};

const NAME: &[u8] = b"lost+found";
/// Names that are tried for one inode: somebody may have made such names.
const TRIES: u32 = 16;

/// The folder, if there is one.
pub(super) fn meant(kv: &dyn KvRead) -> Option<u64> {
    dir::meant(kv, ROOT_INODE.0, NAME)
}

/// Gives an inode without a name one; returns its path. The caller stores the inode.
pub(super) fn take_in(tx: &mut Tx<'_>, inode: &mut Inode) -> Result<String, Status> {
    let mut folder = open(tx)?;
    let name = free_name(tx, &folder, inode.id())?;
    if inode.is_dir() {
        inode.parent = folder.id();
    }
    dir::insert(tx, &mut folder, name.as_bytes(), inode);
    tx.put_inode(&folder);
    Ok(format!("/lost+found/{name}"))
}

/// Makes it if there is none: root's alone, since who may see what is found nobody knows.
fn open(tx: &mut Tx<'_>) -> Result<Inode, Status> {
    let mut root = inode::load_dir(&tx.kv, ROOT_INODE.0)?;
    if let Some(entry) = dir::lookup(&tx.kv, &root, NAME)? {
        let folder = inode::load_named(&tx.kv, &entry)?;
        if folder.is_dir() && folder.attr.nlink > 0 {
            return Ok(folder);
        }
        let why = "/lost+found is no folder: rename it, and repair again";
        return Err(Status::new(Code::InvalidArgument, why));
    }
    let id = number::next(tx);
    let folder = new(tx, id, &root)?;
    dir::insert(tx, &mut root, NAME, &folder);
    tx.put_inode(&root);
    tx.put_inode(&folder);
    Ok(folder)
}

/// A directory of root's in `parent`. Quotas count it, and do not refuse it.
fn new(tx: &mut Tx<'_>, id: u64, parent: &Inode) -> Result<Inode, Status> {
    let mut folder = tx::blank(id, FileKind::Directory, tx.now_ns);
    folder.attr.mode = 0o700;
    folder.attr.layout = parent.attr.layout;
    folder.attr.quota = parent.attr.quota;
    folder.parent = parent.id();
    tx.volume.inodes += 1;
    quota::add(tx, &folder)?;
    Ok(folder)
}

fn free_name(tx: &Tx<'_>, folder: &Inode, id: u64) -> Result<String, Status> {
    for attempt in 0..TRIES {
        let name = if attempt == 0 { format!("#{id}") } else { format!("#{id}.{attempt}") };
        if dir::lookup(&tx.kv, folder, name.as_bytes())?.is_none() {
            return Ok(name);
        }
    }
    let why = format!("/lost+found has all names for inode {id}: move what is there away");
    Err(Status::new(Code::Exists, why))
}

/// A directory that is gone, for the names in it. Nobody can have changed these since they were counted.
pub(super) fn folder(tx: &mut Tx<'_>, op: &pb::MendFolder) -> Outcome {
    let has = super::given(op.has.as_ref())?;
    let prefix = keys::one(Tag::Dentry, op.inode);
    let is_empty = tx.kv.scan(&prefix, &keys::end_of(&prefix), 1).is_empty();
    let was_given = number::count_of(tx.volume.number_key, op.inode) < tx.volume.next_inode;
    let is_missing = inode::find(&tx.kv, op.inode)?.is_none();
    if is_empty || !was_given || !is_missing || super::is_listed_orphan(&tx.kv, op.inode) {
        return Ok(None);
    }
    let above = open(tx)?;
    let mut folder = new(tx, op.inode, &above)?;
    folder.entries = has.entries;
    folder.next_cookie = folder.next_cookie.max(has.next_cookie);
    folder.attr.nlink = links(has);
    let path = take_in(tx, &mut folder)?;
    tx.put_inode(&folder);
    Ok(Some(format!(
        "directory {} was gone with {} names in it: made anew as {path}",
        op.inode, has.entries
    )))
}

/// Of a directory: its name, `.`, and the `..` of each in it.
pub(super) fn links(has: &pb::FoundNames) -> u32 {
    u32::try_from(has.subdirectories.saturating_add(2)).unwrap_or(u32::MAX)
}
