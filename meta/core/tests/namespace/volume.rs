//! A volume in memory. After every command: the command again gives the same answer and changes
//! nothing, a failure changes nothing but its remembered answer, and the keys are sound.

use std::collections::BTreeMap;

use ff2_meta_core::{
    Kv, MemKv, StateMachine,
    namespace::{Class, Namespace, Owner, class, fsck, query, query_of, stamp, touched},
};
use ff2_proto::{
    limits,
    pb::{self, Code, ns_request::Op},
    status,
};
use prost::Message;

/// Who asks, and in which session.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) session: u64,
    pub(crate) cred: pb::Credentials,
}

#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) kv: MemKv,
    pub(crate) now_ns: i64,
    pub(crate) log: Vec<Vec<u8>>,
    next_seq: BTreeMap<u64, u64>,
    next_nonce: u64,
}

pub(crate) const LAYOUT: pb::Layout = pb::Layout {
    table: 1,
    table_version: 3,
    chunk_size: limits::CHUNK_SIZE_DEFAULT,
    stripe: 4,
    seed: 0,
};

impl Volume {
    pub(crate) fn new() -> Self {
        let mut kv = MemKv::new();
        Namespace::format(&mut kv, 5, 0);
        let next_seq = BTreeMap::new();
        Self { kv, now_ns: 1_000, log: vec![], next_seq, next_nonce: 77 }
    }

    /// Another one in the same state.
    pub(crate) fn again(&self) -> Self {
        Self {
            kv: self.kv.clone(),
            log: self.log.clone(),
            next_seq: self.next_seq.clone(),
            ..*self
        }
    }

    /// A new session of root, and the volume's root opened to all.
    pub(crate) fn with_root() -> (Self, Who) {
        let mut volume = Self::new();
        let root = volume.user(0, 0, &[]);
        (volume, root)
    }

    /// A user in a new session.
    pub(crate) fn user(&mut self, uid: u32, gid: u32, groups: &[u32]) -> Who {
        self.next_nonce += 1;
        let (description, nonce) = ("a test".into(), self.next_nonce);
        let open = pb::OpenSessionOp { description, nonce, ..Default::default() };
        let session = self.lead(Op::OpenSession(open)).expect("a session").session;
        Who { session, cred: pb::Credentials { uid, gid, groups: groups.to_vec() } }
    }

    /// Asks as a client.
    pub(crate) fn ask(&mut self, who: &Who, op: Op) -> Result<pb::NsReply, Code> {
        let mut request = pb::NsRequest {
            volume: 1,
            session: who.session,
            cred: Some(who.cred.clone()),
            op: Some(op),
            ..Default::default()
        };
        match class(&request).expect("an operation") {
            Class::Read | Class::Keepalive => checked(query(&self.kv, &request)),
            Class::Mutation | Class::Session | Class::Leader => {
                let next = self.next_seq.entry(who.session).or_insert(1);
                request.seq = *next;
                request.ack_below = *next;
                *next += 1;
                self.log(request)
            }
        }
    }

    /// Asks as the leader's driver.
    pub(crate) fn lead(&mut self, op: Op) -> Result<pb::NsReply, Code> {
        let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
        match class(&request).expect("an operation") {
            Class::Read | Class::Keepalive => checked(query(&self.kv, &request)),
            Class::Mutation | Class::Session | Class::Leader => self.log(request),
        }
    }

    /// Logs and applies a daemon's request, with all that must hold of any.
    pub(crate) fn log(&mut self, request: pb::NsRequest) -> Result<pb::NsReply, Code> {
        self.log_of(request, None)
    }

    /// As [`Volume::log`], for whoever owns the connection.
    pub(crate) fn log_of(
        &mut self,
        request: pb::NsRequest,
        owner: Owner,
    ) -> Result<pb::NsReply, Code> {
        self.log_as(request, owner, 0)
    }

    /// As [`Volume::log`], by a connection that is confined to a folder.
    pub(crate) fn log_within(
        &mut self,
        request: pb::NsRequest,
        subtree: u64,
    ) -> Result<pb::NsReply, Code> {
        self.log_as(request, None, subtree)
    }

    fn log_as(
        &mut self,
        request: pb::NsRequest,
        owner: Owner,
        subtree: u64,
    ) -> Result<pb::NsReply, Code> {
        let touched = touched(&self.kv, &request);
        self.log_told(request, owner, subtree, touched)
    }

