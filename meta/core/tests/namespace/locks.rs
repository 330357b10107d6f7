//! Locks: who gets them, who waits, whom a session's end makes room for, and what bounds them.

use ff2_meta_core::namespace::limits::{LOCKS_PER_INODE_MAX, WAITERS_PER_INODE_MAX};
use ff2_proto::pb::{self, Code, ns_request::Op};
use proptest::prelude::*;

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

/// Two sessions of root, and a file.
fn file() -> (Volume, Who, Who, u64) {
    let (mut v, one) = Volume::with_root();
    let two = v.user(0, 0, &[]);
    let file = v.ask(&one, touch(ROOT, "f", 0o600)).unwrap().attr.unwrap().inode;
    (v, one, two, file)
}

fn range(owner: u64, start: u64, end: u64, exclusive: bool) -> pb::Lock {
    pb::Lock { owner, start, end, exclusive, pid: 42, ..Default::default() }
}

fn flock(owner: u64, exclusive: bool) -> pb::Lock {
    pb::Lock { flock: true, ..range(owner, 0, 0, exclusive) }
}

fn set(inode: u64, lock: &pb::Lock) -> Op {
    Op::SetLock(pb::SetLockOp { inode, lock: Some(*lock), wait: false })
}

fn wait(inode: u64, lock: &pb::Lock, ticket: u64) -> Op {
    let lock = Some(pb::Lock { ticket, ..*lock });
    Op::SetLock(pb::SetLockOp { inode, lock, wait: true })
}

fn unlock(inode: u64, lock: &pb::Lock) -> Op {
    Op::Unlock(pb::UnlockOp { inode, lock: Some(*lock) })
}

fn cancel(inode: u64, owner: u64, ticket: u64) -> Op {
    Op::CancelLock(pb::CancelLockOp { inode, owner, ticket })
}

fn get(inode: u64, lock: &pb::Lock) -> Op {
    Op::GetLock(pb::GetLockOp { inode, lock: Some(*lock) })
}

fn awaited(owner: u64, ticket: u64) -> Op {
    let tickets = vec![pb::LockTicket { owner, ticket }];
    Op::AwaitLocks(pb::AwaitLocksOp { tickets, wait_ms: 0 })
}

#[test]
fn ranges_keep_others_out_across_sessions() {
    let (mut v, one, two, file) = file();
    let mine = range(7, 10, 19, true);
    let attr = v.ask(&one, set(file, &mine)).unwrap().attr.unwrap();
    assert_eq!(attr.version, v.attr(file).version, "a lock changes no attribute");
    v.ask(&one, set(file, &mine)).expect("again");
    // The same number in another session is another owner.
    let theirs = range(7, 19, 30, false);
    assert_eq!(v.ask(&two, set(file, &theirs)), Err(Code::WouldBlock));
    let conflict = v.ask(&two, get(file, &theirs)).unwrap().conflict.unwrap();
    assert_eq!((conflict.start, conflict.end, conflict.exclusive), (10, 19, true));
    assert_eq!((conflict.pid, conflict.owner), (0, 0), "a process of another host says nothing");
    let conflict = v.ask(&one, get(file, &range(8, 0, 99, false))).unwrap().conflict.unwrap();
    assert_eq!(conflict.pid, 42);
    assert_eq!(v.ask(&one, get(file, &mine)).unwrap().conflict, None, "its own");
    v.ask(&two, set(file, &range(7, 20, 30, true))).unwrap();
    v.ask(&one, set(file, &range(7, 15, 19, false))).expect("a downgrade of a part");
    v.ask(&two, set(file, &range(7, 15, 15, false))).expect("shared");
    assert_eq!(v.ask(&one, set(file, &mine)), Err(Code::WouldBlock), "an upgrade");
    v.ask(&one, unlock(file, &range(7, 0, u64::MAX, true))).unwrap();
    v.ask(&one, unlock(file, &range(7, 0, u64::MAX, true))).expect("nothing to free");
    v.ask(&two, set(file, &range(7, 0, u64::MAX, true))).unwrap();
    assert_eq!(v.ask(&one, set(file, &range(7, 5, 4, true))), Err(Code::InvalidArgument));
    assert_eq!(v.ask(&one, set(99, &mine)), Err(Code::StaleInode));
}

