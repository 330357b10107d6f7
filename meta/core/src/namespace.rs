//! The namespace machine: inodes, names, sessions and orphans of one volume.
//!
//! It keeps no memory of its own. All state is in keys (`namespace/keys.rs` lists them), so a snapshot of
//! the keys is a snapshot of the machine. The leader stamps time, seed and layout into each command
//! ([`stamp`]); applying one runs one operation (a file each in `namespace/`) over an overlay, whose
//! changes are taken in only if the operation succeeds: a failing command changes nothing but its
//! remembered answer. Reads ([`query`]) look at the keys as they are.
//!
//! It never waits and knows no lease. What takes time is left as a note in the keys that the
//! leader's driver lists and finishes: truncations (chunks to cut), orphans (chunks to delete) and
//! doubtful lengths (chains to ask). Nor does a lock that is waited for hold anything up: it stands in
//! line in the keys, and the driver holds the question whether it came.

mod acl;
mod allot;
mod close;
mod confine;
mod create;
mod dir;
mod fsck;
#[cfg(test)]
mod fuzz;
mod get_lock;
mod get_xattr;
mod inline;
mod inode;
mod keys;
mod layout;
mod length;
pub mod limits;
mod link;
mod locks;
mod looked;
mod lookup;
mod make_node;
mod mend;
mod number;
mod once;
mod open;
mod orphans;
mod past;
mod perm;
mod preserve;
mod quota;
mod read_dir;
mod rename;
mod request;
mod resolve;
mod restore;
mod session_book;
mod sessions;
mod set_attr;
mod set_lock;
mod set_xattr;
mod shown;
mod snapshots;
mod touch_atime;
mod touched;
mod trash;
mod truncate;
mod tx;
mod unlink;
mod xattr;

use bytes::Bytes;
use ff2_proto::{
    ROOT_INODE, Status,
    pb::{self, FileKind, ns_request::Op},
    status::Code,
};
use prost::Message;

use crate::{
    kv::{Kv, KvRead},
    machine::StateMachine,
};
use keys::Tag;
use tx::Tx;

pub use fsck::{Chunks, Problem, chunks_of, fsck};
pub use looked::looked;
pub use mend::{Mend, plan as mends};
pub use request::{Class, Owner, class, granted, is_mutation, needs_grant, stamp};
pub use restore::restored;
pub use session_book::SessionBook;
pub use sessions::session;
pub use shown::{Cacheable, Shown, cacheable};
pub use snapshots::{all as snapshots, is_kept};
pub use touch_atime::keep_due as keep_due_atimes;
pub use touched::touched;
pub use trash::next_to_go as next_to_go_from_trash;
pub use truncate::unfinished;

/// The machine of a namespace group: [`pb::NsCommand`] in, [`pb::NsReply`] out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespace;

impl Namespace {
    pub fn new() -> Self {
        Self
    }

    /// Makes the root directory, unless there is one. The first command does so by itself, with its
    /// seed as the key. `number_key` hides the order of inode numbers; 0: they are a sequence.
    pub fn format(kv: &mut dyn Kv, now_ns: i64, number_key: u64) {
        if kv.get(&keys::VOLUME).is_some() {
            return;
        }
        let mut root = tx::blank(ROOT_INODE.0, FileKind::Directory, now_ns);
        root.attr.mode = 0o755;
        root.parent = ROOT_INODE.0;
        let volume = pb::VolumeRecord {
            next_inode: ROOT_INODE.0 + 1,
            next_session: 1,
            next_orphan_seq: 1,
            inodes: 1,
            number_key,
            ..Default::default()
        };
        kv.put(&keys::one(Tag::Inode, ROOT_INODE.0), root.encode());
        kv.put(&keys::VOLUME, Bytes::from(volume.encode_to_vec()));
    }

    fn execute(command: &pb::NsCommand, kv: &mut dyn Kv) -> Result<Bytes, Status> {
        crate::machine::assert_known(command.level);
        let missing = || Status::new(Code::InvalidArgument, "a command that asks for nothing");
        let request = command.request.as_ref().ok_or_else(missing)?;
        let op = request.op.as_ref().ok_or_else(missing)?;
        Self::format(kv, command.now_ns, command.seed);
        match request::class_of(op) {
            Class::Read | Class::Keepalive => {
                Err(Status::new(Code::InvalidArgument, "not to be logged"))
            }
            Class::Session | Class::Leader => {
                let reply = run(command, request, op, kv)?;
                Ok(Bytes::from(reply.encode_to_vec()))
            }
            Class::Mutation => {
                if let Some(answer) = once::admit(kv, request, command.owner)? {
                    return Ok(answer);
                }
                let result = run(command, request, op, kv);
                let is_final = once::is_final(&result);
                let answer = encode(result);
                if is_final {
                    once::remember(kv, request, &answer)?;
                }
                Ok(answer)
            }
        }
    }
}

