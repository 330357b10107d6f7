//! Checks that the keys of a volume agree with each other: the simulator and tests after each step,
//! an admin when in doubt. It holds every inode in memory, so it is not for a serving thread.

mod chunks;
mod locks;
mod names;
mod notes;
mod quotas;
mod snapshots;
mod trash;
mod xattrs;

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_proto::{ROOT_INODE, Status, pb};

use super::{
    inode::{Inode, decode},
    keys::{self, TAGS, Tag},
    number, tx,
};
use crate::kv::KvRead;
pub use chunks::{Chunks, chunks_of};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("key {key:?} is none of a volume, or its value cannot be read")]
    Unreadable { key: Bytes },
    #[error("the volume record or the root directory is missing")]
    NotFormatted,
    #[error("the volume counts {counted} {what}, there are {found}")]
    Count { what: &'static str, counted: u64, found: u64 },
    #[error("inode {inode}: {what}")]
    Inode { inode: u64, what: &'static str },
    #[error("inode {inode} counts {counted} {what}, there are {found}")]
    InodeCount { inode: u64, what: &'static str, counted: u64, found: u64 },
    #[error("name {name:?} in directory {parent}: {what}")]
    Name { parent: u64, name: Bytes, what: &'static str },
    #[error("the quota of {of} counts {counted} {what}, there are {found}")]
    QuotaCount { of: String, what: &'static str, counted: u64, found: u64 },
    #[error("the quota of {of}: {what}")]
    Quota { of: String, what: &'static str },
    #[error("snapshot {snapshot}: {what}")]
    Snapshot { snapshot: u32, what: &'static str },
    #[error("session {session}: {what}")]
    Session { session: u64, what: &'static str },
}

/// All problems of the volume in these keys; none if it is sound.
pub fn fsck(kv: &dyn KvRead) -> Vec<Problem> {
    let mut problems = Vec::new();
    unknown_keys(kv, &mut problems);
    let volume = match tx::volume(kv) {
        Ok(volume) => volume,
        Err(_) => return vec![Problem::NotFormatted],
    };
    let inodes = inodes(kv, &volume, &mut problems);
    if !inodes.get(&ROOT_INODE.0).is_some_and(Inode::is_dir) {
        problems.push(Problem::NotFormatted);
    }
    names::check(kv, &inodes, &mut problems);
    notes::check(kv, &volume, &inodes, &mut problems);
    quotas::check(kv, &volume, &inodes, &mut problems);
    trash::check(kv, &volume, &inodes, &mut problems);
    snapshots::check(kv, &volume, &mut problems);
    problems
}

fn unknown_keys(kv: &dyn KvRead, problems: &mut Vec<Problem>) {
    let mut tags: Vec<u8> = TAGS.iter().map(|tag| *tag as u8).chain(keys::VOLUME).collect();
    tags.sort_unstable();
    // The gaps between the tags must be empty.
    let mut from = vec![];
    for tag in tags {
        problems.extend(kv.scan(&from, &[tag], 1).into_iter().map(|(key, _)| unreadable(&key)));
        from = vec![tag + 1];
    }
    problems.extend(kv.scan(&from, &[0xff; 32], 1).into_iter().map(|(key, _)| unreadable(&key)));
}

fn unreadable(key: &[u8]) -> Problem {
    Problem::Unreadable { key: Bytes::copy_from_slice(key) }
}

fn inodes(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    problems: &mut Vec<Problem>,
) -> BTreeMap<u64, Inode> {
    let mut inodes = BTreeMap::new();
    let mut bytes = 0_u64;
    for (id, _, inode) in numbered(kv, Tag::Inode, Inode::decode, problems) {
        let mut wrong = |what| problems.push(Problem::Inode { inode: id, what });
        if inode.id() != id {
            wrong("is stored under another number");
        }
        if number::count_of(volume.number_key, id) >= volume.next_inode && id != ROOT_INODE.0 {
            wrong("has a number that was not given out");
        }
        if inode.kind() == pb::FileKind::KindUnknown {
            wrong("has no kind");
        }
        if inode.attr.ctime_ns < inode.attr.btime_ns {
            wrong("changed before it was made");
        }
        if inode.is_regular() {
            bytes = bytes.wrapping_add(inode.attr.size);
            if inode.attr.layout.is_none() {
                wrong("is a file without a layout");
            }
            if inode.truncating_to.is_none() && inode.length_bound > inode.attr.size {
                wrong("may have chunks above its size");
            }
            if inode.attr.inline && (inode.length_bound > 0 || inode.attempted_end > 0) {
                wrong("is inline and may have chunks");
            }
        } else if inode.attr.inline {
            wrong("is inline but no file");
        } else if inode.writers > 0 || inode.truncating_to.is_some() {
            wrong("is written or cut but no file");
        }
        inodes.insert(id, inode);
    }
    count("inodes", volume.inodes, inodes.len() as u64, problems);
    count("bytes", volume.bytes, bytes, problems);
    inodes
}

fn count(what: &'static str, counted: u64, found: u64, problems: &mut Vec<Problem>) {
    if counted != found {
        problems.push(Problem::Count { what, counted, found });
    }
}

/// All pairs of a tag: the number in the key, the rest of the key, the value.
fn numbered<T>(
    kv: &dyn KvRead,
    tag: Tag,
    read: impl Fn(&[u8]) -> Result<T, Status>,
    problems: &mut Vec<Problem>,
) -> Vec<(u64, Bytes, T)> {
    let mut found = Vec::new();
    for (key, value) in keys::all(kv, &[tag as u8]) {
        match (keys::split(&key), read(&value)) {
            (Some((number, rest)), Ok(value)) => {
                found.push((number, Bytes::copy_from_slice(rest), value));
            }
            (None, _) | (_, Err(_)) => problems.push(unreadable(&key)),
        }
    }
    found
}

/// As [`numbered`], for keys with two numbers.
fn twice_numbered<T>(
    kv: &dyn KvRead,
    tag: Tag,
    read: impl Fn(&[u8]) -> Result<T, Status>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<(u64, u64), T> {
    let mut found = BTreeMap::new();
    for (first, rest, value) in numbered(kv, tag, read, problems) {
        match keys::number(&rest) {
            Some(second) => {
                found.insert((first, second), value);
            }
            None => problems.push(unreadable(&[&keys::one(tag, first)[..], &rest].concat())),
        }
    }
    found
}

fn number_of(value: &[u8]) -> Result<u64, Status> {
    keys::number(value).ok_or_else(|| ff2_proto::status::Code::Corrupt.into())
}

/// For index keys whose value says nothing, or is a name.
fn raw(value: &[u8]) -> Result<Bytes, Status> {
    Ok(Bytes::copy_from_slice(value))
}

fn record<M: prost::Message + Default>(value: &[u8]) -> Result<M, Status> {
    decode(value)
}
