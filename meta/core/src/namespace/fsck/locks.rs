//! Locks: each belongs to a session that knows of it, none stands against another, and nobody waits
//! for what is free.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::pb;

use super::{Problem, notes::Known, numbered, raw, record, twice_numbered};
use crate::{
    kv::KvRead,
    namespace::{inode::Inode, keys, keys::Tag, locks::Table},
};

pub(super) fn check(
    kv: &dyn KvRead,
    inodes: &BTreeMap<u64, Inode>,
    sessions: &BTreeMap<u64, Known>,
    problems: &mut Vec<Problem>,
) {
    let mut index: BTreeSet<(u64, u64)> =
        twice_numbered(kv, Tag::LocksOfSession, raw, problems).into_keys().collect();
    let mut of_session: BTreeMap<u64, u64> = BTreeMap::new();
    let mut waits: BTreeSet<Vec<u8>> =
        keys::all(kv, &[Tag::Waiting as u8]).map(|(key, _)| key.to_vec()).collect();
    let tables = numbered(kv, Tag::Locks, record::<pb::LockTableRecord>, problems);
    for (inode, _, table) in tables {
        let table = Table::new(table);
        let mut wrong = |what| problems.push(Problem::Inode { inode, what });
        if !inodes.contains_key(&inode) {
            wrong("is gone but locked");
        }
        if table.is_empty() {
            wrong("has an empty table of locks");
        }
        let mut seen = BTreeSet::new();
        for lock in table.held().iter().chain(table.waiting()) {
            *of_session.entry(lock.session).or_default() += 1;
            if seen.insert(lock.session) && !index.remove(&(lock.session, inode)) {
                wrong("has a lock that is not among its session's");
            }
        }
        if table.held().iter().any(|lock| table.conflicts(lock).next().is_some()) {
            wrong("has locks that stand against each other");
        }
        for lock in table.waiting() {
            if table.conflicts(lock).next().is_none() {
                wrong("has somebody waiting for what is free");
            }
            let key = keys::three(Tag::Waiting, lock.session, lock.owner, lock.ticket);
            if !waits.remove(key.as_slice()) {
                wrong("has a wait without its ticket");
            }
        }
    }
    for (session, _) in index {
        problems.push(Problem::Session { session, what: "has no such lock as it says" });
    }
    if !waits.is_empty() {
        problems.push(Problem::Session { session: 0, what: "has tickets that nobody waits with" });
    }
    for (&session, known) in sessions {
        if known.usage.locks != of_session.remove(&session).unwrap_or(0) {
            problems.push(Problem::Session { session, what: "miscounts its locks" });
        }
    }
    for session in of_session.into_keys() {
        problems.push(Problem::Session { session, what: "is over but has locks" });
    }
}