impl StateMachine for Namespace {
    type View = ();

    fn restore(&mut self, _kv: &dyn KvRead) {}

    fn apply(&mut self, _index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes {
        pb::NsCommand::decode(command)
            .map_err(|error| Status::new(Code::InvalidArgument, format!("undecodable: {error}")))
            .and_then(|command| Self::execute(&command, kv))
            .unwrap_or_else(|status| encode(Err(status)))
    }

    fn view(&self) {}
}

fn encode(result: Result<pb::NsReply, Status>) -> Bytes {
    Bytes::from(reply(result).encode_to_vec())
}

fn reply(result: Result<pb::NsReply, Status>) -> pb::NsReply {
    result
        .unwrap_or_else(|status| pb::NsReply { status: Some(status.into()), ..Default::default() })
}

/// Runs one operation; its changes are taken in if it succeeds.
fn run(
    command: &pb::NsCommand,
    request: &pb::NsRequest,
    op: &Op,
    kv: &mut dyn Kv,
) -> Result<pb::NsReply, Status> {
    let mut tx = Tx::new(kv, command, request)?;
    past::refuse_change(&tx.kv, op, command.subtree)?;
    confine::check(&tx.kv, op, command.subtree)?;
    trash::folder::check(op)?;
    if command.told && touched(&tx.kv, request).iter().any(|at| !command.touched.contains(at)) {
        return Err(Status::new(Code::Busy, "a name means another inode by now"));
    }
    let mut reply = change(&mut tx, op)?;
    quota::add_room(&tx, &mut reply)?;
    let newest = tx.volume.newest_snapshot;
    let changes = tx.finish();
    preserve::preserve(kv, newest, changes.keys());
    for (key, value) in changes {
        match value {
            Some(value) => kv.put(&key, value),
            None => kv.delete(&key),
        }
    }
    Ok(reply)
}

fn change(tx: &mut Tx<'_>, op: &Op) -> Result<pb::NsReply, Status> {
    match op {
        Op::OpenSession(op) => sessions::open(tx, op),
        Op::CloseSession(_) => sessions::close(tx),
        Op::ExpireSessions(op) => sessions::expire(tx, op),
        Op::Create(op) => create::apply(tx, op),
        Op::MakeNode(op) => make_node::apply(tx, op),
        Op::Link(op) => link::apply(tx, op),
        Op::Unlink(op) => unlink::apply(tx, op),
        Op::Rename(op) => rename::apply(tx, op),
        Op::SetAttr(op) => set_attr::apply(tx, op),
        Op::Open(op) => open::apply(tx, op),
        Op::Close(op) => close::close(tx, op),
        Op::ReportLength(op) => close::report_length(tx, op),
        Op::FinishTruncate(op) => truncate::finish(tx, op),
        Op::Collect(op) => orphans::collect(tx, op),
        Op::RecoverLength(op) => length::recover(tx, op),
        Op::Spill(op) => inline::spill(tx, op),
        Op::SetLayout(op) => layout::set(tx, op),
        Op::SetXattr(op) => set_xattr::set(tx, op),
        Op::RemoveXattr(op) => set_xattr::remove(tx, op),
        Op::SetLock(op) => set_lock::set(tx, op),
        Op::Unlock(op) => set_lock::unlock(tx, op),
        Op::CancelLock(op) => set_lock::cancel(tx, op),
        Op::AllotInodes(op) => allot::allot(tx, op),
        Op::TouchAtime(op) => touch_atime::apply(tx, op),
        Op::SetQuota(op) => quota::set(tx, op),
        Op::RemoveQuota(op) => quota::remove_quota(tx, op),
        Op::CountQuota(op) => quota::count(tx, op),
        Op::SetTrash(op) => trash::set(tx, op),
        Op::EmptyTrash(op) => trash::empty(tx, op),
        Op::RestoreTrash(op) => trash::restore(tx, op),
        Op::StepSnapshot(op) => snapshots::step(tx, op),
        Op::Mend(op) => mend::apply(tx, op),
        Op::Lookup(_)
        | Op::GetAttr(_)
        | Op::ReadLink(_)
        | Op::ReadDir(_)
        | Op::StatFs(_)
        | Op::Resolve(_)
        | Op::Access(_)
        | Op::ListSessions(_)
        | Op::ListOrphans(_)
        | Op::ListTruncating(_)
        | Op::ListLengthDoubts(_)
        | Op::ReadInline(_)
        | Op::ListQuotas(_)
        | Op::ListTrash(_)
        | Op::ListSnapshots(_)
        | Op::GetXattr(_)
        | Op::ListXattrs(_)
        | Op::GetLock(_)
        | Op::AwaitLocks(_)
        | Op::AwaitInvalidations(_)
        | Op::Keepalive(_) => Err(Status::new(Code::InvalidArgument, "not a mutation")),
        Op::Batch(_) => Err(Status::new(Code::InvalidArgument, "its parts are logged")),
    }
}

/// Answers a daemon's read from the keys as they are.
pub fn query(kv: &dyn KvRead, request: &pb::NsRequest) -> pb::NsReply {
    query_of(kv, request, None)
}

/// As [`query`], for whoever owns the connection. A request in a session needs the session to live,
/// because what it opens would otherwise not be held, and to be its owner's.
pub fn query_of(kv: &dyn KvRead, request: &pb::NsRequest, owner: Owner) -> pb::NsReply {
    query_within(kv, request, owner, 0)
}

/// As [`query_of`], for a connection that is confined to a folder; 0: it is not.
pub fn query_within(
    kv: &dyn KvRead,
    request: &pb::NsRequest,
    owner: Owner,
    subtree: u64,
) -> pb::NsReply {
    reply(read(kv, request, owner, subtree))
}

fn read(
    kv: &dyn KvRead,
    request: &pb::NsRequest,
    owner: Owner,
    subtree: u64,
) -> Result<pb::NsReply, Status> {
    let Some(op) = &request.op else {
        return Err(Status::new(Code::InvalidArgument, "a request that asks for nothing"));
    };
    if request.session != 0 {
        sessions::check(kv, request.session, owner)?;
    }
    match past::answer(kv, request, op, subtree)? {
        Some(reply) => Ok(reply),
        None => answer(kv, request, op, subtree),
    }
}

/// From these keys, be they as they are or as they were.
fn answer(
    kv: &dyn KvRead,
    request: &pb::NsRequest,
    op: &Op,
    subtree: u64,
) -> Result<pb::NsReply, Status> {
    confine::check(kv, op, subtree)?;
    let who = || {
        let none = || Status::new(Code::InvalidArgument, "the request needs credentials");
        request.cred.as_ref().ok_or_else(none)
    };
    match op {
        Op::Lookup(op) => lookup::lookup(kv, who()?, op),
        Op::GetAttr(op) => lookup::get_attr(kv, op),
        Op::ReadLink(op) => lookup::read_link(kv, op),
        Op::ReadDir(op) => read_dir::read_dir(kv, who()?, op),
        Op::StatFs(op) => {
            let inode = if op.inode == 0 { subtree } else { op.inode };
            quota::stat_fs(kv, inode)
        }
        Op::ListQuotas(op) => quota::list(kv, op),
        Op::ListTrash(op) => trash::list(kv, op),
        Op::ListSnapshots(_) => snapshots::list(kv),
        Op::Resolve(op) => resolve::resolve(kv, who()?, op, confine::root(subtree)),
        Op::Access(op) => lookup::access(kv, who()?, op),
        Op::Open(op) => open::read_only(kv, who()?, op),
        Op::ReadInline(op) => inline::read(kv, op),
        Op::ListSessions(_) => sessions::list(kv),
        Op::ListOrphans(op) => orphans::list(kv, op),
        Op::ListTruncating(op) => truncate::list(kv, op),
        Op::ListLengthDoubts(op) => length::list_doubts(kv, op),
        Op::GetXattr(op) => get_xattr::get(kv, who()?, op),
        Op::ListXattrs(op) => get_xattr::list(kv, who()?, op),
        Op::GetLock(op) => get_lock::get(kv, request.session, op),
        Op::AwaitLocks(op) => get_lock::awaited(kv, request.session, op),
        // All but the session is in the leader's memory.
        Op::Keepalive(_) | Op::AwaitInvalidations(_) => Ok(pb::NsReply::default()),
        Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::ExpireSessions(_)
        | Op::Create(_)
        | Op::MakeNode(_)
        | Op::Link(_)
        | Op::Unlink(_)
        | Op::Rename(_)
        | Op::SetAttr(_)
        | Op::Close(_)
        | Op::ReportLength(_)
        | Op::FinishTruncate(_)
        | Op::Collect(_)
        | Op::SetLayout(_)
        | Op::Spill(_)
        | Op::SetXattr(_)
        | Op::RemoveXattr(_)
        | Op::SetLock(_)
        | Op::Unlock(_)
        | Op::CancelLock(_)
        | Op::Batch(_)
        | Op::AllotInodes(_)
        | Op::TouchAtime(_)
        | Op::SetQuota(_)
        | Op::RemoveQuota(_)
        | Op::CountQuota(_)
        | Op::SetTrash(_)
        | Op::EmptyTrash(_)
        | Op::RestoreTrash(_)
        | Op::StepSnapshot(_)
        | Op::Mend(_)
        | Op::RecoverLength(_) => Err(Status::new(Code::InvalidArgument, "a mutation is logged")),
    }
}
