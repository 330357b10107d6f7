//! What the namespace will answer to a change whose outcome this client knows beforehand, because nobody
//! else knows of what is changed, or may change it (docs/design/0006).
//!
//! The rules are those of the namespace machine (`ff2-meta-core`), for the cases in which they need
//! nothing but attributes. `None` always means: ask the namespace. That what is said here is what it
//! answers is looked at with each answer that comes (`client/src/journal.rs`).

use ff2_proto::{
    extras,
    pb::{self, FileKind},
};

const EXECUTE: u32 = 1;
const WRITE: u32 = 2;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const GROUP_EXECUTE: u32 = 0o010;
/// What makes the mode say less than the whole truth.
const ACLS: u32 = extras::ACCESS_ACL | extras::DEFAULT_ACL;

/// Something new, before it has a name.
#[derive(Clone, Copy, Debug)]
pub struct New {
    pub inode: u64,
    pub kind: FileKind,
    pub mode: u32,
    pub umask: u32,
    pub rdev: u64,
    /// Bytes of a symlink's target.
    pub size: u64,
    pub layout: Option<pb::Layout>,
    pub inline: bool,
}

/// Attributes after something was made in a folder: its own, and the folder's.
pub fn made(
    cred: &pb::Credentials,
    parent: &pb::Attr,
    new: &New,
    at_ns: i64,
) -> Option<(pb::Attr, pb::Attr)> {
    if !may_change_names(cred, parent) {
        return None;
    }
    let is_directory = new.kind == FileKind::Directory;
    let mode = match new.kind {
        FileKind::Directory => new.mode & (0o777 | STICKY),
        FileKind::Symlink => 0o777,
        FileKind::Regular | FileKind::Fifo | FileKind::Socket => new.mode & 0o7777,
        FileKind::CharDevice | FileKind::BlockDevice if is_root(cred) => new.mode & 0o7777,
        FileKind::CharDevice | FileKind::BlockDevice | FileKind::KindUnknown => return None,
    };
    let (mode, gid) = inherited(cred, parent, is_directory, mode);
    let is_symlink = new.kind == FileKind::Symlink;
    let child = pb::Attr {
        inode: new.inode,
        kind: new.kind.into(),
        mode: if is_symlink { mode } else { mode & !(new.umask & 0o777) },
        uid: cred.uid,
        gid,
        nlink: if is_directory { 2 } else { 1 },
        size: new.size,
        rdev: new.rdev,
        atime_ns: at_ns,
        mtime_ns: at_ns,
        ctime_ns: at_ns,
        btime_ns: at_ns,
        generation: 1,
        version: 1,
        layout: if is_directory { parent.layout } else { new.layout },
        extras: 0,
        inline: new.inline,
        snapshot: 0,
        origin: 0,
        quota: parent.quota,
    };
    let mut parent = names_changed(parent, at_ns);
    parent.nlink += u32::from(is_directory);
    Some((child, parent))
}

/// A folder's attributes after a name was taken away: of an empty folder (`directory`), or something else.
pub fn removed(
    cred: &pb::Credentials,
    parent: &pb::Attr,
    directory: bool,
    at_ns: i64,
) -> Option<pb::Attr> {
    let is_sticky = parent.mode & STICKY != 0;
    let may = may_change_names(cred, parent) && (!is_sticky || is_owner(cred, parent));
    let mut after = names_changed(parent, at_ns);
    after.nlink = after.nlink.checked_sub(u32::from(directory))?;
    may.then_some(after)
}

