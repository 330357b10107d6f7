//! Sessions and exactly-once answers.

use ff2_meta_core::namespace::limits::{ANSWERS_PER_SESSION_MAX, END_STEPS_MAX};
use ff2_proto::pb::{self, Code, ns_request::Op};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

fn numbered(who: &Who, seq: u64, ack_below: u64, op: Op) -> pb::NsRequest {
    pb::NsRequest {
        volume: 1,
        session: who.session,
        seq,
        ack_below,
        cred: Some(who.cred.clone()),
        at_ns: 0,
        op: Some(op),
    }
}

#[test]
fn sessions_open_once_and_end() {
    let (mut v, root) = Volume::with_root();
    let open = |nonce, description: &str| {
        let description = description.into();
        Op::OpenSession(pb::OpenSessionOp { description, nonce, ..Default::default() })
    };
    let first = v.lead(open(5, "host a")).unwrap().session;
    assert_eq!(v.lead(open(5, "host a")).unwrap().session, first, "a retry finds its session");
    let second = v.lead(open(6, "host b")).unwrap().session;
    assert_ne!(first, second);
    assert_eq!(v.lead(open(0, "")), Err(Code::InvalidArgument));
    assert_eq!(v.lead(open(7, &"x".repeat(256))), Err(Code::InvalidArgument));
    let all = Op::ListSessions(pb::ListSessionsOp {});
    let listed = v.look(all.clone()).unwrap().sessions;
    assert_eq!(listed.iter().map(|s| s.id).collect::<Vec<_>>(), [root.session, first, second]);
    assert_eq!(listed[1].description, "host a");

    let who = Who { session: first, cred: root.cred.clone() };
    v.ask(&who, touch(ROOT, "f", 0o644)).unwrap();
    v.ask(&who, Op::CloseSession(pb::CloseSessionOp {})).unwrap();
    assert_eq!(v.ask(&who, touch(ROOT, "g", 0o644)), Err(Code::SessionExpired));
    assert_eq!(v.ask(&who, lookup(ROOT, "f")), Err(Code::SessionExpired));
    assert_eq!(v.ask(&who, Op::Keepalive(pb::KeepaliveOp::default())), Err(Code::SessionExpired));
    v.ask(&root, Op::Keepalive(pb::KeepaliveOp::default())).unwrap();
    v.lead(expire(&[second, first])).unwrap();
    assert_eq!(v.look(all).unwrap().sessions.len(), 1);
    assert_eq!(v.lead(expire(&[1; 65])), Err(Code::InvalidArgument));
    assert!(v.lead(open(5, "host a")).unwrap().session > second, "numbers are not reused");
}

/// Otherwise another user could give an answer under a number that its owner is about to use, and
/// the owner would take what it never did for done.
#[test]
fn a_session_is_its_owners_alone() {
    let mut v = Volume::new();
    let ask = |session, seq, op| pb::NsRequest {
        session,
        seq,
        ack_below: seq,
        cred: Some(pb::Credentials::default()),
        op: Some(op),
        ..Default::default()
    };
    let open = || ask(0, 0, Op::OpenSession(pb::OpenSessionOp { nonce: 5, ..Default::default() }));
    let ann = v.log_of(open(), Some(10)).unwrap().session;
    let bob = v.log_of(open(), Some(11)).unwrap().session;
    let daemon = v.log_of(open(), None).unwrap().session;
    assert!(ann != bob && bob != daemon, "each owner has nonces of its own");
    assert_eq!(v.log_of(open(), Some(10)).unwrap().session, ann);

    let close = || Op::CloseSession(pb::CloseSessionOp {});
    for stranger in [Some(11), Some(9), None] {
        let other = v.log_of(ask(ann, 1 << 40, mkdir(ROOT, "x", 0o755)), stranger);
        assert_eq!(other, Err(Code::Forbidden));
        assert_eq!(v.log_of(ask(ann, 0, close()), stranger), Err(Code::Forbidden));
        assert_eq!(v.look_of(ann, open_read(ROOT), stranger), Err(Code::Forbidden));
    }
    v.look_of(ann, open_read(ROOT), Some(10)).unwrap();
    v.log_of(ask(ann, 1, mkdir(ROOT, "x", 0o755)), Some(10)).expect("nothing was acknowledged");
    v.log_of(ask(ann, 0, close()), Some(10)).unwrap();
    v.log_of(ask(ann, 0, close()), Some(11)).expect("it is over: no effect");
    let left = v.look(Op::ListSessions(pb::ListSessionsOp {})).unwrap().sessions;
    assert_eq!(
        left.iter().map(|s| (s.id, s.owner)).collect::<Vec<_>>(),
        [(bob, Some(11)), (daemon, None)]
    );
}

