//! Finds the leader of a group and calls it: follows the hints of refusals, tries the other metads,
//! backs off, and gives up at the caller's deadline.
//!
//! Owns what is known about who leads one group. It repeats a call as long as its failure may heal by
//! asking elsewhere or later, so a mutation must carry the id that makes it exactly-once. Final
//! answers go to the caller at once.

pub(crate) mod backoff;
mod candidates;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use candidates::{Candidates, Next};
use ff2_proto::{Code, GroupId, Retry, Status, pb};
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;

use crate::{Call, Channel, ClusterClient, Peers, clock, routing::RoutingCache};

/// One attempt: above the time of a slow commit, below what a user takes for a hang.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The question who leads is answered from memory.
const WHO_LEADS: Duration = Duration::from_millis(300);

/// Calls the leader of one group.
pub struct LeaderFinder {
    group: GroupId,
    metads: Vec<String>,
    peers: Arc<Peers>,
    routing: Arc<RoutingCache>,
    attempt: Duration,
    leader: Mutex<Option<String>>,
}

impl fmt::Debug for LeaderFinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leader = self.leader.lock().clone();
        f.debug_struct("LeaderFinder").field("group", &self.group).field("leader", &leader).finish()
    }
}

impl LeaderFinder {
    /// `metads` are the configured addresses; those that the routing names are asked too.
    pub fn new(
        group: GroupId,
        metads: Vec<String>,
        peers: Arc<Peers>,
        routing: Arc<RoutingCache>,
    ) -> Self {
        Self { group, metads, peers, routing, attempt: ATTEMPT, leader: Mutex::new(None) }
    }

    /// Limits one attempt, so that a leader that hangs costs this much of the deadline and no more.
    #[must_use]
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt = limit;
        self
    }

    /// Calls the leader until an answer is final or the deadline passed. `ask` makes one call on the
    /// channel, within the given time. Dropping the future abandons the attempt in flight.
    pub async fn call<T, F, Fut>(&self, deadline: Instant, mut ask: F) -> Result<T, Status>
    where
        F: FnMut(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let attempt = |address: String, limit| ask(self.peers.channel(&address), limit);
        self.seek(deadline, attempt).await
    }

    /// Who led when last heard of.
    pub fn known_leader(&self) -> Option<String> {
        self.leader.lock().clone()
    }

    /// Forgets the leader, for a caller that learned elsewhere that it is gone.
    pub fn forget(&self) {
        *self.leader.lock() = None;
    }

    async fn seek<T, F, Fut>(&self, deadline: Instant, mut attempt: F) -> Result<T, Status>
    where
        F: FnMut(String, Duration) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let mut round = Candidates::new(self.candidates(), backoff::random_index());
        let Some(mut address) = round.first(self.known_leader()) else {
            return Err(Status::new(Code::InvalidArgument, "no metad address is configured"));
        };
        let mut last: Option<Status> = None;
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(self.gave_up(last));
            }
            let failure = match attempt(address.clone(), left.min(self.attempt)).await {
                Ok(answer) => {
                    *self.leader.lock() = Some(address);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let next = match failure.retry() {
                Retry::Never => return Err(failure),
                // What a group's leader waits for, as its first routing, comes to it by itself.
                Retry::BackOff | Retry::RefreshRouting => round.busy(&address),
                Retry::FindLeader => {
                    self.lost(&address);
                    round.not_leader(&address, failure.leader_address.clone())
                }
                Retry::OtherTarget => {
                    self.lost(&address);
                    round.silent(&address)
                }
            };
            tracing::debug!(group = %self.group, %address, %failure, ?next, "call again");
            last = Some(failure);
            address = match next {
                Next::Ask(next) => next,
                Next::Pause(pause, next) => self.rest(pause, deadline, next).await,
            };
        }
    }

    /// Waits, and uses the wait to ask everybody who leads. Answers whom to ask then.
    async fn rest(&self, pause: Duration, deadline: Instant, next: String) -> String {
        let until = clock::now() + backoff::jittered(pause);
        let known = match self.known_leader() {
            Some(known) => Some(known),
            None => self.ask_who_leads(WHO_LEADS.max(pause)).await,
        };
        tokio::time::sleep_until(until.min(deadline).into()).await;
        known.unwrap_or(next)
    }

    /// The leader that the highest term names, if anybody knows one.
    async fn ask_who_leads(&self, patience: Duration) -> Option<String> {
        let mut answers: FuturesUnordered<_> = self
            .candidates()
            .into_iter()
            .map(|address| {
                let client = ClusterClient::new(self.peers.channel(&address));
                let call = Call { timeout: patience, ..Call::default() };
                async move { client.leaders(&pb::LeadersRequest {}, call).await }
            })
            .collect();
        let mut best: Option<pb::GroupLeader> = None;
        while let Some(answer) = answers.next().await {
            let groups = answer.map(|(reply, _)| reply.groups).unwrap_or_default();
            for leader in groups {
                let newer = best.as_ref().is_none_or(|best| leader.term > best.term);
                if leader.group == self.group.0 && !leader.address.is_empty() && newer {
                    best = Some(leader);
                }
            }
        }
        best.map(|leader| leader.address)
    }

    fn candidates(&self) -> Vec<String> {
        let routing = self.routing.get();
        let mut seen = BTreeSet::new();
        let metads = routing.nodes.values().filter(|n| n.role() == pb::NodeRole::Metad);
        let addresses = metads.map(|n| n.address.clone()).filter(|address| !address.is_empty());
        let all = self.metads.iter().cloned().chain(addresses);
        all.filter(|address| seen.insert(address.clone())).collect()
    }

    fn lost(&self, address: &str) {
        let mut leader = self.leader.lock();
        if leader.as_deref() == Some(address) {
            *leader = None;
        }
    }

    fn gave_up(&self, last: Option<Status>) -> Status {
        let group = self.group;
        let detail = match last {
            Some(last) => format!("no leader of group {group} answered in time; last: {last}"),
            None => format!("no time was left to ask the leader of group {group}"),
        };
        Status::new(Code::Timeout, detail)
    }
}
