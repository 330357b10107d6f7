//! The leader's memory of sessions, in seeds where these end.

use ff2_group::LogStore;
use ff2_meta_core::namespace::{self, SessionBook};
use ff2_proto::{Status, VolumeId, pb};
use pb::ns_request::Op;

use super::{Metad, Ticket, millis};
use crate::{locking, mutation::Mutation, world::Context};

const VOLUME: VolumeId = VolumeId(1);

impl Metad {
    /// The sessions that this replica knows of, if it leads the namespace; all begin anew in each term.
    fn sessions(&mut self, cx: &Context<'_>) -> Option<&mut SessionBook> {
        let running = self.running.as_mut().expect("it runs");
        let leadership = running.namespace.leadership();
        let term = leadership.term;
        if !leadership.is_leader {
            running.sessions = None;
            return None;
        }
        if running.sessions.as_ref().is_none_or(|(of, _)| *of != term) {
            let is_hasty = self.mutation == Some(Mutation::ExpireEarly);
            let period = if is_hasty { locking::PERIOD / 3 } else { locking::PERIOD };
            running.sessions = Some((term, SessionBook::new(millis(period))));
            running.is_expiring = false;
        }
        let (_, book) = running.sessions.as_mut().expect("made above");
        let store = running.namespace.store();
        let list = pb::NsRequest {
            volume: VOLUME.0,
            op: Some(Op::ListSessions(pb::ListSessionsOp {})),
            ..Default::default()
        };
        let on_record = store.with_state(|kv| namespace::query(kv, &list)).sessions;
        book.learn(millis(cx.now), VOLUME, &on_record);
        Some(book)
    }

    pub(super) fn keep_session(
        &mut self,
        cx: &Context<'_>,
        term: u64,
        request: &pb::NsRequest,
    ) -> Result<pb::NsReply, Status> {
        let is_same = self.running().namespace.leadership().term == term;
        let Some(book) = self.sessions(cx).filter(|_| is_same) else {
            let leader = self.running().namespace.leadership().leader.clone();
            return Err(Status::not_leader(leader.map(|member| member.address)));
        };
        let said = pb::KeepaliveOp::default();
        book.keepalive(millis(cx.now), VOLUME, request.session, None, said)?;
        Ok(pb::NsReply { session: request.session, ..Default::default() })
    }

    /// The leader's next step of ending sessions that fell silent.
    pub(super) fn end_sessions(&mut self, cx: &mut Context<'_>) {
        if !self.ends_sessions || self.mutation == Some(Mutation::ExpireNever) {
            return;
        }
        let Some(book) = self.sessions(cx) else { return };
        let sessions = book.expired(millis(cx.now), VOLUME);
        book.end(VOLUME, &sessions);
        if sessions.is_empty() || self.running().is_expiring {
            return;
        }
        self.running().is_expiring = true;
        let ticket = self.ticket(Ticket::Expired);
        let op = Some(Op::ExpireSessions(pb::ExpireSessionsOp { sessions }));
        let request = pb::NsRequest { volume: VOLUME.0, op, ..Default::default() };
        self.propose_names(cx, ticket, request);
    }
}