/// chmod, chown and utimens of what is the caller's own, or by root.
pub fn set(
    cred: &pb::Credentials,
    attr: &pb::Attr,
    op: &pb::SetAttrOp,
    at_ns: i64,
) -> Option<pb::Attr> {
    let is_plain = attr.extras == 0 && op.size.is_none() && !op.drop_privileges;
    if !is_plain || !is_owner(cred, attr) {
        return None;
    }
    let may_own = op.uid.is_none_or(|uid| is_root(cred) || uid == attr.uid)
        && op.gid.is_none_or(|gid| is_root(cred) || gid == attr.gid || in_group(cred, gid));
    if !may_own {
        return None;
    }
    let mut attr = *attr;
    if op.uid.is_some() || op.gid.is_some() {
        attr.uid = op.uid.unwrap_or(attr.uid);
        attr.gid = op.gid.unwrap_or(attr.gid);
        if attr.kind() != FileKind::Directory {
            attr.mode = without_privileges(attr.mode);
        }
    }
    if let Some(mode) = op.mode {
        attr.mode = mode & 0o7777;
        if !is_root(cred) && !in_group(cred, attr.gid) {
            attr.mode &= !SETGID;
        }
    }
    let time = |now: bool, chosen: Option<i64>, before| {
        if now { at_ns } else { chosen.unwrap_or(before) }
    };
    attr.atime_ns = time(op.atime_now, op.atime_ns, attr.atime_ns);
    attr.mtime_ns = time(op.mtime_now, op.mtime_ns, attr.mtime_ns);
    Some(changed(attr, at_ns))
}

/// The bytes of an inline file were written, as far as `end`.
pub fn written(
    cred: &pb::Credentials,
    attr: &pb::Attr,
    end: u64,
    mtime_ns: i64,
    at_ns: i64,
) -> Option<pb::Attr> {
    if attr.extras != 0 || !attr.inline {
        return None;
    }
    let mtime_ns = if mtime_ns == 0 { at_ns } else { mtime_ns };
    let mode = if is_root(cred) { attr.mode } else { without_privileges(attr.mode) };
    Some(changed(pb::Attr { size: attr.size.max(end), mtime_ns, mode, ..*attr }, at_ns))
}

/// The folder may be searched, by its mode alone.
pub fn may_search(cred: &pb::Credentials, folder: &pb::Attr) -> bool {
    allows(cred, folder, EXECUTE)
}

fn may_change_names(cred: &pb::Credentials, folder: &pb::Attr) -> bool {
    folder.nlink > 0 && allows(cred, folder, WRITE | EXECUTE)
}

fn changed(attr: pb::Attr, at_ns: i64) -> pb::Attr {
    pb::Attr { ctime_ns: attr.ctime_ns.max(at_ns), version: attr.version + 1, ..attr }
}

fn names_changed(folder: &pb::Attr, at_ns: i64) -> pb::Attr {
    changed(pb::Attr { mtime_ns: at_ns, ..*folder }, at_ns)
}

/// Whether the mode allows it for certain.
fn allows(cred: &pb::Credentials, folder: &pb::Attr, mask: u32) -> bool {
    if folder.extras & ACLS != 0 || folder.kind() != FileKind::Directory {
        return false;
    }
    let bits = if cred.uid == folder.uid {
        folder.mode >> 6
    } else if in_group(cred, folder.gid) {
        folder.mode >> 3
    } else {
        folder.mode
    };
    is_root(cred) || bits & mask == mask
}

fn inherited(
    cred: &pb::Credentials,
    parent: &pb::Attr,
    is_directory: bool,
    mode: u32,
) -> (u32, u32) {
    if parent.mode & SETGID == 0 {
        return (mode, cred.gid);
    }
    let gid = parent.gid;
    let is_privileged = mode & (SETGID | GROUP_EXECUTE) == SETGID | GROUP_EXECUTE;
    if is_directory {
        (mode | SETGID, gid)
    } else if is_privileged && !in_group(cred, gid) && !is_root(cred) {
        (mode & !SETGID, gid)
    } else {
        (mode, gid)
    }
}

fn without_privileges(mode: u32) -> u32 {
    if mode & GROUP_EXECUTE != 0 { mode & !(SETUID | SETGID) } else { mode & !SETUID }
}

fn is_root(cred: &pb::Credentials) -> bool {
    cred.uid == 0
}

fn is_owner(cred: &pb::Credentials, attr: &pb::Attr) -> bool {
    is_root(cred) || cred.uid == attr.uid
}

fn in_group(cred: &pb::Credentials, gid: u32) -> bool {
    cred.gid == gid || cred.groups.contains(&gid)
}