#[test]
fn whole_files_and_ranges_do_not_know_of_each_other() {
    let (mut v, one, two, file) = file();
    v.ask(&one, set(file, &flock(1, true))).unwrap();
    v.ask(&two, set(file, &range(2, 0, 9, true))).unwrap();
    assert_eq!(v.ask(&two, set(file, &flock(2, false))), Err(Code::WouldBlock));
    assert_eq!(
        v.ask(&one, set(file, &flock(3, false))),
        Err(Code::WouldBlock),
        "another open file"
    );
    v.ask(&one, set(file, &flock(1, false))).expect("a downgrade");
    v.ask(&two, set(file, &flock(2, false))).unwrap();
    assert_eq!(v.ask(&one, set(file, &flock(1, true))), Err(Code::WouldBlock));
    v.ask(&two, unlock(file, &flock(2, false))).unwrap();
    assert_eq!(v.ask(&two, set(file, &flock(2, true))), Err(Code::WouldBlock), "it is kept");
    v.ask(&one, set(file, &flock(1, true))).unwrap();
}

#[test]
fn who_waits_is_served_in_order_and_told() {
    let (mut v, one, two, file) = file();
    v.ask(&one, set(file, &range(1, 0, 9, true))).unwrap();
    assert!(!v.ask(&two, wait(file, &range(2, 5, 5, true), 100)).unwrap().granted);
    assert!(!v.ask(&two, wait(file, &range(3, 5, 6, true), 101)).unwrap().granted);
    assert!(v.ask(&two, wait(file, &range(4, 50, 60, true), 102)).unwrap().granted, "it is free");
    assert!(v.ask(&two, awaited(2, 100)).unwrap().granted_tickets.is_empty());
    assert_eq!(v.ask(&two, wait(file, &range(5, 5, 6, true), 101)), Err(Code::InvalidArgument));
    assert_eq!(v.ask(&two, wait(file, &range(5, 5, 6, true), 0)), Err(Code::InvalidArgument));
    let freed = v.ask(&one, unlock(file, &range(1, 5, 9, true))).unwrap();
    assert_eq!(freed.lock_grants, [pb::LockGrant { session: two.session, ticket: 100 }]);
    let answer = v.ask(&two, awaited(2, 100)).unwrap();
    assert_eq!((answer.session, answer.granted_tickets), (two.session, vec![100]));
    assert!(v.ask(&two, awaited(3, 101)).unwrap().granted_tickets.is_empty());
    // Given up in time, or too late.
    assert!(!v.ask(&two, cancel(file, 3, 101)).unwrap().granted);
    assert!(v.ask(&two, cancel(file, 2, 100)).unwrap().granted);
    assert!(v.ask(&two, unlock(file, &range(2, 0, 99, true))).unwrap().lock_grants.is_empty());
    let replayed = v.replayed();
    assert_eq!(replayed.hash(), v.kv.hash());
}

#[test]
fn two_that_share_and_both_want_it_alone() {
    // Of ranges, the second is told of the circle. It would wait for the first, which waits for it.
    let (mut v, one, two, file) = file();
    v.ask(&one, set(file, &range(1, 0, 9, false))).unwrap();
    v.ask(&two, set(file, &range(2, 0, 9, false))).unwrap();
    assert!(!v.ask(&one, wait(file, &range(1, 0, 9, true), 5)).unwrap().granted);
    assert_eq!(v.ask(&two, wait(file, &range(2, 0, 9, true), 6)), Err(Code::Deadlock));
    let freed = v.ask(&two, unlock(file, &range(2, 0, 9, true))).unwrap();
    assert_eq!(freed.lock_grants.len(), 1);
    // A whole-file lock is let go of first.
    v.ask(&one, set(file, &flock(1, false))).unwrap();
    v.ask(&two, set(file, &flock(2, false))).unwrap();
    assert!(!v.ask(&one, wait(file, &flock(1, true), 7)).unwrap().granted);
    assert!(v.ask(&two, wait(file, &flock(2, true), 8)).unwrap().granted, "the first let go");
    let freed = v.ask(&two, unlock(file, &flock(2, true))).unwrap();
    assert_eq!(freed.lock_grants, [pb::LockGrant { session: one.session, ticket: 7 }]);
}

