//! The questions of sessions for invalidations, which renew their cache leases.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_fabric::Context;
use ff2_meta_core::namespace;
use ff2_proto::{Code, Status, VolumeId, pb};

use super::{NamespaceService, guard, leader::NamespaceLead};
use crate::limits;

impl NamespaceService {
    /// Answers when the session is owed an invalidation, at the latest after the time that it names.
    pub(super) async fn await_invalidations(
        &self,
        cx: &Context,
        request: &pb::NsRequest,
        op: &pb::AwaitInvalidationsOp,
    ) -> Result<pb::NsReply, Status> {
        let group = &self.namespace;
        let lead: Arc<NamespaceLead> = group.lead.get().ok_or_else(|| group.not_leader())?;
        let (volume, session) = (VolumeId(request.volume), request.session);
        let at_most = Duration::from_millis(op.wait_ms.into()).min(limits::INVALIDATION_WAIT_MAX);
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN);
        let until = Instant::now() + at_most.min(patience);
        // A read that is up to date: a leader that was replaced unnoticed knows it by now, and the time
        // from which the next one waits for old leases is still to come.
        let record = group.group.query(move |kv| namespace::session(kv, session));
        let silence = |_| Status::new(Code::Timeout, "no quorum answered in time");
        let record = tokio::time::timeout(cx.remaining(), record).await.map_err(silence)???;
        check(record.as_ref(), session, guard::asker(&cx.peer).owner)?;
        lead.check()?;
        group.callbacks_of(&lead, volume).await?;

        let answer = |invalidations| pb::NsReply {
            session,
            callback_term: lead.term.number(),
            invalidations: Some(invalidations),
            ..Default::default()
        };
        if let Some(begin_anew) = lead.heard(volume, session, op) {
            return Ok(answer(begin_anew));
        }
        let question = lead.callbacks.questions.ask((volume, session));
        loop {
            let news = question.news();
            let owed = lead.owed(volume, session);
            let left = until.saturating_duration_since(Instant::now());
            if !owed.inodes.is_empty() || op.enroll || left.is_zero() || !question.is_last() {
                return Ok(answer(owed));
            }
            let _ = tokio::time::timeout(left, news).await;
            lead.check()?;
        }
    }
}

/// Only a session that said at its beginning that it would cache: the next leader must know of it.
fn check(
    record: Option<&pb::SessionRecord>,
    session: u64,
    owner: namespace::Owner,
) -> Result<(), Status> {
    let Some(record) = record else {
        return Err(Status::new(Code::SessionExpired, format!("session {session} is over")));
    };
    if record.owner != owner {
        return Err(Status::new(Code::Forbidden, "the session belongs to another user"));
    }
    if !record.caches {
        let detail = "the session was opened without a cache";
        return Err(Status::new(Code::InvalidArgument, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_say_that_it_caches_does_not_enrol() {
        let record = |caches| pb::SessionRecord { owner: Some(5), caches, ..Default::default() };
        let (caches, caches_not) = (record(true), record(false));
        assert_eq!(check(Some(&caches), 7, Some(5)), Ok(()));
        let code = |record, owner| check(record, 7, owner).unwrap_err().code;
        assert_eq!(code(Some(&caches), Some(6)), Code::Forbidden);
        assert_eq!(code(None, Some(5)), Code::SessionExpired);
        assert_eq!(code(Some(&caches_not), Some(5)), Code::InvalidArgument);
    }
}
