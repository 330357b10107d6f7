//! Questions of sessions whether their locks came: the leader holds them until one did.
//!
//! Who waits is in the replicated state. A newer question knows of more waits.

use std::time::{Duration, Instant};

use ff2_fabric::Context;
use ff2_proto::{Code, Status, VolumeId, pb};

use super::{NamespaceService, guard};
use crate::limits;

impl NamespaceService {
    /// Answers when a lock of these came, at the latest after `at_most`.
    pub(super) async fn await_locks(
        &self,
        cx: &Context,
        request: pb::NsRequest,
        at_most: Duration,
    ) -> Result<pb::NsReply, Status> {
        let group = &self.namespace;
        let lead = group.lead.get().ok_or_else(|| group.not_leader())?;
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN);
        let until = Instant::now() + at_most.min(patience).min(limits::LOCK_WAIT_MAX);
        let asker = guard::asker(&cx.peer);
        let question = group.lock_questions.ask((VolumeId(request.volume), request.session));
        loop {
            // Listening before the look, so that what comes between is not missed.
            let mut rung = std::pin::pin!(question.news());
            rung.as_mut().enable();
            let look = group.query(request.clone(), asker);
            let silence = |_| Status::new(Code::Timeout, "no quorum answered in time");
            let reply = tokio::time::timeout(cx.remaining(), look).await.map_err(silence)??;
            let left = until.saturating_duration_since(Instant::now());
            let is_answer = reply.status.is_some() || !reply.granted_tickets.is_empty();
            if is_answer || left.is_zero() || !question.is_last() {
                return Ok(reply);
            }
            // Woken, or not: look again.
            let _ = tokio::time::timeout(left.min(limits::LOCK_LOOK), rung).await;
            lead.check()?;
        }
    }
}