/// A command is applied in one go while all others wait, so a session with much open ends in steps.
#[test]
fn a_session_ends_in_bounded_steps() {
    let (mut v, root) = Volume::with_root();
    let apply = |v: &mut Volume, request: pb::NsRequest| {
        use prost::Message;
        let layout = Some(crate::volume::LAYOUT);
        let command = ff2_meta_core::namespace::stamp(request, 1, 1, layout).encode_to_vec();
        pb::NsReply::decode(v.apply(&command).as_slice()).unwrap()
    };
    let files = END_STEPS_MAX as u64 + 10;
    for seq in 1..=files {
        let request = numbered(&root, seq, seq, create(ROOT, &seq.to_string(), 0o644));
        assert_eq!(apply(&mut v, request).status, None);
    }
    let lost = |v: &Volume| {
        let first = v.doubts();
        let after_inode = first.last().unwrap().inode;
        let op = pb::ListLengthDoubtsOp { after_inode, limit: 0 };
        first.len() + v.look(Op::ListLengthDoubts(op)).unwrap().length_doubts.len()
    };
    let close = numbered(&root, 0, 0, Op::CloseSession(pb::CloseSessionOp {}));
    assert_eq!(apply(&mut v, close).status, None);
    assert_eq!(ff2_meta_core::namespace::fsck(&v.kv), []);
    assert_eq!(v.ask(&root, mkdir(ROOT, "d", 0o755)), Err(Code::SessionExpired), "over at once");
    let first = lost(&v);
    assert!(first > 0 && first as u64 <= END_STEPS_MAX as u64, "{first}");
    let record = v.look(Op::ListSessions(pb::ListSessionsOp {})).unwrap().sessions.remove(0);
    assert!(record.ending);
    let again = Op::OpenSession(pb::OpenSessionOp { nonce: record.nonce, ..Default::default() });
    assert_ne!(v.lead(again).unwrap().session, root.session);
    // One of its lost writers is settled before the rest is lost.
    let doubt = v.doubts()[0];
    v.lead(recover(doubt.inode, doubt.doubt, 7)).unwrap();
    let request = pb::NsRequest { op: Some(expire(&[root.session])), ..Default::default() };
    assert_eq!(apply(&mut v, request).status, None);
    assert_eq!(ff2_meta_core::namespace::fsck(&v.kv), []);
    assert_eq!(lost(&v) as u64, files - 1);
    assert!(v.look_of(root.session, open_read(ROOT), None).is_err());
    assert_eq!(v.look(Op::ListSessions(pb::ListSessionsOp {})).unwrap().sessions.len(), 1);
}

#[test]
fn an_answer_is_kept_until_it_is_acknowledged() {
    let (mut v, root) = Volume::with_root();
    let first = v.log(numbered(&root, 1, 0, mkdir(ROOT, "a", 0o755))).unwrap();
    let failed = v.log(numbered(&root, 2, 0, mkdir(ROOT, "a", 0o755)));
    assert_eq!(failed, Err(Code::Exists));
    v.log(numbered(&root, 3, 0, rmdir(ROOT, "a"))).unwrap();
    let again = v.log(numbered(&root, 1, 0, mkdir(ROOT, "a", 0o755))).unwrap();
    assert_eq!(again, first, "though the directory is gone");
    assert_eq!(v.log(numbered(&root, 2, 0, mkdir(ROOT, "a", 0o755))), failed);
    v.log(numbered(&root, 5, 3, mkdir(ROOT, "b", 0o755))).unwrap();
    let old = v.log(numbered(&root, 1, 0, mkdir(ROOT, "a", 0o755)));
    assert_eq!(old, Err(Code::StaleUpdate), "acknowledged, so it cannot come again");
    assert_eq!(v.log(numbered(&root, 2, 99, mkdir(ROOT, "a", 0o755))), Err(Code::StaleUpdate));
    v.log(numbered(&root, 4, 3, mkdir(ROOT, "c", 0o755))).expect("overtaken, not acknowledged");
    v.log(numbered(&root, 3, 3, rmdir(ROOT, "a"))).expect("remembered still");
    // Nobody can have the answer of what he asks: this one is remembered all the same.
    v.log(numbered(&root, 6, 99, mkdir(ROOT, "d", 0o755))).unwrap();
    v.log(numbered(&root, 7, 7, mkdir(ROOT, "e", 0o755))).unwrap();
}