#[test]
fn a_circle_over_files_and_sessions_is_seen() {
    let (mut v, one, two, first) = file();
    let three = v.user(0, 0, &[]);
    let mut more = ["g", "h"].map(|name| v.ask(&one, touch(ROOT, name, 0o600)).unwrap());
    let [second, third] = more.each_mut().map(|reply| reply.attr.unwrap().inode);
    let whole = |owner| range(owner, 0, u64::MAX, true);
    v.ask(&one, set(first, &whole(1))).unwrap();
    v.ask(&two, set(second, &whole(2))).unwrap();
    v.ask(&three, set(third, &whole(3))).unwrap();
    assert!(!v.ask(&one, wait(second, &whole(1), 1)).unwrap().granted);
    assert!(!v.ask(&two, wait(third, &whole(2), 2)).unwrap().granted);
    assert_eq!(v.ask(&three, wait(first, &whole(3), 3)), Err(Code::Deadlock));
    // Whoever is told so frees what it has, and the others go on.
    v.ask(&three, unlock(third, &whole(3))).unwrap();
    v.ask(&two, unlock(second, &whole(2))).unwrap();
    assert_eq!(v.ask(&one, awaited(1, 1)).unwrap().granted_tickets, [1]);
}

#[test]
fn locks_end_with_their_session() {
    let (mut v, one, two, file) = file();
    let other = v.ask(&one, touch(ROOT, "g", 0o600)).unwrap().attr.unwrap().inode;
    for inode in [file, other] {
        v.ask(&one, set(inode, &range(1, 0, 9, true))).unwrap();
        v.ask(&one, set(inode, &flock(1, true))).unwrap();
        let ticket = inode * 10;
        assert!(!v.ask(&two, wait(inode, &range(2, 0, 9, true), ticket)).unwrap().granted);
    }
    v.ask(&two, set(file, &range(2, 50, 59, true))).unwrap();
    assert!(!v.ask(&one, wait(file, &range(8, 50, 59, true), 3)).unwrap().granted);
    v.lead(expire(&[one.session])).unwrap();
    for inode in [file, other] {
        assert_eq!(v.ask(&two, awaited(2, inode * 10)).unwrap().granted_tickets, [inode * 10]);
    }
    assert_eq!(v.ask(&one, set(file, &range(1, 80, 81, true))), Err(Code::SessionExpired));
    assert_eq!(v.ask(&one, awaited(8, 3)), Err(Code::SessionExpired));
    v.ask(&two, set(file, &flock(2, true))).unwrap();
    v.ask(&two, Op::CloseSession(pb::CloseSessionOp {})).unwrap();
    assert!(!v.kv.pairs().any(|(key, _)| b"KkQ".contains(&key[0])));
}

#[test]
fn locks_go_with_their_inode() {
    let (mut v, one, two, file) = file();
    v.ask(&one, set(file, &range(1, 0, 9, true))).unwrap();
    v.ask(&two, wait(file, &range(2, 0, 9, true), 3)).unwrap();
    v.ask(&one, Op::Unlink(pb::UnlinkOp { parent: ROOT, name: "f".into(), directory: false }))
        .unwrap();
    v.lead(collect(&[file])).unwrap();
    assert!(!v.kv.pairs().any(|(key, _)| b"KkQ".contains(&key[0])));
    assert_eq!(v.ask(&two, awaited(2, 3)).unwrap().granted_tickets, [3], "it waits no more");
}

#[test]
fn only_who_may_use_a_file_locks_it() {
    let (mut v, one, _, file) = file();
    let stranger = v.user(10, 10, &[]);
    let lock = range(1, 0, 9, false);
    assert_eq!(v.ask(&stranger, set(file, &lock)), Err(Code::AccessDenied));
    v.ask(&one, chmod(file, 0o604)).unwrap();
    v.ask(&stranger, set(file, &range(1, 0, 9, true))).expect("a reader may, with flock at least");
    v.ask(&one, chmod(file, 0o600)).unwrap();
    v.ask(&stranger, unlock(file, &lock)).expect("its own");
}

