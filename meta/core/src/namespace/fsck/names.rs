//! The tree: every name leads to its inode, every inode has the names it counts, every directory
//! hangs under the root, and the cookie index is the names in another order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ff2_proto::{ROOT_INODE, pb};

use super::{Problem, numbered, raw, record, twice_numbered};
use crate::{
    kv::KvRead,
    namespace::{inode::Inode, keys::Tag, limits},
};

#[derive(Default)]
struct Counts {
    names: u64,
    entries: u64,
    subdirectories: u64,
}

pub(super) fn check(kv: &dyn KvRead, inodes: &BTreeMap<u64, Inode>, problems: &mut Vec<Problem>) {
    let mut counts: BTreeMap<u64, Counts> = BTreeMap::new();
    let mut cookies: BTreeMap<(u64, u64), Bytes> = twice_numbered(kv, Tag::Cookie, raw, problems);
    for (parent, name, entry) in numbered(kv, Tag::Dentry, record::<pb::DentryRecord>, problems) {
        let mut wrong = |what| {
            problems.push(Problem::Name { parent, name: name.clone(), what });
        };
        if cookies.remove(&(parent, entry.cookie)) != Some(name.clone()) {
            wrong("is not under its cookie");
        }
        check_parent(inodes.get(&parent), &entry, &mut wrong);
        check_child(inodes.get(&entry.inode), parent, &entry, &mut wrong);
        counts.entry(entry.inode).or_default().names += 1;
        let of_parent = counts.entry(parent).or_default();
        of_parent.entries += 1;
        of_parent.subdirectories += u64::from(entry.kind() == pb::FileKind::Directory);
    }
    for ((parent, _), name) in cookies {
        problems.push(Problem::Name { parent, name, what: "has a cookie too many" });
    }
    for (id, inode) in inodes {
        check_counts(*id, inode, counts.remove(id).unwrap_or_default(), problems);
    }
    check_loops(inodes, problems);
}

fn check_parent(
    parent: Option<&Inode>,
    entry: &pb::DentryRecord,
    wrong: &mut impl FnMut(&'static str),
) {
    match parent {
        Some(parent) if parent.is_dir() => {
            if parent.attr.nlink == 0 {
                wrong("is in a removed directory");
            }
            if entry.cookie < limits::FIRST_COOKIE || entry.cookie >= parent.next_cookie {
                wrong("has a cookie that was not given out");
            }
        }
        Some(_) | None => wrong("is in no directory"),
    }
}

fn check_child(
    child: Option<&Inode>,
    parent: u64,
    entry: &pb::DentryRecord,
    wrong: &mut impl FnMut(&'static str),
) {
    match child {
        Some(child) => {
            if child.attr.kind != entry.kind {
                wrong("says another kind than its inode");
            }
            if child.is_dir() && child.parent != parent {
                wrong("is a directory that has another parent");
            }
        }
        None => wrong("leads to no inode"),
    }
}

fn check_counts(id: u64, inode: &Inode, found: Counts, problems: &mut Vec<Problem>) {
    let mut compare = |what, counted, found| {
        if counted != found {
            problems.push(Problem::InodeCount { inode: id, what, counted, found });
        }
    };
    compare("entries", inode.entries, found.entries);
    let nlink = u64::from(inode.attr.nlink);
    if !inode.is_dir() {
        compare("names", nlink, found.names);
    } else if nlink == 0 {
        compare("names", 0, found.names);
        compare("subdirectories", 0, found.subdirectories);
    } else {
        compare("names", u64::from(id != ROOT_INODE.0), found.names);
        compare("links of a directory", nlink, 2 + found.subdirectories);
    }
}

fn check_loops(inodes: &BTreeMap<u64, Inode>, problems: &mut Vec<Problem>) {
    let mut rooted: BTreeSet<u64> = BTreeSet::from([ROOT_INODE.0]);
    for (&id, inode) in inodes.iter().filter(|(_, inode)| inode.is_dir() && inode.attr.nlink > 0) {
        let mut path = vec![];
        let mut at = (id, inode);
        let whole = loop {
            if rooted.contains(&at.0) {
                break true;
            }
            path.push(at.0);
            match inodes.get(&at.1.parent) {
                Some(parent) if !path.contains(&at.1.parent) => at = (at.1.parent, parent),
                Some(_) | None => break false,
            }
        };
        if whole {
            rooted.extend(path);
        } else {
            problems.push(Problem::Inode { inode: id, what: "does not hang under the root" });
        }
    }
}
