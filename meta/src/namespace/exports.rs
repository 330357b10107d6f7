//! The volume's export rules, which every request of a user obeys: what it may ask, and as whom.
//!
//! They are looked up with each request, so a change holds for open sessions as soon as this metad knows of
//! it. Grants carry the version of the rules that they were written under, and storage nodes take none from
//! before the last change.

use ff2_fabric::{Context, Peer};
use ff2_proto::{
    Code, Routing, Status, VolumeId,
    exports::Ruling,
    pb::{self, ExportAccess},
};
use pb::ns_request::Op;

/// What holds for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruled {
    pub(super) ruling: Ruling,
    /// Of the volume, as it was when the rules were looked up.
    pub(super) at: u64,
}

impl Ruled {
    pub(super) fn of(routing: &Routing, volume: VolumeId, cx: &Context) -> Self {
        let volume = routing.volumes.get(&volume);
        let ruling = match (&cx.peer, volume) {
            (Peer::Daemon, _) | (_, None) => Ruling::FREE,
            (Peer::User(_), Some(volume)) => Ruling::of(&volume.exports, cx.from),
        };
        Self { ruling, at: volume.map_or(0, |volume| volume.ruled_at) }
    }

    /// Refuses what the rules do not allow, and makes the request that of whom it acts as.
    pub(super) fn obey(&self, request: &mut pb::NsRequest, cx: &Context) -> Result<(), Status> {
        let ruling = &self.ruling;
        if ruling.is_free() {
            return Ok(());
        }
        let from = cx.from.map_or_else(|| "this process".to_owned(), |from| from.to_string());
        let refuse = |code, may: &str| {
            let detail = format!(
                "the export rules of volume {} let {from} {may}: `ff2ctl volume export` shows and sets them",
                request.volume
            );
            Err(Status::new(code, detail))
        };
        match (ruling.access, &request.op) {
            (ExportAccess::Nothing, _) => return refuse(Code::AccessDenied, "do nothing"),
            (ExportAccess::ReadOnly, Some(op)) if changes(op) => {
                return refuse(Code::ReadOnly, "only read");
            }
            // A client foresees what its own credentials may do, and not what others': nothing goes behind.
            (_, Some(Op::AllotInodes(_))) => {
                return refuse(Code::Unsupported, "foresee nothing");
            }
            _ => {}
        }
        ruling.squash(request.cred.get_or_insert_default());
        Ok(())
    }

    /// What is promised to a client under rules lets it foresee no change, for the same reason.
    pub(super) fn temper(&self, reply: &mut pb::NsReply) {
        if self.ruling.is_free() {
            return;
        }
        reply.callbacks.iter_mut().for_each(|callback| callback.sole = false);
        reply.batch.iter_mut().for_each(|part| self.temper(part));
    }
}

