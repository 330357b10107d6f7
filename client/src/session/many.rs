//! Many changes in one request, each exactly once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use ff2_proto::{Code, Retry, Status, pb, pb::ns_request::Op, status::check};

use super::{Numbered, Session};
use crate::{Result, limits};

impl Session {
    /// Changes of one session in their order, each with a number of its own that it keeps through all
    /// tries. It fails as a whole only with the session, or when the client was closed.
    pub(crate) async fn mutate_many(
        &self,
        id: u64,
        own: &pb::Credentials,
        changes: Vec<pb::NsRequest>,
    ) -> Result<Vec<Result<pb::NsReply>>> {
        let count = u32::try_from(changes.len()).expect("a batch is bounded");
        let _slots = self.slots.acquire_many(count).await.expect("the semaphore is never closed");
        let (_numbers, requests) = self.number_all(id, changes).await?;
        let ack_below = self.state.lock().mutations.ack_below();
        let mut answers: Vec<Option<Result<pb::NsReply>>> = vec![None; requests.len()];
        loop {
            let open: Vec<usize> = (0..answers.len()).filter(|at| answers[*at].is_none()).collect();
            let Some(first) = open.first() else { break };
            let seq = requests[*first].seq;
            let parts = open.iter().map(|at| requests[*at].clone()).collect();
            let batch = Op::Batch(pb::BatchOp { requests: parts });
            let request = self.request(id, seq, ack_below, own, batch);
            let deadline = Instant::now() + limits::JOURNAL_PATIENCE;
            match self.send(request, deadline, &AtomicBool::new(false)).await {
                Ok(reply) if reply.batch.len() == open.len() => {
                    for (at, reply) in open.into_iter().zip(reply.batch) {
                        answers[at] = settled(reply)?;
                    }
                }
                Ok(_) => return Err(Status::new(Code::Internal, "not each part was answered")),
                Err(failure) if failure.retry() == Retry::Never || is_expiry(&failure) => {
                    return Err(failure);
                }
                Err(failure) if self.closing.load(Ordering::Acquire) => return Err(failure),
                Err(failure) => tracing::debug!(%failure, "changes wait for the namespace"),
            }
            if answers.iter().any(Option::is_none) {
                tokio::time::sleep(limits::JOURNAL_LINGER).await;
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    async fn number_all(
        &self,
        id: u64,
        changes: Vec<pb::NsRequest>,
    ) -> Result<(Vec<Numbered<'_>>, Vec<pb::NsRequest>)> {
        let mut numbers = Vec::with_capacity(changes.len());
        let mut requests = Vec::with_capacity(changes.len());
        for change in changes {
            let number = loop {
                if let Some((number, _)) = self.begin_mutation() {
                    break number;
                }
                tokio::task::yield_now().await;
            };
            if number.id != id {
                return Err(Status::new(Code::SessionExpired, "it went with its session"));
            }
            requests.push(pb::NsRequest { seq: number.seq, ..change });
            numbers.push(number);
        }
        Ok((numbers, requests))
    }
}

/// The answer of a part; `None`: it is to be asked again.
fn settled(reply: pb::NsReply) -> Result<Option<Result<pb::NsReply>>> {
    match check(reply.status.clone()) {
        Ok(()) => Ok(Some(Ok(reply))),
        Err(failure) if is_expiry(&failure) => Err(failure),
        Err(failure) if failure.retry() == Retry::Never => Ok(Some(Err(failure))),
        Err(_) => Ok(None),
    }
}

fn is_expiry(failure: &Status) -> bool {
    failure.code == Code::SessionExpired
}
