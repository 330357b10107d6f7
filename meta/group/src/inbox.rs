//! What waits for a group's thread, bounded. Filled by everybody, emptied by the thread in one go.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use ff2_proto::{Status, pb};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::limits;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Status>>;

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    work: Mutex<Work>,
    wake: Condvar,
    /// Proposals and reads that have no answer yet, wherever they are.
    proposals_open: AtomicUsize,
    reads_open: AtomicUsize,
}

#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) proposals: Vec<(Bytes, Reply<Bytes>)>,
    pub(crate) reads: Vec<Reply<()>>,
    pub(crate) batches: Vec<pb::RaftBatch>,
    pub(crate) requests: Vec<Request>,
    proposal_bytes: usize,
    batch_bytes: usize,
    closed: bool,
}

#[derive(Debug)]
pub(crate) enum Request {
    Join {
        request: pb::JoinGroupRequest,
        reply: Reply<pb::JoinGroupReply>,
    },
    Remove {
        node: u32,
        reply: Reply<()>,
    },
    Transfer {
        node: u32,
        reply: Reply<()>,
    },
    Page {
        snapshot: u64,
        page: Result<pb::FetchSnapshotReply, Status>,
    },
    /// The leader let this folder in.
    Adopted(pb::JoinGroupReply),
    Stop {
        hand_over: bool,
    },
}

fn busy(what: &str) -> Status {
    Status::new(pb::Code::Busy, format!("too many {what} wait for the group"))
}

fn closed() -> Status {
    Status::new(pb::Code::ShuttingDown, "the group is stopping")
}

impl Inbox {
    /// All of them, next to each other in this order, or none.
    pub(crate) fn propose(&self, proposals: Vec<(Bytes, Reply<Bytes>)>) -> Result<(), Status> {
        let mut work = self.work.lock();
        if work.closed {
            return Err(closed());
        }
        let added: usize = proposals.iter().map(|(command, _)| command.len()).sum();
        let bytes = work.proposal_bytes + added;
        let open = self.proposals_open.load(Ordering::Relaxed) + proposals.len();
        if open > limits::PROPOSALS_MAX || bytes > limits::PROPOSAL_BYTES_MAX {
            return Err(busy("proposals"));
        }
        self.proposals_open.fetch_add(proposals.len(), Ordering::Relaxed);
        work.proposal_bytes = bytes;
        work.proposals.extend(proposals);
        self.wake.notify_one();
        Ok(())
    }

    pub(crate) fn read(&self, reply: Reply<()>) -> Result<(), Status> {
        let mut work = self.work.lock();
        if work.closed {
            return Err(closed());
        }
        if self.reads_open.load(Ordering::Relaxed) >= limits::READS_MAX {
            return Err(busy("reads"));
        }
        self.reads_open.fetch_add(1, Ordering::Relaxed);
        work.reads.push(reply);
        self.wake.notify_one();
        Ok(())
    }

    /// Drops the batch if there is no room: raft sends again.
    pub(crate) fn messages(&self, batch: pb::RaftBatch) {
        let bytes: usize = batch.messages.iter().map(Bytes::len).sum();
        let mut work = self.work.lock();
        let full = work.batches.len() >= limits::BATCHES_MAX
            || work.batch_bytes + bytes > limits::BATCH_BYTES_MAX;
        if work.closed || full {
            return;
        }
        work.batch_bytes += bytes;
        work.batches.push(batch);
        self.wake.notify_one();
    }

    pub(crate) fn request(&self, request: Request) -> Result<(), Status> {
        let mut work = self.work.lock();
        if work.closed {
            return Err(closed());
        }
        // Our own news is always let in: there is one page and one adoption at a time.
        let ours = matches!(
            request,
            Request::Stop { .. } | Request::Page { .. } | Request::Adopted { .. }
        );
        if !ours && work.requests.len() >= limits::REQUESTS_MAX {
            return Err(busy("membership requests"));
        }
        work.requests.push(request);
        self.wake.notify_one();
        Ok(())
    }

    /// Everything that waits; if there is nothing, waits until there is or the time is over.
    pub(crate) fn take(&self, timeout: Duration) -> Work {
        let mut work = self.work.lock();
        if work.is_empty() && !timeout.is_zero() {
            self.wake.wait_for(&mut work, timeout);
        }
        let closed = work.closed;
        std::mem::replace(&mut *work, Work { closed, ..Work::default() })
    }

    pub(crate) fn proposals_answered(&self, count: usize) {
        self.proposals_open.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn reads_answered(&self, count: usize) {
        self.reads_open.fetch_sub(count, Ordering::Relaxed);
    }

    /// Lets nothing more in and drops what waits: its askers see their channel close.
    pub(crate) fn close(&self) {
        let mut work = self.work.lock();
        *work = Work { closed: true, ..Work::default() };
    }
}

impl Work {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.batches.is_empty()
            && self.requests.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(command: &Bytes) -> (Bytes, Reply<Bytes>) {
        (command.clone(), oneshot::channel().0)
    }

    #[test]
    fn a_full_inbox_pushes_back_until_answers_went_out() {
        let (inbox, small) = (Inbox::default(), Bytes::new());
        for _ in 0..limits::PROPOSALS_MAX {
            assert!(inbox.propose(vec![proposal(&small)]).is_ok());
        }
        let refused = inbox.propose(vec![proposal(&small)]);
        assert_eq!(refused.map_err(|status| status.code), Err(pb::Code::Busy));
        assert_eq!(inbox.take(Duration::ZERO).proposals.len(), limits::PROPOSALS_MAX);
        let refused = inbox.propose(vec![proposal(&small)]);
        assert!(refused.is_err(), "taken is not answered");
        inbox.proposals_answered(1);
        assert!(inbox.propose(vec![proposal(&small)]).is_ok());
        let large = Bytes::from(vec![0; limits::PROPOSAL_BYTES_MAX]);
        inbox.proposals_answered(2);
        assert!(inbox.propose(vec![proposal(&large)]).is_ok());
        assert!(inbox.propose(vec![proposal(&Bytes::from_static(b"1"))]).is_err());
    }

    #[test]
    fn what_is_proposed_together_is_taken_together_or_not_at_all() {
        let inbox = Inbox::default();
        let many = |count: usize| -> Vec<_> {
            (0..count).map(|n| proposal(&Bytes::from(n.to_be_bytes().to_vec()))).collect()
        };
        assert!(inbox.propose(many(3)).is_ok());
        assert!(inbox.propose(many(limits::PROPOSALS_MAX - 2)).is_err(), "one too many");
        let taken = inbox.take(Duration::ZERO).proposals;
        let commands: Vec<_> = taken.iter().map(|(command, _)| command.clone()).collect();
        assert_eq!(commands, many(3).into_iter().map(|(command, _)| command).collect::<Vec<_>>());
        assert!(inbox.propose(many(limits::PROPOSALS_MAX - 3)).is_ok());
    }

    #[test]
    fn a_closed_inbox_takes_nothing() {
        let inbox = Inbox::default();
        let (sender, mut receiver) = oneshot::channel();
        assert!(inbox.read(sender).is_ok());
        inbox.close();
        assert!(receiver.try_recv().is_err(), "the asker sees the end");
        assert!(inbox.read(oneshot::channel().0).is_err());
        assert!(inbox.request(Request::Stop { hand_over: false }).is_err());
    }
}
