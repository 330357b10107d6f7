//! Changes that a session's programs were told of already, many in one request (docs/design/0006).
//!
//! They are logged one by one, in their order, and mostly share one entry and one sync. Each has its own
//! number, so a batch that comes again is answered as the first time, however far that one came.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_daemon::Operation;
use ff2_fabric::Context;
use ff2_meta_core::namespace::{self, Class};
use ff2_proto::{Code, Status, VolumeId, pb, status::check};
use pb::ns_request::Op;
use prost::Message;

use super::{NamespaceGroup, NamespaceService, Wanted, exports::Ruled, guard};
use crate::limits;

impl NamespaceService {
    pub(super) async fn batch(
        &self,
        cx: &Context,
        operation: &Operation,
        (whole, ruled): (&pb::NsRequest, &Ruled),
        requests: Vec<pb::NsRequest>,
    ) -> Result<pb::NsReply, Status> {
        let (group, volume, session) = (&self.namespace, VolumeId(whole.volume), whole.session);
        let requests = admit(cx, (whole, ruled), requests)?;
        let position = group.position(volume);
        let patience = cx.remaining().saturating_sub(limits::ANSWER_MARGIN / 2);
        operation.waits_for("its commits");
        let proposed = group.propose_all(volume, session, &requests, guard::asker(&cx.peer));
        let mut replies = super::within(patience, proposed).await?;
        for (request, reply) in requests.iter().zip(&mut replies) {
            if let Some(truncation) = reply.truncation.take() {
                super::within(cx.remaining(), group.settle_truncation(volume, truncation)).await?;
            }
            if std::mem::take(&mut reply.length_in_doubt) {
                super::within(cx.remaining(), group.settle_length(volume, reply)).await?;
            }
            self.add_grant(reply, Wanted::of(request, ruled));
            if let Some(position) = &position
                && check(reply.status.clone()).is_ok()
            {
                position.promise(session, (namespace::cacheable(request), true), reply);
            }
        }
        Ok(pb::NsReply { batch: replies, ..Default::default() })
    }
}

/// Each part as a request of its own.
fn admit(
    cx: &Context,
    (whole, ruled): (&pb::NsRequest, &Ruled),
    mut requests: Vec<pb::NsRequest>,
) -> Result<Vec<pb::NsRequest>, Status> {
    if requests.len() > limits::BATCH_MAX {
        let why = format!("{} changes at once: at most {}", requests.len(), limits::BATCH_MAX);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    for request in &mut requests {
        let (volume, session, ack_below) = (whole.volume, whole.session, whole.ack_below);
        *request = pb::NsRequest { volume, session, ack_below, ..std::mem::take(request) };
        let at_ns = request.at_ns;
        guard::admit(request, &cx.peer)?;
        ruled.obey(request, cx)?;
        request.at_ns = at_ns;
        let is_single = namespace::class(request) == Some(Class::Mutation)
            && !matches!(request.op, Some(Op::Batch(_)));
        if !is_single {
            return Err(Status::new(Code::InvalidArgument, "a batch consists of changes"));
        }
    }
    Ok(requests)
}

impl NamespaceGroup {
    async fn propose_all(
        &self,
        volume: VolumeId,
        session: u64,
        requests: &[pb::NsRequest],
        asker: guard::Asker,
    ) -> Result<Vec<pb::NsReply>, Status> {
        let lead = self.lead.get().ok_or_else(|| self.not_leading())?;
        let touched = self.touched_in_turn(requests)?;
        let mut all: Vec<u64> = touched.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        let ongoing = self.begin_change(&lead, volume, (session, true), all).await?;
        let routing = self.cluster.routing();
        let mut commands = Vec::with_capacity(requests.len());
        for (request, touched) in requests.iter().zip(touched) {
            let command = self.stamps.stamp(request.clone(), asker, &routing)?;
            let command = pb::NsCommand { told: true, touched, ..command };
            commands.push(Bytes::from(command.encode_to_vec()));
        }
        let group = self.group.clone();
        // As with one: it goes on without who asked.
        let applying = tokio::spawn(async move {
            let answers = group.propose_all(commands).await;
            drop(ongoing);
            answers
        });
        let lost = |_| Status::new(Code::UnknownOutcome, "the process is stopping");
        let mut replies = Vec::with_capacity(requests.len());
        for answer in applying.await.map_err(lost)?? {
            let broken = |error: prost::DecodeError| Status::new(Code::Internal, error.to_string());
            let mut reply = pb::NsReply::decode(answer?).map_err(broken)?;
            let granted = std::mem::take(&mut reply.lock_grants);
            self.lock_questions.wake(volume, granted.iter().map(|grant| grant.session));
            replies.push(reply);
        }
        Ok(replies)
    }

    /// What each would change once those before it are applied.
    fn touched_in_turn(&self, requests: &[pb::NsRequest]) -> Result<Vec<Vec<u64>>, Status> {
        let stopped = || Status::new(Code::ShuttingDown, "the group stopped");
        let touched = |kv: &dyn ff2_meta_core::KvRead| -> Vec<Vec<u64>> {
            requests.iter().map(|request| namespace::touched(kv, request)).collect()
        };
        let mut touched = self.group.read_stale(touched).ok_or_else(stopped)?;
        let mut made = BTreeMap::new();
        for (request, touched) in requests.iter().zip(&mut touched) {
            match &request.op {
                Some(Op::Create(op)) => {
                    made.insert((op.parent, op.name.clone()), op.inode);
                    // Also when a name that goes before it is still there.
                    touched.push(op.parent);
                }
                Some(Op::MakeNode(op)) => {
                    made.insert((op.parent, op.name.clone()), op.inode);
                }
                Some(Op::Unlink(op)) => {
                    touched.extend(made.remove(&(op.parent, op.name.clone())));
                }
                _ => {}
            }
        }
        Ok(touched)
    }
}
