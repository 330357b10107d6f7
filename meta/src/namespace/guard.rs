//! Who may ask what: a request is checked against the identity of its connection before anything else.

use ff2_fabric::{Peer, Role};
use ff2_meta_core::namespace::{Class, Owner, class};
use ff2_proto::{Code, Status, pb};
use pb::ns_request::Op;

/// Refuses what this peer may not ask, and fills in who asks where the connection settles it.
pub(super) fn admit(request: &mut pb::NsRequest, peer: &Peer) -> Result<(), Status> {
    let (Some(op), Some(class)) = (&request.op, class(request)) else {
        return Err(Status::new(Code::InvalidArgument, "no operation is given"));
    };
    let is_administrator = match peer {
        Peer::Daemon => true,
        Peer::User(claims) => Role::of(claims) == Role::Admin,
    };
    if class == Class::Leader || (is_for_administrators(op) && !is_administrator) {
        return Err(forbidden(format!("{} is not for this connection", op_name(op))));
    }
    let needs_session = matches!(class, Class::Mutation | Class::Keepalive);
    if needs_session && request.session == 0 {
        return Err(Status::new(Code::InvalidArgument, "open a session first"));
    }
    match peer {
        Peer::Daemon => {}
        Peer::User(claims) => {
            if claims.subtree != 0 && claims.subtree_volume != request.volume {
                return Err(forbidden("the token is for another volume".into()));
            }
            bind_credentials(request, claims)?;
        }
    }
    request.cred.get_or_insert_default();
    // When something happened is said of the parts of a batch only.
    request.at_ns = 0;
    Ok(())
}

/// A root token speaks for any user of its host; any other for its own.
fn bind_credentials(request: &mut pb::NsRequest, claims: &pb::UserClaims) -> Result<(), Status> {
    let own =
        || pb::Credentials { uid: claims.uid, gid: claims.gid, groups: claims.groups.clone() };
    let Some(cred) = &request.cred else {
        request.cred = Some(own());
        return Ok(());
    };
    let in_claims = |group: &u32| *group == claims.gid || claims.groups.contains(group);
    let is_own =
        cred.uid == claims.uid && in_claims(&cred.gid) && cred.groups.iter().all(in_claims);
    if claims.root || is_own {
        return Ok(());
    }
    Err(forbidden(format!(
        "the token is of user {}, the request of {}: a mount for several users needs a root token",
        claims.uid, cred.uid
    )))
}

fn forbidden(detail: String) -> Status {
    Status::new(Code::Forbidden, detail)
}

/// What the machine must know of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// Who a session belongs to: all daemons are one, each user another.
    pub(super) owner: Owner,
    /// The folder that it is confined to; 0: none.
    pub(super) subtree: u64,
}

impl Asker {
    pub(super) const DAEMON: Self = Self { owner: None, subtree: 0 };
}

pub(super) fn asker(peer: &Peer) -> Asker {
    match peer {
        Peer::Daemon => Asker::DAEMON,
        Peer::User(claims) => Asker { owner: Some(claims.uid), subtree: claims.subtree },
    }
}

/// What shows other users' work.
fn is_for_administrators(op: &Op) -> bool {
    matches!(
        op,
        Op::ListSessions(_)
            | Op::ListOrphans(_)
            | Op::ListTruncating(_)
            | Op::ListLengthDoubts(_)
            | Op::ListQuotas(_)
            | Op::ListTrash(_)
            | Op::ListSnapshots(_)
    )
}

