//! Quotas: each counts what is there, each inode is counted by a root that there is, and when no count is
//! going on, by the nearest one.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{ROOT_INODE, pb};

use super::{Problem, count, number_of, record, twice_numbered, unreadable};
use crate::{
    kv::KvRead,
    namespace::{
        inode::Inode,
        keys::{self, Tag},
        limits,
        quota::{Amount, Key, is_counted, is_root},
    },
};

type Quotas = BTreeMap<Key, pb::QuotaRecord>;

pub(super) fn check(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    inodes: &BTreeMap<u64, Inode>,
    problems: &mut Vec<Problem>,
) {
    let quotas = quotas(kv, problems);
    let of_owners = quotas.keys().filter(|key| !matches!(key, Key::Folder(_))).count() as u64;
    let counting = quotas.values().filter(|record| record.counting).count() as u64;
    count("quotas", volume.quotas, quotas.len() as u64, problems);
    count("quotas of owners", volume.owner_quotas, of_owners, problems);
    count("quotas that are counted", volume.counts, counting, problems);
    let found = recount(&quotas, inodes, problems);
    for (key, record) in &quotas {
        let found = found.get(key).copied().unwrap_or_default();
        for (what, counted, found) in
            [("inodes", record.inodes, found.inodes), ("bytes", record.bytes, found.bytes)]
        {
            if counted != found {
                let of = format!("{key:?}");
                problems.push(Problem::QuotaCount { of, what, counted, found });
            }
        }
        let is_forgotten = record.ending && !record.counting && record.inodes == 0;
        if is_forgotten {
            problems.push(wrong(*key, "has ended and counts nothing, but is there"));
        }
        if let Key::Folder(id) = key
            && !record.ending
            && !inodes.get(id).is_some_and(|inode| is_root(inode) && inode.attr.nlink > 0)
        {
            problems.push(wrong(*key, "goes on without its folder"));
        }
    }
    check_positions(kv, &quotas, problems);
    if counting == 0 {
        check_places(&quotas, inodes, problems);
    }
}

fn wrong(key: Key, what: &'static str) -> Problem {
    Problem::Quota { of: format!("{key:?}"), what }
}

fn quotas(kv: &dyn KvRead, problems: &mut Vec<Problem>) -> Quotas {
    let mut quotas = Quotas::new();
    for tag in [Tag::Quota, Tag::OwnerQuota] {
        for (stored, value) in keys::all(kv, &[tag as u8]) {
            match (Key::of_stored(&stored), record::<pb::QuotaRecord>(&value)) {
                (Some(key), Ok(record)) => {
                    quotas.insert(key, record);
                }
                (None, _) | (_, Err(_)) => problems.push(unreadable(&stored)),
            }
        }
    }
    quotas
}

fn recount(
    quotas: &Quotas,
    inodes: &BTreeMap<u64, Inode>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Key, Amount> {
    let mut found: BTreeMap<Key, Amount> = BTreeMap::new();
    for (&id, inode) in inodes.iter().filter(|(_, inode)| is_counted(inode)) {
        let mut in_ = vec![];
        let mut at = inode.attr.quota;
        while at != 0 {
            match quotas.get(&Key::Folder(at)) {
                Some(record) if in_.len() < limits::QUOTA_CHAIN_MAX => {
                    in_.push(Key::Folder(at));
                    at = record.above;
                }
                Some(_) => {
                    problems.push(wrong(Key::Folder(at), "is nested too deep, or in a circle"));
                    break;
                }
                None => {
                    let what = "counts in a quota that there is not";
                    problems.push(Problem::Inode { inode: id, what });
                    break;
                }
            }
        }
        let owners = Key::owners(inode).into_iter();
        in_.extend(owners.filter(|key| quotas.get(key).is_some_and(|r| id <= r.counted_to)));
        for key in in_ {
            let sum = found.entry(key).or_default();
            let one = Amount::of(inode);
            sum.inodes += one.inodes;
            sum.bytes = sum.bytes.wrapping_add(one.bytes);
        }
    }
    found
}

/// Where counts are going on.
fn check_positions(kv: &dyn KvRead, quotas: &Quotas, problems: &mut Vec<Problem>) {
    let positions = twice_numbered(kv, Tag::QuotaCount, number_of, problems);
    let at: BTreeSet<u64> = positions.into_keys().map(|(root, _)| root).collect();
    let counting = quotas.iter().filter_map(|(key, record)| match key {
        Key::Folder(root) if record.counting => Some(*root),
        _ => None,
    });
    for &root in at.symmetric_difference(&counting.collect()) {
        let what = "is counted nowhere, or has a position and is not counted";
        problems.push(wrong(Key::Folder(root), what));
    }
}

/// Each folder counts in the nearest quota above it, and each of these lies in the next.
fn check_places(quotas: &Quotas, inodes: &BTreeMap<u64, Inode>, problems: &mut Vec<Problem>) {
    for (&id, inode) in inodes.iter().filter(|(_, inode)| inode.is_dir() && inode.attr.nlink > 0) {
        let parent = if id == ROOT_INODE.0 { None } else { inodes.get(&inode.parent) };
        let above = parent.map_or(0, |parent| parent.attr.quota);
        let counts_in = if is_root(inode) {
            quotas.get(&Key::Folder(id)).map_or(0, |record| record.above)
        } else {
            inode.attr.quota
        };
        if counts_in != above {
            let what = "does not count in the nearest quota above";
            problems.push(Problem::Inode { inode: id, what });
        }
    }
}
