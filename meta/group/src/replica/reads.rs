//! Linearizable reads: rounds of heartbeats that prove leadership, and the lease that a round gives.
//!
//! A round is raft's read index (`ReadOnlyOption::Safe`): the leader's commit index, confirmed by a
//! quorum that still followed it after the round began. All reads that wait share the next round.
//! On the leader a confirmed round also gives a lease, counted from the round's start: whoever
//! confirmed it ignores vote requests for an election timeout, even after a restart.

use std::time::Duration;

use ff2_meta_core::StateMachine;
use ff2_proto::{Status, pb};
use raft::StateRole;

use super::{Output, Replica};
use crate::store::LogStore;

/// A round without an answer is asked again after this share of the election timeout.
const RETRY_SHARE: u32 = 4;
/// A read that found no leader or quorum for this many election timeouts fails.
const PATIENCE: u32 = 3;

#[derive(Debug)]
pub(super) struct Reads {
    /// Wait for the next round.
    asked: Vec<Asked>,
    round: Option<Round>,
    /// Wait for the applied index.
    confirmed: Vec<Confirmed>,
    raft_id: u64,
    /// Part of each context: an answer to a question from before a restart must not match.
    run: u64,
    counter: u64,
    lease_until: Option<Duration>,
    /// Grows when a lease must not be given by rounds that began earlier.
    epoch: u64,
    renew: bool,
}

#[derive(Debug)]
struct Asked {
    ticket: u64,
    at: Duration,
}

#[derive(Debug)]
struct Round {
    /// Contexts of this round's tries: an answer to any will do, each was sent after the reads asked.
    first: u64,
    last: u64,
    /// Of the first try, which makes the lease no longer than the latest answer would allow.
    started: Duration,
    tried: Duration,
    retry: bool,
    epoch: u64,
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Confirmed {
    index: u64,
    asked: Vec<Asked>,
    grant: Option<Grant>,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    started: Duration,
    epoch: u64,
}

impl Reads {
    pub(super) fn new(raft_id: u64, run: u64) -> Self {
        Self {
            asked: Vec::new(),
            round: None,
            confirmed: Vec::new(),
            raft_id,
            run,
            counter: 0,
            lease_until: None,
            epoch: 0,
            renew: false,
        }
    }

    pub(super) fn ask(&mut self, ticket: u64, at: Duration) {
        self.asked.push(Asked { ticket, at });
    }

    /// Whether reads wait, or a round is under way.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty() || !self.confirmed.is_empty() || self.round.is_some()
    }

    pub(super) fn tick(&mut self, now: Duration, heartbeat: bool, election: Duration) {
        self.renew |= heartbeat;
        if self.lease_until.is_some_and(|until| until <= now) {
            self.lease_until = None;
        }
        if let Some(round) = &mut self.round {
            round.retry |= now >= round.tried + election / RETRY_SHARE;
        }
    }

    /// Rounds in progress say nothing about the new leader.
    pub(super) fn role_changed(&mut self) {
        self.drop_lease();
        if let Some(round) = self.round.take() {
            self.asked.splice(0..0, round.asked);
        }
    }

    /// Ends the lease, and lets no round that began before now give another.
    pub(super) fn drop_lease(&mut self) {
        self.lease_until = None;
        self.epoch += 1;
    }

    pub(super) fn lease_until(&self) -> Option<Duration> {
        self.lease_until
    }

    fn context(&self, counter: u64) -> Vec<u8> {
        [self.raft_id, self.run, counter].iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    /// Raft confirmed the round with this context.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some(round) = &self.round else { return };
        let ours = (round.first..=round.last).any(|counter| self.context(counter) == context);
        if !ours {
            return;
        }
        let Some(Round { started, epoch, asked, .. }) = self.round.take() else { return };
        let grant = Some(Grant { started, epoch });
        self.confirmed.push(Confirmed { index, asked, grant });
    }
}

