//! What an answer shows of inodes, so that its session may cache it (see [`crate::callbacks`]).

use ff2_proto::pb::{self, ns_request::Op};

use super::trash;

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
    /// A session that does not cache it yet may begin to.
    pub anew: bool,
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
        let show = |attr: &pb::Attr, anew| Shown { inode: attr.inode, version: attr.version, anew };
        // The trash changes with every removal, and is never cached.
        let is_stored = |attr: &&pb::Attr| !trash::folder::is_folder(attr.inode);
        let entries = reply.entries.iter().filter_map(|entry| entry.attr.as_ref());
        let full = entries.filter(|attr| attr.version > 0).map(|attr| show(attr, true));
        let parent =
            reply.parent_attr.iter().filter(is_stored).map(|attr| show(attr, self == Self::All));
        let own = reply.attr.iter().filter(is_stored).map(|attr| show(attr, self != Self::Changed));
        parent.chain(own).chain(full).collect()
    }
}