#[test]
fn an_answer_to_wait_is_not_the_last_word() {
    let (mut v, root) = Volume::with_root();
    let file = v.ask(&root, create(ROOT, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&root, report(file, 10)).unwrap();
    let cut = v.ask(&root, truncate(file, 0)).unwrap().truncation.unwrap();
    let retried = numbered(&root, 100, 0, chmod(file, 0o600));
    assert_eq!(v.log(retried.clone()), Err(Code::Busy));
    v.lead(finish_truncate(file, cut.truncate_version)).unwrap();
    assert_eq!(v.log(retried).unwrap().attr.unwrap().mode, 0o600);
}

#[test]
fn requests_must_say_who_and_which() {
    let (mut v, root) = Volume::with_root();
    let good = numbered(&root, 9, 0, mkdir(ROOT, "a", 0o755));
    let no_seq = pb::NsRequest { seq: 0, ..good.clone() };
    let no_cred = pb::NsRequest { cred: None, ..good.clone() };
    let no_session = pb::NsRequest { session: 0, ..good.clone() };
    assert_eq!(v.log(no_seq), Err(Code::InvalidArgument));
    assert_eq!(v.log(no_cred), Err(Code::InvalidArgument));
    assert_eq!(v.log(no_session), Err(Code::SessionExpired));
    assert_eq!(v.log(numbered(&root, 9, 0, lookup(ROOT, "a"))), Err(Code::InvalidArgument));
    assert_eq!(v.log(pb::NsRequest { op: None, ..good.clone() }), Err(Code::InvalidArgument));
    assert_eq!(
        v.log(pb::NsRequest {
            session: 0,
            seq: 0,
            op: Some(Op::CloseSession(pb::CloseSessionOp {})),
            ..good
        }),
        Err(Code::InvalidArgument)
    );
    for garbage in [&b"\xff\xff"[..], b"", b"\x1a\x02\x08\x01"] {
        let before = v.kv.hash();
        v.apply(garbage);
        assert_eq!(v.kv.hash(), before);
    }
}

#[test]
fn unacknowledged_answers_are_bounded() {
    let (mut v, root) = Volume::with_root();
    let apply = |v: &mut Volume, seq: u64, ack_below: u64| {
        use prost::Message;
        let request = numbered(&root, seq, ack_below, chmod(ROOT, 0o700));
        let command = ff2_meta_core::namespace::stamp(request, 1, 1, None).encode_to_vec();
        pb::NsReply::decode(v.apply(&command).as_slice()).unwrap().status.map(|s| s.code())
    };
    for seq in 1..=ANSWERS_PER_SESSION_MAX {
        assert_eq!(apply(&mut v, seq, 0), None);
    }
    let next = ANSWERS_PER_SESSION_MAX + 1;
    assert_eq!(apply(&mut v, next, 0), Some(Code::Busy));
    assert_eq!(apply(&mut v, 7, 0), None, "what is remembered is answered");
    assert_eq!(apply(&mut v, next, next), None);
    assert_eq!(ff2_meta_core::namespace::fsck(&v.kv), []);
}

#[test]
fn a_new_volume_needs_no_formatting() {
    let mut v = Volume::new();
    v.kv = ff2_meta_core::MemKv::new();
    assert_eq!(v.look(Op::GetAttr(pb::GetAttrOp { inode: ROOT })), Err(Code::StaleInode));
    let root = v.user(0, 0, &[]);
    v.ask(&root, mkdir(ROOT, "d", 0o755)).unwrap();
    assert_eq!((v.attr(ROOT).mode, v.attr(ROOT).nlink, v.attr(ROOT).uid), (0o755, 3, 0));
}
