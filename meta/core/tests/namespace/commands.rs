//! Requests and commands that nobody sane would send: whatever they ask, they get an answer, and the volume
//! stays sound.

use std::sync::LazyLock;

use ff2_meta_core::{
    MemKv, StateMachine,
    namespace::{Class, Namespace, class, fsck, query},
};
use ff2_proto::pb::{self, FileKind, ns_request::Op};
use prost::Message;

use crate::{ops::*, volume::Volume};

/// A small volume, and all that was asked to make it.
static LIVED: LazyLock<(Volume, Vec<pb::NsRequest>)> = LazyLock::new(|| {
    let (mut volume, root) = Volume::with_root();
    let user = volume.user(10, 100, &[200]);
    let ops = [
        chmod(1, 0o1777),
        mkdir(1, "d", 0o2775),
        create(2, "f", 0o644),
        symlink(1, "s", "d/f"),
        mknod(1, "p", FileKind::Fifo, 0o600),
        link(3, 1, "l"),
        set_xattr(3, "user.a", b"value"),
        report(3, 9_000),
        mv(1, "l", 2, "m"),
        truncate(3, 5),
        exchange(1, "s", 1, "p"),
        open_write(3),
        chown(3, Some(10), Some(100)),
        unlink(2, "m"),
        read_dir(1, 0, 10),
        lookup(1, "d"),
        resolve("/d/f", true),
        get_xattr(3, "user.a"),
        list_xattrs(3),
        access(3, 7),
        remove_xattr(3, "user.a"),
        collect(&[3]),
        finish_truncate(3, 1),
        recover(3, 1, 77),
        close(3, 10_000),
    ];
    let mut requests = Vec::new();
    for (number, op) in ops.into_iter().enumerate() {
        let who = if number % 3 == 1 { &user } else { &root };
        requests.push(pb::NsRequest {
            volume: 1,
            session: who.session,
            cred: Some(who.cred.clone()),
            seq: number as u64 + 100,
            op: Some(op.clone()),
            ..Default::default()
        });
        let _ = volume.ask(&root, op);
    }
    let lock = pb::Lock { owner: 1, start: 0, end: 9, ..Default::default() };
    for op in [
        Op::SetLock(pb::SetLockOp { inode: 3, lock: Some(lock), wait: true }),
        Op::Unlock(pb::UnlockOp { inode: 3, lock: Some(lock) }),
        Op::GetLock(pb::GetLockOp { inode: 3, lock: Some(lock) }),
        Op::Spill(pb::SpillOp { inode: 3 }),
        Op::CloseSession(pb::CloseSessionOp {}),
        expire(&[1, 2]),
    ] {
        let (session, seq) = (user.session, 100);
        requests.push(pb::NsRequest { session, seq, op: Some(op), ..requests[0].clone() });
    }
    (volume, requests)
});

fn requests() -> Vec<Vec<u8>> {
    LIVED.1.iter().map(Message::encode_to_vec).collect()
}

/// As they come from clients and are stamped by the leader. `Volume` checks after each that its repetition
/// changes nothing, that a refusal changed nothing, and that the keys are sound.
#[test]
fn damaged_requests() {
    ff2_fuzz::target!(2_000, requests(), |bytes| {
        let Ok(request) = pb::NsRequest::decode(bytes) else { return };
        match class(&request) {
            None => {}
            Some(Class::Read | Class::Keepalive) => drop(query(&LIVED.0.kv, &request)),
            Some(Class::Mutation | Class::Session | Class::Leader) => {
                let _ = LIVED.0.again().log(request);
            }
        }
    });
}

fn commands() -> Vec<Vec<u8>> {
    LIVED.0.log.clone()
}

/// As they come out of the log, without what a leader makes sure of.
#[test]
fn damaged_commands() {
    ff2_fuzz::target!(4_000, commands(), |bytes| {
        // A command of a level to come stops the program, and must.
        if pb::NsCommand::decode(bytes).is_ok_and(|command| command.level > ff2_proto::LEVEL) {
            return;
        }
        let mut kv: MemKv = LIVED.0.kv.clone();
        let answer = ff2_fuzz::bounded(bytes, || Namespace::new().apply(9, bytes, &mut kv));
        assert!(pb::NsReply::decode(answer).is_ok());
        assert_eq!(fsck(&kv), [], "after {:?}", pb::NsCommand::decode(bytes));
    });
}
