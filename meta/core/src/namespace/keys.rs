//! The key space of a volume. Numbers are big-endian, so that keys sort as their numbers do.
//!
//! ```text
//! V                      -> VolumeRecord
//! I inode                -> InodeRecord
//! A inode name           -> value           (extended attributes, ACLs aside)
//! D parent name          -> DentryRecord
//! C parent cookie        -> name            (the order of readdir)
//! W inode session        -> WriteSessionRecord
//! w session inode        -> (empty)         (what a session that ends has open)
//! O seq                  -> inode           (orphans in the order of their unlink)
//! o inode                -> OrphanRecord
//! T inode                -> (empty)         (chunks are being cut)
//! B inode                -> the bytes of an inline file
//! L inode                -> LengthDoubtRecord
//! S session              -> SessionRecord
//! N owner nonce          -> session         (owner: 0 for daemons, else uid + 1)
//! U session              -> SessionUseRecord
//! K inode                -> LockTableRecord
//! k session inode        -> (empty)         (where a session has or awaits locks)
//! Q session owner ticket -> inode           (locks that are waited for)
//! X session seq          -> the encoded NsReply that was given
//! q folder               -> QuotaRecord
//! u kind owner           -> QuotaRecord     (kind: 0 users, 1 groups)
//! H snapshot             -> SnapshotRecord
//! P snapshot key         -> a value of a key as it was, if it was there (preserve.rs)
//! x quota folder         -> cookie          (folders that a count has still to look through, and from where)
//! Y entry                -> TrashRecord     (in the order of their removal)
//! y uid entry            -> (empty)         (the files that a user removed)
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::{limits, request::Owner};
use crate::kv::KvRead;

pub(super) const VOLUME: [u8; 1] = [b'V'];

/// The kinds of numbered keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Inode = b'I',
    Xattr = b'A',
    Dentry = b'D',
    Cookie = b'C',
    Writer = b'W',
    WriterOfSession = b'w',
    OrphanOrder = b'O',
    Orphan = b'o',
    Truncating = b'T',
    Inline = b'B',
    Doubt = b'L',
    Session = b'S',
    Nonce = b'N',
    SessionUse = b'U',
    Answer = b'X',
    Locks = b'K',
    LocksOfSession = b'k',
    Waiting = b'Q',
    Quota = b'q',
    OwnerQuota = b'u',
    QuotaCount = b'x',
    Trash = b'Y',
    TrashOfUser = b'y',
    Snapshot = b'H',
    Preserved = b'P',
}

pub(super) const TAGS: [Tag; 25] = [
    Tag::Inode,
    Tag::Xattr,
    Tag::Dentry,
    Tag::Cookie,
    Tag::Writer,
    Tag::WriterOfSession,
    Tag::OrphanOrder,
    Tag::Orphan,
    Tag::Truncating,
    Tag::Inline,
    Tag::Doubt,
    Tag::Session,
    Tag::Nonce,
    Tag::SessionUse,
    Tag::Answer,
    Tag::Locks,
    Tag::LocksOfSession,
    Tag::Waiting,
    Tag::Quota,
    Tag::OwnerQuota,
    Tag::QuotaCount,
    Tag::Trash,
    Tag::TrashOfUser,
    Tag::Snapshot,
    Tag::Preserved,
];

/// Of a session's nonce: each owner has nonces of its own.
pub(super) fn nonce(owner: Owner, nonce: u64) -> [u8; 17] {
    two(Tag::Nonce, owner.map_or(0, |uid| u64::from(uid) + 1), nonce)
}

pub(super) fn one(tag: Tag, number: u64) -> [u8; 9] {
    let mut key = [tag as u8; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn two(tag: Tag, first: u64, second: u64) -> [u8; 17] {
    let mut key = [tag as u8; 17];
    key[1..9].copy_from_slice(&first.to_be_bytes());
    key[9..].copy_from_slice(&second.to_be_bytes());
    key
}

pub(super) fn three(tag: Tag, first: u64, second: u64, third: u64) -> [u8; 25] {
    let mut key = [tag as u8; 25];
    key[..17].copy_from_slice(&two(tag, first, second));
    key[17..].copy_from_slice(&third.to_be_bytes());
    key
}

pub(super) fn dentry(parent: u64, name: &[u8]) -> Vec<u8> {
    named(Tag::Dentry, parent, name)
}

/// A key as it was for a snapshot. Those of one snapshot lie together, in the order of their keys.
pub(super) fn preserved(snapshot: u32, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(PRESERVED_PREFIX + key.len());
    place.push(Tag::Preserved as u8);
    place.extend_from_slice(&snapshot.to_be_bytes());
    place.extend_from_slice(key);
    place
}

/// Bytes before the key in a [`preserved`] one.
pub(super) const PRESERVED_PREFIX: usize = 5;

/// Of something with a name that belongs to an inode.
pub(super) fn named(tag: Tag, inode: u64, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + name.len());
    key.extend_from_slice(&one(tag, inode));
    key.extend_from_slice(name);
    key
}

/// The number at the front of a key (behind its tag), and what follows.
pub(super) fn split(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// The bytes of a value or of a key's rest as a number.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The first key behind all that begin with `prefix`. Tags are ASCII, so there always is one.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    unreachable!("a tag is not 0xff")
}

/// All pairs that begin with `prefix`, in order, taken from the keys page by page.
pub(super) fn all<'a>(kv: &'a dyn KvRead, prefix: &[u8]) -> Pairs<'a> {
    Pairs { kv, from: prefix.to_vec(), to: end_of(prefix), page: VecDeque::new(), done: false }
}

pub(super) struct Pairs<'a> {
    kv: &'a dyn KvRead,
    from: Vec<u8>,
    to: Vec<u8>,
    page: VecDeque<(Bytes, Bytes)>,
    done: bool,
}

impl Iterator for Pairs<'_> {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && !self.done {
            self.page = self.kv.scan(&self.from, &self.to, limits::SCAN_PAGE).into();
            self.done = self.page.len() < limits::SCAN_PAGE;
            if let Some((last, _)) = self.page.back() {
                self.from = last.to_vec();
                self.from.push(0);
            }
        }
        self.page.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Kv, MemKv};

    #[test]
    fn keys_sort_as_their_numbers() {
        assert!(one(Tag::Inode, 255) < one(Tag::Inode, 256));
        assert!(two(Tag::Cookie, 1, u64::MAX) < two(Tag::Cookie, 2, 0));
        assert_eq!(split(&dentry(7, b"name")), Some((7, b"name".as_slice())));
        assert_eq!(split(b"V"), None);
        assert_eq!(end_of(&one(Tag::Dentry, u64::MAX)), [b'E']);
        assert_eq!(number(&[0, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(b"short"), None);
    }

    #[test]
    fn long_ranges_are_read_in_pages_and_end_at_their_prefix() {
        let mut kv = MemKv::new();
        let count = limits::SCAN_PAGE as u64 * 2;
        for seq in 0..count {
            kv.put(&two(Tag::Answer, 5, seq), Bytes::new());
        }
        kv.put(&two(Tag::Answer, 6, 0), Bytes::new());
        let seen: Vec<u64> = all(&kv, &one(Tag::Answer, 5))
            .map(|(key, _)| number(split(&key).unwrap().1).unwrap())
            .collect();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}
