//! Sessions, write sessions, remembered answers, orphans, truncations and doubtful lengths. Locks and
//! extended attributes are beside this file.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{limits as wire, pb};

use super::{Problem, count, locks, number_of, numbered, raw, record, twice_numbered, xattrs};
use crate::{
    kv::KvRead,
    namespace::{inode::Inode, keys::Tag},
};

pub(super) fn check(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    inodes: &BTreeMap<u64, Inode>,
    problems: &mut Vec<Problem>,
) {
    let sessions = check_sessions(kv, volume, problems);
    let doubts = check_doubts(kv, volume, inodes, problems);
    check_writers(kv, inodes, &sessions, &doubts, problems);
    check_orphans(kv, volume, inodes, problems);
    check_inline(kv, inodes, problems);
    locks::check(kv, inodes, &sessions, problems);
    xattrs::check(kv, inodes, problems);
    let listed: BTreeSet<u64> =
        numbered(kv, Tag::Truncating, raw, problems).into_iter().map(|(id, ..)| id).collect();
    let cut: BTreeSet<u64> =
        inodes.iter().filter(|(_, i)| i.truncating_to.is_some()).map(|(id, _)| *id).collect();
    for &inode in listed.symmetric_difference(&cut) {
        problems
            .push(Problem::Inode { inode, what: "is cut but not listed, or listed but not cut" });
    }
}

fn check_inline(kv: &dyn KvRead, inodes: &BTreeMap<u64, Inode>, problems: &mut Vec<Problem>) {
    for (id, _, bytes) in numbered(kv, Tag::Inline, raw, problems) {
        let mut wrong = |what| problems.push(Problem::Inode { inode: id, what });
        match inodes.get(&id) {
            Some(inode) if inode.attr.inline => {
                if bytes.len() as u64 > inode.attr.size {
                    wrong("has inline bytes above its size");
                }
                if bytes.len() > wire::INLINE_BYTES_MAX as usize {
                    wrong("has more inline bytes than a file may have");
                }
            }
            Some(_) | None => wrong("has inline bytes but is no inline file"),
        }
    }
}

/// A session on record.
pub(super) struct Known {
    pub(super) usage: pb::SessionUseRecord,
    ending: bool,
}

/// Sessions and what they use, by number.
fn check_sessions(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    problems: &mut Vec<Problem>,
) -> BTreeMap<u64, Known> {
    let mut nonces = twice_numbered(kv, Tag::Nonce, number_of, problems);
    let mut usage: BTreeMap<u64, pb::SessionUseRecord> =
        numbered(kv, Tag::SessionUse, record, problems)
            .into_iter()
            .map(|(s, _, u)| (s, u))
            .collect();
    let mut sessions = BTreeMap::new();
    for (id, _, session) in numbered(kv, Tag::Session, record::<pb::SessionRecord>, problems) {
        let mut wrong = |what| problems.push(Problem::Session { session: id, what });
        if session.id != id || id >= volume.next_session {
            wrong("has a wrong number");
        }
        let owner = session.owner.map_or(0, |uid| u64::from(uid) + 1);
        if !session.ending && nonces.remove(&(owner, session.nonce)) != Some(id) {
            wrong("is not under its nonce");
        }
        match usage.remove(&id) {
            Some(usage) => {
                sessions.insert(id, Known { usage, ending: session.ending });
            }
            None => wrong("has no record of use"),
        }
    }
    problems.extend(
        usage
            .into_keys()
            .map(|session| Problem::Session { session, what: "is over but its use is recorded" }),
    );
    count("sessions", volume.sessions, sessions.len() as u64, problems);
    count("nonces of no session", 0, nonces.len() as u64, problems);
    check_answers(kv, &sessions, problems);
    sessions
}

fn check_answers(kv: &dyn KvRead, sessions: &BTreeMap<u64, Known>, problems: &mut Vec<Problem>) {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for (session, seq) in twice_numbered(kv, Tag::Answer, raw, problems).into_keys() {
        *found.entry(session).or_default() += 1;
        match sessions.get(&session) {
            Some(known) if seq >= known.usage.answered_below => {}
            Some(_) => problems.push(Problem::Session { session, what: "keeps old answers" }),
            None => problems.push(Problem::Session { session, what: "is over but has answers" }),
        }
    }
    for (&session, Known { usage, .. }) in sessions {
        if usage.answers != found.get(&session).copied().unwrap_or(0) {
            problems.push(Problem::Session { session, what: "miscounts its answers" });
        }
    }
}