#[test]
fn they_are_bounded() {
    let (mut v, one, two, file) = file();
    let apply = |v: &mut Volume, who: &Who, seq: u64, op: Op| {
        use prost::Message;
        let request = pb::NsRequest {
            session: who.session,
            seq,
            ack_below: seq,
            cred: Some(who.cred.clone()),
            op: Some(op),
            ..Default::default()
        };
        let command = ff2_meta_core::namespace::stamp(request, 1, 1, None).encode_to_vec();
        pb::NsReply::decode(v.apply(&command).as_slice()).unwrap().status.map(|s| s.code())
    };
    let held = LOCKS_PER_INODE_MAX as u64;
    for n in 0..held {
        let lock = range(1, 10 * n, 10 * n + 4, true);
        assert_eq!(apply(&mut v, &one, 100 + n, set(file, &lock)), None);
    }
    let mut seq = 100 + held;
    let mut next = |v: &mut Volume, who: &Who, op: Op| {
        seq += 1;
        apply(v, who, seq, op)
    };
    let one_more = range(1, 10 * held, 10 * held, true);
    assert_eq!(next(&mut v, &one, set(file, &one_more)), Some(Code::NoLocks));
    assert_eq!(next(&mut v, &one, unlock(file, &range(1, 2, 2, true))), Some(Code::NoLocks));
    assert_eq!(next(&mut v, &one, unlock(file, &range(1, 0, 4, true))), None);
    for n in 0..WAITERS_PER_INODE_MAX as u64 {
        let op = wait(file, &range(2, 10, 11, true), 1 + n);
        assert_eq!(next(&mut v, &two, op), None);
    }
    let op = wait(file, &range(2, 10, 11, true), 1_000_000);
    assert_eq!(next(&mut v, &two, op), Some(Code::NoLocks));
    assert_eq!(ff2_meta_core::namespace::fsck(&v.kv), []);
    assert_eq!(next(&mut v, &one, unlock(file, &range(1, 0, u64::MAX, true))), None);
    assert_eq!(ff2_meta_core::namespace::fsck(&v.kv), []);
}

/// A step of one of three sessions, each with two owners, on one of two files.
#[derive(Clone, Debug)]
struct Step {
    action: u8,
    session: usize,
    file: usize,
    lock: pb::Lock,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lock = (1..3_u64, 0..8_u64, 0..8_u64, any::<bool>(), any::<bool>()).prop_map(
        |(owner, a, b, exclusive, is_flock)| match is_flock {
            true => flock(owner, exclusive),
            false => range(owner, a.min(b), a.max(b), exclusive),
        },
    );
    let step = (0..20_u8, 0..3_usize, 0..2_usize, lock)
        .prop_map(|(action, session, file, lock)| Step { action, session, file, lock });
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever sessions do: the checks of a volume hold after every command (no two locks stand
    /// against each other, nobody waits for what is free, all is counted), every wait ends as granted
    /// or given up, and who is told that it was refused could not have had the lock.
    #[test]
    fn any_order_of_lock_requests_is_sound(steps in steps()) {
        let (mut v, first, second, file) = file();
        let other = v.ask(&first, touch(ROOT, "g", 0o600)).unwrap().attr.unwrap().inode;
        let mut sessions = [first, second, v.user(0, 0, &[])];
        let mut waiting: Vec<(u64, u64, u64, u64)> = Vec::new();
        for (number, step) in (1_u64..).zip(steps) {
            let (inode, lock) = ([file, other][step.file], step.lock);
            let who = sessions[step.session].clone();
            match step.action {
                0..=5 => {
                    let conflict = v.ask(&who, get(inode, &lock)).unwrap().conflict;
                    let outcome = v.ask(&who, set(inode, &lock));
                    prop_assert_eq!(outcome.is_ok(), conflict.is_none(), "{:?}", outcome);
                }
                6..=10 => match v.ask(&who, wait(inode, &lock, number)) {
                    Ok(reply) if !reply.granted => {
                        waiting.push((who.session, inode, lock.owner, number));
                    }
                    Ok(_) => {}
                    Err(code) => prop_assert_eq!(code, Code::Deadlock),
                },
                11..=16 => drop(v.ask(&who, unlock(inode, &lock)).unwrap()),
                17 | 18 => {
                    let own = |wait: &&(u64, u64, u64, u64)| wait.0 == who.session;
                    if let Some(&(_, inode, owner, ticket)) = waiting.iter().find(own) {
                        let came = v.ask(&who, awaited(owner, ticket)).unwrap().granted_tickets;
                        let reply = v.ask(&who, cancel(inode, owner, ticket)).unwrap();
                        prop_assert_eq!(reply.granted, came == [ticket]);
                        waiting.retain(|wait| wait.3 != ticket);
                    }
                }
                _ => {
                    v.lead(expire(&[who.session])).unwrap();
                    waiting.retain(|wait| wait.0 != who.session);
                    sessions[step.session] = v.user(0, 0, &[]);
                }
            }
        }
        for who in &sessions {
            v.ask(who, Op::CloseSession(pb::CloseSessionOp {})).unwrap();
        }
        prop_assert!(!v.kv.pairs().any(|(key, _)| b"KkQ".contains(&key[0])));
        prop_assert_eq!(v.replayed().hash(), v.kv.hash());
    }
}