/// Whether the operation changes what a volume shows.
fn changes(op: &Op) -> bool {
    match op {
        Op::Open(op) => op.write || op.truncate,
        // W_OK: what `access` says is what an open would meet.
        Op::Access(op) => op.mask & 2 != 0,
        // Those of files that were opened before the rules were as they are.
        Op::Close(op) => !op.inline_writes.is_empty(),
        Op::ReportLength(op) => !op.inline_writes.is_empty(),
        Op::Lookup(_)
        | Op::GetAttr(_)
        | Op::ReadLink(_)
        | Op::ReadDir(_)
        | Op::StatFs(_)
        | Op::Resolve(_)
        | Op::ListSessions(_)
        | Op::ListOrphans(_)
        | Op::ListTruncating(_)
        | Op::ListLengthDoubts(_)
        | Op::ListSnapshots(_)
        | Op::StepSnapshot(_)
        | Op::ReadInline(_)
        | Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::Keepalive(_)
        | Op::AwaitInvalidations(_)
        | Op::GetXattr(_)
        | Op::ListXattrs(_)
        | Op::GetLock(_)
        | Op::AwaitLocks(_)
        | Op::SetLock(_)
        | Op::Unlock(_)
        | Op::CancelLock(_)
        | Op::AllotInodes(_)
        | Op::ListQuotas(_)
        | Op::ListTrash(_) => false,
        Op::ExpireSessions(_)
        | Op::Create(_)
        | Op::MakeNode(_)
        | Op::Link(_)
        | Op::Unlink(_)
        | Op::Rename(_)
        | Op::SetAttr(_)
        | Op::Spill(_)
        | Op::FinishTruncate(_)
        | Op::Collect(_)
        | Op::SetLayout(_)
        | Op::RecoverLength(_)
        | Op::SetXattr(_)
        | Op::RemoveXattr(_)
        | Op::TouchAtime(_)
        | Op::Batch(_)
        | Op::SetQuota(_)
        | Op::RemoveQuota(_)
        | Op::CountQuota(_)
        | Op::SetTrash(_)
        | Op::EmptyTrash(_)
        | Op::RestoreTrash(_)
        | Op::Mend(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use ff2_proto::pb::Squash;

    use super::*;

    fn context(peer: Peer) -> Context {
        let from = Some("10.0.0.9".parse().unwrap());
        Context { peer, from, deadline: Instant::now(), routing_version: 0 }
    }

    fn routing(access: ExportAccess, squash: Squash) -> Routing {
        let rule = pb::ExportRule {
            clients: "10.0.0.0/8".into(),
            access: access.into(),
            squash: squash.into(),
            anon_uid: 99,
            anon_gid: 98,
        };
        let volume = pb::Volume { id: 1, exports: vec![rule], ruled_at: 7, ..Default::default() };
        Routing { volumes: [(VolumeId(1), volume)].into(), ..Routing::default() }
    }

    fn ask(routing: &Routing, peer: Peer, op: Op) -> Result<pb::Credentials, Code> {
        let cx = context(peer);
        let cred = Some(pb::Credentials::default());
        let mut request = pb::NsRequest { volume: 1, cred, op: Some(op), ..Default::default() };
        let ruled = Ruled::of(routing, VolumeId(1), &cx);
        assert_eq!(ruled.at, 7);
        ruled.obey(&mut request, &cx).map_err(|status| status.code)?;
        Ok(request.cred.unwrap())
    }

    fn user() -> Peer {
        Peer::User(Arc::new(pb::UserClaims { root: true, ..Default::default() }))
    }

    #[test]
    fn a_client_does_what_its_rule_allows_as_whom_it_says() {
        let look = || Op::GetAttr(pb::GetAttrOp { inode: 1 });
        let remove = || Op::Unlink(pb::UnlinkOp::default());
        let open = |write| Op::Open(pb::OpenOp { read: true, write, ..Default::default() });
        let nothing = routing(ExportAccess::Nothing, Squash::Nobody);
        assert_eq!(ask(&nothing, user(), look()), Err(Code::AccessDenied));
        assert!(ask(&nothing, Peer::Daemon, remove()).is_ok(), "daemons are under no rule");
        let looking = routing(ExportAccess::ReadOnly, Squash::Root);
        let anon = pb::Credentials { uid: 99, gid: 98, groups: vec![] };
        assert_eq!(ask(&looking, user(), look()), Ok(anon.clone()));
        assert_eq!(ask(&looking, user(), open(false)), Ok(anon.clone()));
        for op in [remove(), open(true), Op::Batch(pb::BatchOp::default())] {
            assert_eq!(ask(&looking, user(), op), Err(Code::ReadOnly));
        }
        let squashed = routing(ExportAccess::ReadWrite, Squash::Root);
        assert_eq!(ask(&squashed, user(), remove()), Ok(anon));
        let allot = Op::AllotInodes(pb::AllotInodesOp::default());
        assert_eq!(ask(&squashed, user(), allot), Err(Code::Unsupported));
        let free = routing(ExportAccess::ReadWrite, Squash::Nobody);
        assert_eq!(ask(&free, user(), remove()), Ok(pb::Credentials::default()));
    }
}
