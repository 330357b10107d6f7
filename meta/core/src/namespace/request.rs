//! What kind of request something is, for the drivers around the machine.

use ff2_proto::pb::{self, ns_request::Op};

use super::open;

/// How a request is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answered from the keys as they are: [`super::query`].
    Read,
    /// A session's change: logged, and answered exactly once by (session, seq).
    Mutation,
    /// Begins or ends a session: logged; harmless when it comes twice.
    Session,
    /// Logged by the leader's own driver, in no session; harmless when it comes twice. Refuse it
    /// from clients.
    Leader,
    /// Renews a session in the leader's memory; never logged.
    Keepalive,
}

/// Whose connection a request came by: the uid of its token, `None` for a daemon's. Not whom it
/// speaks for: a mount for all users of a host asks with many credentials in one session.
pub type Owner = Option<u32>;

/// The class of a request; `None` if it asks for nothing (that this release knows).
pub fn class(request: &pb::NsRequest) -> Option<Class> {
    Some(class_of(request.op.as_ref()?))
}

pub(super) fn class_of(op: &Op) -> Class {
    match op {
        Op::Open(op) if !open::is_writing(op) => Class::Read,
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
        | Op::GetXattr(_)
        | Op::ListXattrs(_)
        | Op::GetLock(_)
        | Op::ListQuotas(_)
        | Op::ListTrash(_)
        | Op::ListSnapshots(_)
        | Op::AwaitLocks(_) => Class::Read,
        Op::Create(_)
        | Op::MakeNode(_)
        | Op::Link(_)
        | Op::Unlink(_)
        | Op::Rename(_)
        | Op::SetAttr(_)
        | Op::Open(_)
        | Op::Close(_)
        | Op::ReportLength(_)
        | Op::Spill(_)
        | Op::SetLayout(_)
        | Op::SetXattr(_)
        | Op::RemoveXattr(_)
        | Op::SetLock(_)
        | Op::Unlock(_)
        | Op::CancelLock(_)
        | Op::Batch(_)
        | Op::AllotInodes(_)
        | Op::TouchAtime(_) => Class::Mutation,
        Op::OpenSession(_) | Op::CloseSession(_) => Class::Session,
        Op::ExpireSessions(_)
        | Op::FinishTruncate(_)
        | Op::Collect(_)
        | Op::SetQuota(_)
        | Op::RemoveQuota(_)
        | Op::CountQuota(_)
        | Op::SetTrash(_)
        | Op::EmptyTrash(_)
        | Op::RestoreTrash(_)
        | Op::StepSnapshot(_)
        | Op::Mend(_)
        | Op::RecoverLength(_) => Class::Leader,
        Op::Keepalive(_) | Op::AwaitInvalidations(_) => Class::Keepalive,
    }
}

/// Whether the request must be logged.
pub fn is_mutation(request: &pb::NsRequest) -> bool {
    match class(request) {
        Some(Class::Mutation | Class::Session | Class::Leader) => true,
        Some(Class::Read | Class::Keepalive) | None => false,
    }
}

/// Whether a good answer to this must carry a grant for the storage nodes, if its inode is a
/// regular file. What the grant allows: [`granted`].
pub fn needs_grant(request: &pb::NsRequest) -> bool {
    granted(request).is_some()
}

/// What the grant of an open or create allows: (read, write).
pub fn granted(request: &pb::NsRequest) -> Option<(bool, bool)> {
    match request.op.as_ref()? {
        // To run a file is to read it.
        Op::Open(op) => Some((op.read || op.execute, op.write)),
        Op::Create(op) => Some((op.read, op.write)),
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
        | Op::Spill(_)
        | Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::ExpireSessions(_)
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
        | Op::Keepalive(_)
        | Op::AwaitInvalidations(_)
        | Op::RecoverLength(_)
        | Op::GetXattr(_)
        | Op::ListXattrs(_)
        | Op::GetLock(_)
        | Op::AwaitLocks(_)
        | Op::SetXattr(_)
        | Op::RemoveXattr(_)
        | Op::SetLock(_)
        | Op::Unlock(_)
        | Op::CancelLock(_)
        | Op::Batch(_)
        | Op::ListQuotas(_)
        | Op::SetQuota(_)
        | Op::RemoveQuota(_)
        | Op::CountQuota(_)
        | Op::ListTrash(_)
        | Op::SetTrash(_)
        | Op::EmptyTrash(_)
        | Op::RestoreTrash(_)
        | Op::ListSnapshots(_)
        | Op::StepSnapshot(_)
        | Op::Mend(_)
        | Op::AllotInodes(_)
        | Op::TouchAtime(_) => None,
    }
}

/// What the leader logs for a request of a daemon: with all that is not a function of request and
/// state. Of a user's request it adds the owner, and what the connection is confined to.
pub fn stamp(
    request: pb::NsRequest,
    now_ns: i64,
    seed: u64,
    default_layout: Option<pb::Layout>,
) -> pb::NsCommand {
    let request = Some(request);
    pb::NsCommand { now_ns, seed, request, default_layout, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(op: Op) -> pb::NsRequest {
        pb::NsRequest { op: Some(op), ..Default::default() }
    }

    #[test]
    fn a_read_only_open_is_a_read() {
        let open = |read, write, truncate| {
            request(Op::Open(pb::OpenOp { inode: 2, read, write, truncate, execute: false }))
        };
        assert_eq!(class(&open(true, false, false)), Some(Class::Read));
        assert!(is_mutation(&open(true, true, false)));
        assert!(is_mutation(&open(true, false, true)));
        assert!(needs_grant(&open(true, false, false)));
        assert_eq!(granted(&open(true, true, false)), Some((true, true)));
        assert_eq!(class(&pb::NsRequest::default()), None);
        assert!(!is_mutation(&request(Op::Keepalive(pb::KeepaliveOp::default()))));
        assert!(!needs_grant(&request(Op::GetAttr(pb::GetAttrOp { inode: 1 }))));
    }
}