/// The label of an operation in metrics and lists.
pub(super) fn op_name(op: &Op) -> &'static str {
    match op {
        Op::Lookup(_) => "lookup",
        Op::GetAttr(_) => "get_attr",
        Op::ReadLink(_) => "read_link",
        Op::ReadDir(_) => "read_dir",
        Op::StatFs(_) => "stat_fs",
        Op::Resolve(_) => "resolve",
        Op::Access(_) => "access",
        Op::ListSessions(_) => "list_sessions",
        Op::ListOrphans(_) => "list_orphans",
        Op::ListTruncating(_) => "list_truncating",
        Op::ListLengthDoubts(_) => "list_length_doubts",
        Op::ReadInline(_) => "read_inline",
        Op::Spill(_) => "spill",
        Op::OpenSession(_) => "open_session",
        Op::CloseSession(_) => "close_session",
        Op::ExpireSessions(_) => "expire_sessions",
        Op::Create(_) => "create",
        Op::MakeNode(_) => "make_node",
        Op::Link(_) => "link",
        Op::Unlink(_) => "unlink",
        Op::Rename(_) => "rename",
        Op::SetAttr(_) => "set_attr",
        Op::Open(_) => "open",
        Op::Close(_) => "close",
        Op::ReportLength(_) => "report_length",
        Op::FinishTruncate(_) => "finish_truncate",
        Op::Collect(_) => "collect",
        Op::SetLayout(_) => "set_layout",
        Op::Keepalive(_) => "keepalive",
        Op::AwaitInvalidations(_) => "await_invalidations",
        Op::RecoverLength(_) => "recover_length",
        Op::GetXattr(_) => "get_xattr",
        Op::ListXattrs(_) => "list_xattrs",
        Op::SetXattr(_) => "set_xattr",
        Op::RemoveXattr(_) => "remove_xattr",
        Op::GetLock(_) => "get_lock",
        Op::AwaitLocks(_) => "await_locks",
        Op::SetLock(_) => "set_lock",
        Op::Unlock(_) => "unlock",
        Op::CancelLock(_) => "cancel_lock",
        Op::Batch(_) => "batch",
        Op::AllotInodes(_) => "allot_inodes",
        Op::TouchAtime(_) => "touch_atime",
        Op::ListQuotas(_) => "list_quotas",
        Op::ListSnapshots(_) => "list_snapshots",
        Op::StepSnapshot(_) => "step_snapshot",
        Op::SetQuota(_) => "set_quota",
        Op::RemoveQuota(_) => "remove_quota",
        Op::CountQuota(_) => "count_quota",
        Op::ListTrash(_) => "list_trash",
        Op::SetTrash(_) => "set_trash",
        Op::EmptyTrash(_) => "empty_trash",
        Op::RestoreTrash(_) => "restore_trash",
        Op::Mend(_) => "mend",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn user(root: bool) -> Peer {
        Peer::User(Arc::new(pb::UserClaims {
            uid: 1000,
            gid: 1000,
            groups: vec![27],
            root,
            ..Default::default()
        }))
    }

    fn request(op: Op, cred: Option<pb::Credentials>) -> pb::NsRequest {
        pb::NsRequest { session: 3, cred, op: Some(op), ..Default::default() }
    }

    fn get_attr() -> Op {
        Op::GetAttr(pb::GetAttrOp { inode: 1 })
    }

    fn cred(uid: u32, gid: u32, groups: &[u32]) -> Option<pb::Credentials> {
        Some(pb::Credentials { uid, gid, groups: groups.to_vec() })
    }

    #[test]
    fn a_token_speaks_for_its_user_only_unless_it_is_roots() {
        let ask = |peer: &Peer, cred| admit(&mut request(get_attr(), cred), peer).is_ok();
        assert!(ask(&user(false), cred(1000, 1000, &[27])));
        assert!(ask(&user(false), cred(1000, 27, &[])), "a group of its own as primary");
        for bad in [cred(0, 0, &[]), cred(1000, 0, &[]), cred(1000, 1000, &[0])] {
            assert!(!ask(&user(false), bad.clone()));
            assert!(ask(&user(true), bad.clone()));
            assert!(ask(&Peer::Daemon, bad));
        }
        let mut unnamed = request(get_attr(), None);
        admit(&mut unnamed, &user(false)).unwrap();
        assert_eq!(unnamed.cred, cred(1000, 1000, &[27]));
    }

    #[test]
    fn what_only_the_leader_logs_is_asked_by_nobody() {
        let collect = || request(Op::Collect(pb::CollectOp { inodes: vec![5] }), None);
        for peer in [user(true), Peer::Daemon] {
            assert_eq!(admit(&mut collect(), &peer).unwrap_err().code, Code::Forbidden);
        }
        let list = || request(Op::ListSessions(pb::ListSessionsOp {}), None);
        assert!(admit(&mut list(), &user(false)).is_err());
        assert!(admit(&mut list(), &user(true)).is_ok());
    }

    #[test]
    fn a_token_for_a_folder_administers_nothing_and_knows_one_volume() {
        let claims =
            pb::UserClaims { root: true, subtree: 7, subtree_volume: 1, ..Default::default() };
        let peer = Peer::User(Arc::new(claims));
        assert_eq!(asker(&peer).subtree, 7);
        let ask = |volume, op| {
            let mut request = pb::NsRequest { volume, ..request(op, None) };
            admit(&mut request, &peer).map_err(|status| status.code)
        };
        assert_eq!(ask(1, get_attr()), Ok(()));
        assert_eq!(ask(2, get_attr()), Err(Code::Forbidden));
        let list = Op::ListSessions(pb::ListSessionsOp {});
        assert_eq!(ask(1, list), Err(Code::Forbidden));
    }

    #[test]
    fn mutations_need_a_session() {
        let ask = |op| {
            let mut request = pb::NsRequest { op: Some(op), ..Default::default() };
            admit(&mut request, &user(false)).is_ok()
        };
        assert!(ask(get_attr()));
        assert!(ask(Op::OpenSession(pb::OpenSessionOp::default())));
        assert!(ask(Op::Open(pb::OpenOp { inode: 1, read: true, ..Default::default() })));
        assert!(!ask(Op::Open(pb::OpenOp { inode: 1, write: true, ..Default::default() })));
        assert!(!ask(Op::Unlink(pb::UnlinkOp::default())));
        assert!(!ask(Op::Keepalive(pb::KeepaliveOp::default())));
        assert!(admit(&mut pb::NsRequest::default(), &Peer::Daemon).is_err());
    }
}
