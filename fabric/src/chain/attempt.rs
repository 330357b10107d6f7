//! The retries of one operation: who is asked, what a failure means, how long to wait.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ff2_client_core::{Attempts, Failure, GiveUp, Step};
use ff2_proto::{
    ChainId, ChainVersion, Code, NodeId, Retry, RoutingVersion, Status, TargetId, routing::ChainExt,
};

use super::ChainClient;
use crate::clock;

/// Who takes a chain's updates now.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) target: TargetId,
    pub(super) address: String,
    pub(super) chain_version: ChainVersion,
}

impl ChainClient {
    pub(super) fn head(&self, chain: ChainId) -> Result<Head, Status> {
        let routing = self.routing.get();
        let Some(known) = routing.chains.get(&chain) else {
            return Err(Status::new(Code::NotServing, format!("chain {chain} is not known here")));
        };
        let head = known.head().ok_or_else(|| {
            Status::new(Code::NotServing, format!("chain {chain} has no serving member"))
        })?;
        let address = routing.address(NodeId(head.node)).ok_or_else(|| {
            Status::new(Code::NotServing, format!("the address of node {} is not known", head.node))
        })?;
        Ok(Head {
            target: TargetId(head.target),
            address: address.to_owned(),
            chain_version: ChainVersion(known.version),
        })
    }

    /// Takes in the chain that a refusal carries; whether it was newer.
    pub(super) fn learn(&self, failure: &Status) -> bool {
        failure.chain.as_ref().is_some_and(|chain| self.routing.apply_chain(chain))
    }

    /// Returns when the routing no longer has `target` as the head of `chain`: what was asked of it
    /// is then asked of its successor at once, not after a time-out.
    pub(super) async fn head_changed(&self, chain: ChainId, target: TargetId) {
        let mut changed = self.routing.subscribe();
        loop {
            let routing = self.routing.get();
            let head = routing.chains.get(&chain).and_then(|chain| chain.head());
            if head.is_none_or(|head| head.target != target.0) {
                return;
            }
            if changed.changed().await.is_err() {
                // The cache lives as long as its client; without it nothing will ever change.
                return std::future::pending().await;
            }
        }
    }

    /// As [`Self::head_changed`], for a member that is to serve reads.
    pub(super) async fn stopped_serving(&self, targets: &[(ChainId, TargetId)]) {
        let mut changed = self.routing.subscribe();
        loop {
            let routing = self.routing.get();
            let serves = |(chain, target): &(ChainId, TargetId)| {
                let chain = routing.chains.get(chain);
                chain.is_some_and(|chain| chain.serving().any(|member| member.target == target.0))
            };
            if !targets.iter().all(serves) {
                return;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// One operation's pursuit of an answer.
pub(super) struct Pursuit<'a> {
    client: &'a ChainClient,
    attempts: Attempts,
    deadline: Instant,
    /// What was known when the attempt began: newer than this ends a wait.
    routing: RoutingVersion,
    /// The last answer that told something.
    refusal: Option<Status>,
}

impl<'a> Pursuit<'a> {
    pub(super) fn new(client: &'a ChainClient, deadline: Instant) -> Self {
        let until = deadline.saturating_duration_since(client.started);
        Self {
            client,
            attempts: Attempts::new(until, client.next_salt()),
            deadline,
            routing: client.routing.version(),
            refusal: None,
        }
    }

    /// The time-out of the next attempt.
    pub(super) fn limit(&self, attempt: Duration) -> Duration {
        attempt.min(self.deadline.saturating_duration_since(clock::now()))
    }

    /// What comes of it in the time that is left.
    pub(super) async fn before_deadline<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.deadline.into(), work).await.ok()
    }

    pub(super) fn progressed(&mut self) {
        self.attempts.progressed();
    }

    /// An attempt failed: waits as the failure demands, or answers why it is over. `alternatives`:
    /// somebody else can be asked at once.
    pub(super) async fn failed(
        &mut self,
        failure: Status,
        alternatives: bool,
    ) -> Result<(), Status> {
        let learned = self.client.learn(&failure);
        let class = match failure.code {
            // Not the replica's fault: the pending version is about to be committed.
            Code::PendingVersion => Retry::BackOff,
            // A replica that does not serve is no reason to wait if another one does.
            Code::NotServing | Code::NoSuchTarget if alternatives => Retry::OtherTarget,
            _ => failure.retry(),
        };
        let step =
            self.attempts.failed(self.client.now(), Failure { class, learned, alternatives });
        if self.attempts.failures() == 10 {
            tracing::info!(%failure, "an operation waits for its chain");
        }
        self.client.counters.retries.fetch_add(1, Ordering::Relaxed);
        match step {
            Step::GiveUp(GiveUp::Final) => return Err(failure),
            Step::GiveUp(GiveUp::Deadline) => return Err(self.gave_up(failure)),
            Step::AskAgain | Step::OtherTarget => {}
            Step::FindLeader(wait) | Step::Wait(wait) => tokio::time::sleep(wait).await,
            Step::AwaitRouting(wait) => {
                // The wait ends early when the cluster moved on, which is what it is for.
                self.client.routing.wait_newer(self.routing, wait).await;
            }
        }
        if clock::now() >= self.deadline {
            // No attempt without time for an answer.
            return Err(self.gave_up(failure));
        }
        if failure.code != Code::Timeout {
            self.refusal = Some(failure);
        }
        self.routing = self.client.routing.version();
        Ok(())
    }

    /// Says that patience ended, and why it was needed: an attempt that the deadline cut short knows
    /// less than the refusal before it.
    fn gave_up(&mut self, failure: Status) -> Status {
        let cut_short = failure.code == Code::Timeout;
        let mut why = self.refusal.take().filter(|_| cut_short).unwrap_or(failure);
        why.detail = format!("gave up at the deadline: {}", why.detail);
        why
    }
}