    /// As [`Volume::log`], when those that cache these inodes were told.
    pub(crate) fn log_told(
        &mut self,
        request: pb::NsRequest,
        owner: Owner,
        subtree: u64,
        touched: Vec<u64>,
    ) -> Result<pb::NsReply, Code> {
        self.now_ns += 10;
        let before = self.kv.clone();
        let seed = self.now_ns as u64 * 31;
        let op = request.op.clone();
        let command = stamp(request, self.now_ns, seed, Some(LAYOUT));
        let level = ff2_proto::LEVEL;
        let command = pb::NsCommand { owner, subtree, told: true, touched, level, ..command };
        let command = command.encode_to_vec();
        let answer = self.apply(&command);
        let reply = pb::NsReply::decode(answer.as_slice()).expect("a reply");
        let hash = self.kv.hash();
        // An entry that is back, or gone, is not there any more.
        let is_of_trash = matches!(op, Some(Op::RestoreTrash(_) | Op::EmptyTrash(_)));
        let again = self.apply(&command);
        assert!(is_of_trash || again == answer, "the second time gives the same answer");
        assert_eq!(self.kv.hash(), hash, "the second time changes nothing: {reply:?}");
        assert_eq!(fsck(&self.kv), [], "after {:?}", pb::NsCommand::decode(command.as_slice()));
        if status::check(reply.status.clone()).is_err() {
            self.assert_unchanged_since(&before);
        }
        self.log.push(command);
        checked(reply)
    }

    /// What the leader of a cluster of this feature level is answered.
    pub(crate) fn at_level(&mut self, level: u32, op: Op) -> Result<pb::NsReply, pb::Status> {
        let request = pb::NsRequest { volume: 1, op: Some(op), ..Default::default() };
        let command = pb::NsCommand { level, ..stamp(request, 1, 1, None) };
        let answer = self.apply(&command.encode_to_vec());
        let reply = pb::NsReply::decode(answer.as_slice()).expect("a reply");
        match reply.status.clone() {
            None => Ok(reply),
            Some(status) => Err(status),
        }
    }

    pub(crate) fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        Namespace::new().apply(self.log.len() as u64, command, &mut self.kv).to_vec()
    }

    /// Nothing differs but remembered answers and their count.
    fn assert_unchanged_since(&self, before: &MemKv) {
        let strip = |kv: &MemKv| {
            let mut kv = kv.clone();
            let notes: Vec<_> =
                kv.pairs().map(|(key, _)| key.clone()).filter(|k| b"XU".contains(&k[0])).collect();
            notes.iter().for_each(|key| kv.delete(key));
            kv
        };
        assert!(strip(before) == strip(&self.kv), "a failure changed the volume");
    }

    /// A new state that has applied the whole log.
    pub(crate) fn replayed(&self) -> MemKv {
        let mut kv = MemKv::new();
        Namespace::format(&mut kv, 5, 0);
        for (index, command) in self.log.iter().enumerate() {
            Namespace::new().apply(index as u64, command, &mut kv);
        }
        kv
    }

    pub(crate) fn attr(&self, inode: u64) -> pb::Attr {
        self.look(Op::GetAttr(pb::GetAttrOp { inode })).expect("attributes").attr.expect("an attr")
    }

    /// Reads as root in no session.
    pub(crate) fn look(&self, op: Op) -> Result<pb::NsReply, Code> {
        let cred = Some(pb::Credentials::default());
        let request = pb::NsRequest { cred, op: Some(op), ..Default::default() };
        checked(query(&self.kv, &request))
    }

    /// Reads in a session, over a connection of `owner`.
    pub(crate) fn look_of(&self, session: u64, op: Op, owner: Owner) -> Result<pb::NsReply, Code> {
        let cred = Some(pb::Credentials::default());
        let request = pb::NsRequest { session, cred, op: Some(op), ..Default::default() };
        checked(query_of(&self.kv, &request, owner))
    }

    pub(crate) fn orphans(&self) -> Vec<pb::Orphan> {
        self.look(Op::ListOrphans(pb::ListOrphansOp::default())).expect("orphans").orphan_inodes
    }

    pub(crate) fn doubts(&self) -> Vec<pb::LengthDoubt> {
        let all = pb::ListLengthDoubtsOp::default();
        self.look(Op::ListLengthDoubts(all)).expect("doubts").length_doubts
    }

    pub(crate) fn truncations(&self) -> Vec<pb::Truncation> {
        let all = pb::ListTruncatingOp::default();
        self.look(Op::ListTruncating(all)).expect("truncations").truncations
    }
}

fn checked(reply: pb::NsReply) -> Result<pb::NsReply, Code> {
    match status::check(reply.status.clone()) {
        Ok(()) => Ok(reply),
        Err(status) => Err(status.code),
    }
}
