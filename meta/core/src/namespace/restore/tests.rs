use ff2_proto::{
    ROOT_INODE,
    pb::{NsCommand, NsRequest, ns_request::Op},
};

use super::*;
use crate::{
    KvRead, MemKv, StateMachine,
    kv::Kv,
    namespace::{Namespace, fsck, session},
};

const AT_S: u64 = 1_764_000_100;

struct Volume {
    kv: MemKv,
    seq: u64,
}

impl Volume {
    fn ask(&mut self, session: u64, op: Op) -> pb::NsReply {
        self.seq += 1;
        let cred = Some(pb::Credentials::default());
        let request =
            NsRequest { session, seq: self.seq, cred, op: Some(op), ..Default::default() };
        let command = NsCommand {
            now_ns: 5,
            seed: 77,
            request: Some(request),
            default_layout: Some(layout()),
            ..Default::default()
        };
        let reply = Namespace::new().apply(1, &command.encode_to_vec(), &mut self.kv);
        pb::NsReply::decode(reply).unwrap()
    }

    fn open_session(&mut self, nonce: u64) -> u64 {
        self.ask(0, Op::OpenSession(pb::OpenSessionOp { nonce, ..Default::default() })).session
    }

    fn create(&mut self, session: u64, name: &str) -> pb::Attr {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let op = pb::CreateOp {
            parent: ROOT_INODE.0,
            name,
            mode: 0o644,
            exclusive: true,
            write: true,
            ..Default::default()
        };
        let reply = self.ask(session, Op::Create(op));
        assert_eq!(reply.status, None);
        reply.attr.unwrap()
    }

    fn restored(&self) -> Self {
        let mut kv = MemKv::new();
        for (key, value) in self.kv.pairs() {
            for (key, value) in restored(key, value, AT_S).unwrap() {
                kv.put(&key, value);
            }
        }
        Self { kv, seq: 1_000 }
    }

    fn problems(&self) -> Vec<crate::namespace::Problem> {
        fsck(&self.kv)
    }
}

#[test]
fn sessions_are_over_and_no_number_comes_again() {
    let mut volume = Volume { kv: MemKv::new(), seq: 0 };
    let old = volume.open_session(1);
    volume.create(old, "a");
    assert_eq!(volume.problems(), []);
    let mut after = volume.restored();
    assert_eq!(after.problems(), []);
    assert_eq!(session(&after.kv, old).unwrap(), None, "it is over");
    // What was made after the backup, and is lost.
    let lost_session = volume.open_session(2);
    let lost = volume.create(lost_session, "lost").inode;
    // The same mount comes again under its nonce.
    let new = after.open_session(1);
    assert!(new >= AT_S << 24 && new != lost_session);
    let made: Vec<u64> =
        (0..50).map(|index| after.create(new, &format!("new-{index}")).inode).collect();
    assert!(!made.contains(&lost));
    after.ask(0, Op::ExpireSessions(pb::ExpireSessionsOp { sessions: vec![old] }));
    assert_eq!(after.problems(), []);
}

#[test]
fn lengths_are_asked_from_the_chains_and_inline_files_may_have_chunks() {
    let mut volume = Volume { kv: MemKv::new(), seq: 0 };
    let session = volume.open_session(1);
    let inode = volume.create(session, "a").inode;
    let key = keys::one(Tag::Inode, inode);
    let mut record: pb::InodeRecord = decode(&volume.kv.get(&key).unwrap()).unwrap();
    for inline in [true, false] {
        let attr = record.attr.as_mut().unwrap();
        attr.inline = inline;
        attr.layout = Some(layout());
        volume.kv.put(&key, encoded(&record));
        let after = volume.restored();
        let doubt = after.kv.get(&keys::one(Tag::Doubt, inode));
        assert_eq!(doubt.is_some(), !inline, "inline: {inline}");
        let chunks = crate::namespace::chunks_of(&after.kv, inode).unwrap();
        assert_eq!(chunks, crate::namespace::Chunks::Unsettled);
    }
}

#[test]
fn damaged_records_are_refused() {
    let bad = Bytes::from_static(b"\xff\xff\xff");
    for key in [&b"V"[..], &keys::one(Tag::Inode, 5), &keys::one(Tag::Session, 5)] {
        assert!(restored(&Bytes::copy_from_slice(key), &bad, AT_S).is_err(), "{key:?}");
    }
    let name = Bytes::from_static(b"D12345678name");
    assert_eq!(restored(&name, &bad, AT_S).unwrap(), [(name, bad)], "what is not changed passes");
}

fn layout() -> pb::Layout {
    pb::Layout { table: 1, table_version: 1, chunk_size: 1 << 20, stripe: 1, ..Default::default() }
}
