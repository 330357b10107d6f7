//! What an answer shows of inodes, so that its session may cache it (see [`crate::callbacks`]).

use ff2_proto::pb::{self, FileKind, ns_request::Op};

use super::{number, trash};

/// What the answer of an operation lets its session cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cacheable {
    /// All that it shows.
    All,
    /// A new inode. Its directory was changed by it: only for who caches that already, as two mounts that
    /// fill one directory would else wait for each other.
    New,
    /// As it was changed, for who caches it already.
    Changed,
    Nothing,
}

/// An inode as an answer shows it; of a directory it shows entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub inode: u64,
    pub version: u64,
    pub is_folder: bool,
    /// A session that does not cache it yet may begin to.
    pub anew: bool,
    /// The folder in which it was found; 0: it was not looked for in one.
    pub within: u64,
}

pub fn cacheable(request: &pb::NsRequest) -> Cacheable {
    match &request.op {
        Some(
            Op::Lookup(_)
            | Op::GetAttr(_)
            | Op::ReadDir(_)
            | Op::ReadInline(_)
            | Op::Open(_)
            | Op::SetAttr(_)
            | Op::SetLock(_)
            | Op::SetLayout(_),
        ) => Cacheable::All,
        Some(Op::Create(_) | Op::MakeNode(_) | Op::Link(_)) => Cacheable::New,
        Some(
            Op::Close(_)
            | Op::ReportLength(_)
            | Op::Spill(_)
            | Op::Unlink(_)
            | Op::Rename(_)
            | Op::SetXattr(_)
            | Op::RemoveXattr(_),
        ) => Cacheable::Changed,
        _ => Cacheable::Nothing,
    }
}

impl Cacheable {
    pub fn shown(self, reply: &pb::NsReply) -> Vec<Shown> {
        if self == Self::Nothing {
            return Vec::new();
        }
        let show = |attr: &pb::Attr, anew, within| Shown {
            inode: attr.inode,
            version: attr.version,
            is_folder: attr.kind() == FileKind::Directory,
            anew,
            within,
        };
        let inode = |attr: &Option<pb::Attr>| attr.map_or(0, |attr| attr.inode);
        let above = if reply.within == 0 { inode(&reply.parent_attr) } else { reply.within };
        let listed = inode(&reply.attr);
        // The trash changes with every removal. What a snapshot shows changes never, and is asked each time: it may be
        // removed.
        let is_cached = |attr: &&pb::Attr| {
            !trash::folder::is_folder(attr.inode) && !number::is_past(attr.inode)
        };
        let (parent, own) = (reply.parent_attr.iter(), reply.attr.iter());
        let parent = parent.filter(is_cached).map(|attr| show(attr, self == Self::All, 0));
        let own = own.filter(is_cached).map(|attr| show(attr, self != Self::Changed, above));
        let entries = reply.entries.iter().filter_map(|entry| entry.attr.as_ref());
        let full = entries.filter(|attr| attr.version > 0).filter(is_cached);
        parent.chain(own).chain(full.map(|attr| show(attr, true, listed))).collect()
    }
}