impl<St: LogStore, S: StateMachine> Replica<St, S> {
    /// Begins a round if reads wait for one, or the lease is to be renewed.
    pub(super) fn start_round(&mut self, now: Duration) {
        let raft = &self.raw.raft;
        let leads = raft.state == StateRole::Leader;
        // In these states raft-rs would drop the question without a word.
        let able = if leads { raft.commit_to_current_term() } else { raft.leader_id != 0 };
        if self.over {
            return;
        }
        if !able {
            return self.keep_followers();
        }
        let reads = &mut self.reads;
        if leads && reads.lease_until.is_some_and(|until| now < until) && !reads.asked.is_empty() {
            // No other leader can have committed anything: our own commit index is the answer.
            let asked = std::mem::take(&mut reads.asked);
            let index = raft.raft_log.committed;
            reads.confirmed.push(Confirmed { index, asked, grant: None });
        }
        let again = match &mut reads.round {
            None => !reads.asked.is_empty() || (leads && reads.renew),
            Some(round) => round.retry,
        };
        if !again {
            return self.keep_followers();
        }
        reads.renew = false;
        reads.counter += 1;
        let counter = reads.counter;
        match &mut reads.round {
            Some(round) => (round.last, round.tried, round.retry) = (counter, now, false),
            None => {
                let asked = std::mem::take(&mut reads.asked);
                let epoch = reads.epoch;
                let (first, last, started, tried) = (counter, counter, now, now);
                let retry = false;
                reads.round = Some(Round { first, last, started, tried, retry, epoch, asked });
            }
        }
        let context = self.reads.context(counter);
        self.raw.read_index(context);
    }

    /// A heartbeat where no round can be begun: before the term's first commit, and while one is under way.
    fn keep_followers(&mut self) {
        if self.raw.raft.state == StateRole::Leader && std::mem::take(&mut self.reads.renew) {
            self.raw.ping();
        }
    }

    /// Lets reads go whose index is applied, and fails those that waited too long.
    pub(super) fn finish_reads(&mut self, now: Duration, out: &mut Vec<Output>) {
        let applied = self.applied();
        let mut done = Vec::new();
        self.reads.confirmed.retain_mut(|confirmed| {
            let reached = confirmed.index <= applied;
            if reached {
                done.push((std::mem::take(&mut confirmed.asked), confirmed.grant));
            }
            !reached
        });
        for (asked, grant) in done {
            if let Some(grant) = grant {
                self.grant_lease(grant);
            }
            let may = |Asked { ticket, .. }| Output::Read { ticket, may: Ok(()) };
            out.extend(asked.into_iter().map(may));
        }
        self.expire_reads(now, out);
    }

    fn grant_lease(&mut self, grant: Grant) {
        let Some(term) = self.leading else { return };
        let allowed = grant.epoch == self.reads.epoch && self.transfer_term != Some(term);
        if allowed {
            let until = grant.started + self.config.lease();
            self.reads.lease_until = self.reads.lease_until.max(Some(until));
        }
    }

    fn expire_reads(&mut self, now: Duration, out: &mut Vec<Output>) {
        let patience = self.config.election_timeout() * PATIENCE;
        let reads = &mut self.reads;
        let queues = [&mut reads.asked].into_iter();
        let queues = queues.chain(reads.round.iter_mut().map(|round| &mut round.asked));
        let queues = queues.chain(reads.confirmed.iter_mut().map(|confirmed| &mut confirmed.asked));
        let mut failed = Vec::new();
        for queue in queues {
            // In order of arrival, so mostly nothing has to be looked at.
            let late = queue.iter().take_while(|asked| self.over || now >= asked.at + patience);
            let late = late.count();
            failed.extend(queue.drain(..late).map(|asked| asked.ticket));
        }
        if failed.is_empty() {
            return;
        }
        let status = match self.known.leader {
            Some(_) if !self.over => Status::new(pb::Code::Timeout, "no quorum confirmed the read"),
            _ => self.not_leader(),
        };
        out.extend(failed.into_iter().map(|ticket| {
            let may = Err(status.clone());
            Output::Read { ticket, may }
        }));
    }
}
