//! readdir, in pages: cookies order the entries and never change while an entry lives, so a reader
//! sees every entry that was there all the time exactly once, whatever happens meanwhile.

use ff2_proto::{Status, limits as wire, pb, status::Code};

use super::{
    dir,
    inode::{self, Inode},
    keys::{self, Tag},
    perm, trash,
};
use crate::kv::KvRead;

pub(super) fn read_dir(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::ReadDirOp,
) -> Result<pb::NsReply, Status> {
    let dir = inode::load_dir(kv, op.inode)?;
    perm::check(cred, &dir, perm::READ)?;
    let limit = match op.limit {
        0 => wire::DIR_PAGE_ENTRIES_MAX,
        limit => limit.min(wire::DIR_PAGE_ENTRIES_MAX),
    } as usize;
    if trash::folder::is_folder(dir.id()) {
        return trash::folder::read_dir(kv, cred, &dir, op.after_cookie, limit);
    }
    let prefix = keys::one(Tag::Cookie, dir.id());
    let from = keys::two(Tag::Cookie, dir.id(), op.after_cookie.saturating_add(1));
    let mut page = kv.scan(&from, &keys::end_of(&prefix), limit + 1);
    let end = page.len() <= limit;
    page.truncate(limit);
    // Attributes need search permission, as looking each name up would.
    let plus = op.plus && perm::allows(cred, &dir, perm::EXECUTE);
    let mut entries = Vec::with_capacity(page.len());
    for (key, name) in page {
        let cookie = keys::split(&key).and_then(|(_, rest)| keys::number(rest));
        let entry = dir::lookup(kv, &dir, &name)?;
        let (Some(cookie), Some(entry)) = (cookie, entry) else {
            return Err(Status::new(Code::Corrupt, "a cookie without its name"));
        };
        entries.push(pb::Entry { name, cookie, attr: Some(attr(kv, &entry, plus)?) });
    }
    Ok(pb::NsReply { attr: Some(dir.attr), within: dir.parent, entries, end, ..Default::default() })
}

fn attr(kv: &dyn KvRead, entry: &pb::DentryRecord, plus: bool) -> Result<pb::Attr, Status> {
    if plus {
        let child: Inode = inode::load_named(kv, entry)?;
        // One that is being truncated is named only: whoever needs more looks it up, and waits.
        if child.settled().is_ok() {
            return Ok(child.attr);
        }
    }
    Ok(pb::Attr { inode: entry.inode, kind: entry.kind, ..Default::default() })
}