fn check_doubts(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    inodes: &BTreeMap<u64, Inode>,
    problems: &mut Vec<Problem>,
) -> BTreeSet<u64> {
    let mut doubts = BTreeSet::new();
    for (inode, _, note) in numbered(kv, Tag::Doubt, record::<pb::LengthDoubtRecord>, problems) {
        doubts.insert(inode);
        if !inodes.get(&inode).is_some_and(Inode::is_regular) {
            problems.push(Problem::Inode { inode, what: "has a doubtful length but is no file" });
        }
        if note.doubt > volume.next_doubt {
            problems.push(Problem::Inode { inode, what: "has a doubt that was not given out" });
        }
    }
    doubts
}

fn check_writers(
    kv: &dyn KvRead,
    inodes: &BTreeMap<u64, Inode>,
    sessions: &BTreeMap<u64, Known>,
    doubts: &BTreeSet<u64>,
    problems: &mut Vec<Problem>,
) {
    let mut index = twice_numbered(kv, Tag::WriterOfSession, raw, problems);
    let mut of_inode: BTreeMap<u64, u64> = BTreeMap::new();
    let mut of_session: BTreeMap<u64, u64> = BTreeMap::new();
    let writers = twice_numbered(kv, Tag::Writer, record::<pb::WriteSessionRecord>, problems);
    for ((inode, session), writer) in writers {
        let mut wrong = |what| problems.push(Problem::Inode { inode, what });
        *of_inode.entry(inode).or_default() += 1;
        *of_session.entry(session).or_default() += 1;
        if !inodes.contains_key(&inode) {
            wrong("is gone but is written");
        }
        let sound = match sessions.get(&session) {
            Some(known) => known.ending || !writer.lost,
            None => writer.lost,
        };
        if !sound {
            wrong("has a writer that is lost in a live session, or the other way");
        }
        if index.remove(&(session, inode)).is_none() != writer.lost {
            wrong("has a writer that is not among its session's");
        }
        if writer.lost && !doubts.contains(&inode) {
            wrong("lost a writer but its length is not in doubt");
        }
        if writer.opens == 0 {
            wrong("has a writer without opens");
        }
    }
    for (_, inode) in index.into_keys() {
        problems.push(Problem::Inode { inode, what: "has no such writer as its session says" });
    }
    for (&id, inode) in inodes {
        let found = of_inode.remove(&id).unwrap_or(0);
        if u64::from(inode.writers) != found {
            let counted = u64::from(inode.writers);
            problems.push(Problem::InodeCount { inode: id, what: "writers", counted, found });
        }
    }
    for (&session, Known { usage, .. }) in sessions {
        if usage.writers != of_session.remove(&session).unwrap_or(0) {
            problems.push(Problem::Session { session, what: "miscounts its writers" });
        }
    }
}

fn check_orphans(
    kv: &dyn KvRead,
    volume: &pb::VolumeRecord,
    inodes: &BTreeMap<u64, Inode>,
    problems: &mut Vec<Problem>,
) {
    let mut order: BTreeMap<u64, u64> = numbered(kv, Tag::OrphanOrder, number_of, problems)
        .into_iter()
        .map(|(seq, _, inode)| (seq, inode))
        .collect();
    let mut listed = BTreeSet::new();
    for (inode, _, orphan) in numbered(kv, Tag::Orphan, record::<pb::OrphanRecord>, problems) {
        listed.insert(inode);
        if order.remove(&orphan.seq) != Some(inode) || orphan.seq >= volume.next_orphan_seq {
            problems.push(Problem::Inode { inode, what: "is out of the order of orphans" });
        }
        if orphan.nameable && inodes.get(&inode).is_none_or(|inode| inode.writers == 0) {
            problems.push(Problem::Inode { inode, what: "may get a name but nobody writes it" });
        }
    }
    for inode in order.into_values() {
        problems.push(Problem::Inode { inode, what: "is twice in the order of orphans" });
    }
    let nameless: BTreeSet<u64> = inodes
        .iter()
        .filter(|(_, i)| i.attr.nlink == 0 && i.trash == 0)
        .map(|(id, _)| *id)
        .collect();
    for &inode in listed.symmetric_difference(&nameless) {
        problems
            .push(Problem::Inode { inode, what: "is an orphan that is not listed, or no orphan" });
    }
}
