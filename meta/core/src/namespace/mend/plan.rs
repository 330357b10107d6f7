//! What could be mended of what a look found: each problem names something that may be mended, and what a mend of it
//! would do now is asked from the mend itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ff2_proto::pb::{self, mend_op::What};

use super::{mend, names::stored};
use crate::{
    kv::KvRead,
    namespace::{
        fsck::Problem,
        inode::{Inode, decode},
        keys::{self, Tag},
        limits,
        tx::{self, Tx},
    },
};

/// A mend, and what it would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Mend {
    pub op: pb::MendOp,
    pub does: String,
}

/// What [`super::super::fsck`] found in these keys, as far as it can be mended, in an order in which that goes. Others
/// may be found once these are mended. Nothing as long as there are keys that cannot be read: what they say
/// of others would not count.
pub fn plan(kv: &dyn KvRead, problems: &[Problem]) -> Vec<Mend> {
    let is_hopeless =
        |problem: &Problem| matches!(problem, Problem::Unreadable { .. } | Problem::NotFormatted);
    if problems.is_empty() || problems.iter().any(is_hopeless) {
        return Vec::new();
    }
    let found = Found::look(kv);
    let mut candidates = Candidates::default();
    for problem in problems {
        match problem {
            Problem::Name { parent, name, .. } => {
                candidates.names.insert((*parent, name.clone()));
                candidates.inodes.insert(*parent);
            }
            Problem::Inode { inode, .. } | Problem::InodeCount { inode, .. } => {
                candidates.inodes.insert(*inode);
            }
            Problem::Count { .. } => candidates.sums = true,
            Problem::Unreadable { .. }
            | Problem::NotFormatted
            | Problem::QuotaCount { .. }
            | Problem::Quota { .. }
            | Problem::Snapshot { .. }
            | Problem::Session { .. } => {}
        }
    }
    let whats = candidates.whats(kv, &found);
    whats.into_iter().filter_map(|what| tried(kv, pb::MendOp { what: Some(what) })).collect()
}

/// What it would do; none if that is nothing. Why something cannot be mended is said when it is tried.
fn tried(kv: &dyn KvRead, op: pb::MendOp) -> Option<Mend> {
    let (command, request) = (pb::NsCommand::default(), pb::NsRequest::default());
    let mut tx = Tx::new(kv, &command, &request).ok()?;
    let does = match mend(&mut tx, &op) {
        Ok(does) => does?,
        Err(status) => format!("cannot be mended: {status}"),
    };
    Some(Mend { op, does })
}

#[derive(Default)]
struct Candidates {
    names: BTreeSet<(u64, Bytes)>,
    inodes: BTreeSet<u64>,
    sums: bool,
}

impl Candidates {
    fn whats(&self, kv: &dyn KvRead, found: &Found) -> Vec<What> {
        let mut whats = Vec::new();
        let mut inodes = self.inodes.clone();
        for (parent, name) in &self.names {
            let place = pb::Place { parent: *parent, name: name.clone() };
            let entry = stored(kv, &place).ok().flatten();
            inodes.extend(entry.iter().map(|entry| entry.inode));
            let other = entry.and_then(|entry| found.kept_name(entry.inode));
            whats.push(What::Name(pb::MendName { place: Some(place), other }));
        }
        for parent in self.names.iter().map(|(parent, _)| *parent).collect::<BTreeSet<_>>() {
            let keys = keys::all(kv, &keys::one(Tag::Cookie, parent));
            let cookies = keys.filter_map(|(key, name)| {
                let cookie = keys::number(keys::split(&key)?.1)?;
                self.names.contains(&(parent, name)).then_some(cookie)
            });
            whats.extend(cookies.map(|cookie| What::Cookie(pb::MendCookie { parent, cookie })));
        }
        for inode in inodes {
            let has = Some(found.has(inode));
            match found.inodes.get(&inode) {
                Some(known) => {
                    let names = found.names.get(&inode).copied().unwrap_or(0);
                    let first = || Some(found.places.get(&inode)?.first()?.clone());
                    let place = found.kept_name(inode).or_else(first);
                    let has = has.filter(|_| known.is_directory);
                    let version = known.version;
                    whats.push(What::Inode(pb::MendInode {
                        inode,
                        version,
                        names,
                        has,
                        place: place.clone(),
                    }));
                    whats.extend(
                        place.map(|place| {
                            What::Circle(pb::MendCircle { place: Some(place), inode })
                        }),
                    );
                }
                None => {
                    whats.push(What::Folder(pb::MendFolder { inode, has }));
                    whats.push(What::Remains(pb::MendRemains { inode }));
                }
            }
        }
        if self.sums {
            whats.extend(found.sums(kv).map(What::Sums));
        }
        whats
    }
}

struct Known {
    version: u64,
    parent: u64,
    is_directory: bool,
}

/// What the names say.
#[derive(Default)]
struct Found {
    inodes: BTreeMap<u64, Known>,
    bytes: u64,
    /// How many lead to an inode.
    names: BTreeMap<u64, u64>,
    /// Where directories have theirs.
    places: BTreeMap<u64, Vec<pb::Place>>,
    directories: BTreeMap<u64, pb::FoundNames>,
}

impl Found {
    fn look(kv: &dyn KvRead) -> Self {
        let mut this = Self::default();
        for (_, value) in keys::all(kv, &[Tag::Inode as u8]) {
            let Ok(inode) = Inode::decode(&value) else { continue };
            if inode.is_regular() {
                this.bytes = this.bytes.wrapping_add(inode.attr.size);
            }
            let (version, parent) = (inode.attr.version, inode.parent);
            let is_directory = inode.is_dir();
            this.inodes.insert(inode.id(), Known { version, parent, is_directory });
        }
        for (key, value) in keys::all(kv, &[Tag::Dentry as u8]) {
            let Some((parent, name)) = keys::split(&key) else { continue };
            let Ok(entry) = decode::<pb::DentryRecord>(&value) else { continue };
            *this.names.entry(entry.inode).or_default() += 1;
            if this.inodes.get(&entry.inode).is_some_and(|known| known.is_directory) {
                let place = pb::Place { parent, name: Bytes::copy_from_slice(name) };
                this.places.entry(entry.inode).or_default().push(place);
            }
            let has = this.directories.entry(parent).or_default();
            has.entries += 1;
            has.subdirectories += u64::from(entry.kind() == pb::FileKind::Directory);
            // One beyond that is no cookie: its name gets another.
            if entry.cookie < limits::COOKIE_MAX {
                has.next_cookie = has.next_cookie.max(entry.cookie + 1);
            }
        }
        this
    }

    fn has(&self, directory: u64) -> pb::FoundNames {
        let mut has = self.directories.get(&directory).copied().unwrap_or_default();
        has.next_cookie = has.next_cookie.max(limits::FIRST_COOKIE);
        has
    }

    /// The name that a directory keeps if it has several.
    fn kept_name(&self, directory: u64) -> Option<pb::Place> {
        let parent = self.inodes.get(&directory)?.parent;
        let places = self.places.get(&directory)?;
        places.iter().find(|place| place.parent == parent).cloned()
    }

    fn sums(&self, kv: &dyn KvRead) -> Option<pb::MendSums> {
        let volume = tx::volume(kv).ok()?;
        let inodes = (self.inodes.len() as u64).wrapping_sub(volume.inodes);
        let bytes = self.bytes.wrapping_sub(volume.bytes);
        Some(pb::MendSums { inodes, bytes, mended: volume.sums_mended })
    }
}
