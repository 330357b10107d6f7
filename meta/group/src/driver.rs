//! The thread of a group: owns the replica, performs what it says, answers who waits.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use ff2_meta_core::StateMachine;
use ff2_proto::{Status, pb};
use tokio::runtime::Handle;

use crate::{
    GroupConfig, clock,
    group::Shared,
    inbox::{Reply, Request, Work},
    limits,
    link::PeerLink,
    replica::{Input, Output, Replica},
    store::RocksStore,
};

mod joining;

/// A leader that stops cleanly waits this long for its heir to take over.
const HAND_OVER_TIME: Duration = Duration::from_millis(1_500);

pub(crate) struct Driver<S: StateMachine> {
    pub(crate) config: GroupConfig,
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) link: Arc<dyn PeerLink>,
    pub(crate) runtime: Handle,
}

/// The loop's own state, once there is a replica.
struct Running<S: StateMachine> {
    driver: Driver<S>,
    replica: Replica<RocksStore, S>,
    waiters: HashMap<u64, Waiter>,
    next_ticket: u64,
    stopping: Option<Duration>,
}

enum Waiter {
    Proposal(Reply<Bytes>),
    Read(Reply<()>),
    Join(Reply<pb::JoinGroupReply>),
    Done(Reply<()>),
}

impl<S: StateMachine> Driver<S> {
    /// Runs until the group is stopped. First joins, if the folder has no raft id yet.
    pub(crate) fn run(self, mut store: RocksStore, machine: S) {
        let mut members = Vec::new();
        if store.raft_id().is_none() {
            match joining::join(&self, &store) {
                Some(reply) => {
                    store.adopt(reply.raft_id);
                    members = reply.members;
                }
                None => {
                    self.shared.end();
                    return store.close();
                }
            }
        }
        let raft_id = store.raft_id().expect("adopted above if it had none");
        let config = self.config.replica(raft_id, crate::store::random());
        let replica = match Replica::new(config, store, machine, clock::now()) {
            Ok(replica) => replica,
            Err(error) => {
                // Its folder was checked at open: only a wrong program comes here.
                tracing::error!(group = %self.config.group, %error, "the replica cannot start");
                std::process::abort();
            }
        };
        let waiters = HashMap::new();
        let mut running =
            Running { driver: self, replica, waiters, next_ticket: 1, stopping: None };
        running.replica.introduce(members);
        running.run();
    }
}

impl<S: StateMachine> Running<S> {
    fn run(mut self) {
        let tick = self.driver.config.tick;
        let whole = |time| clock::time_of(clock::ticks(time, tick), tick);
        let mut ticked_at = whole(clock::now());
        let mut out = Vec::new();
        self.publish_status();
        loop {
            let ready = self.replica.has_ready() || self.replica.may_propose();
            let calm = if self.stopping.is_some() { 0 } else { self.replica.calm_ticks() };
            let wait = (ticked_at + tick * (calm + 1)).saturating_sub(clock::now());
            let wait = if ready { Duration::ZERO } else { wait };
            let work = self.driver.shared.inbox.take(wait);
            let now = clock::now();
            // The calm ticks whose time came. Before what arrived: to raft nothing is older than a tick after it.
            let mut ticked = false;
            for _ in 0..calm {
                if now < ticked_at + tick {
                    break;
                }
                self.replica.tick(now, &mut out);
                (ticked_at, ticked) = (ticked_at + tick, true);
            }
            self.take_in(now, work, &mut out);
            if now >= ticked_at + tick {
                ticked = true;
                self.replica.tick(now, &mut out);
                // Never more ticks than there was time for: a lease rests on a number of them. One that was
                // late by more than a moment makes the next one later, too.
                let late = now - (ticked_at + tick);
                ticked_at = if late < tick / 8 { ticked_at + tick } else { whole(now) + tick };
            }
            self.replica.turn(now, &mut out);
            self.perform(&mut out);
            self.handle_readies(&mut out);
            if ticked {
                self.publish_status();
            }
            if self.is_over() {
                break;
            }
        }
        self.close();
    }

    fn take_in(&mut self, now: Duration, work: Work, out: &mut Vec<Output>) {
        for batch in work.batches {
            self.replica.step(now, Input::Messages(batch), out);
        }
        if !work.proposals.is_empty() {
            self.driver.config.metrics.commands.observe(work.proposals.len() as f64);
        }
        for (command, reply) in work.proposals {
            let ticket = self.wait(Waiter::Proposal(reply));
            self.replica.step(now, Input::Propose { ticket, command }, out);
        }
        for reply in work.reads {
            let ticket = self.wait(Waiter::Read(reply));
            self.replica.step(now, Input::Read { ticket }, out);
        }
        for request in work.requests {
            let input = match request {
                Request::Join { request, reply } => {
                    Input::Join { ticket: self.wait(Waiter::Join(reply)), request }
                }
                Request::Remove { node, reply } => {
                    Input::Remove { ticket: self.wait(Waiter::Done(reply)), node }
                }
                Request::Transfer { node, reply } => {
                    Input::Transfer { ticket: self.wait(Waiter::Done(reply)), node }
                }
                Request::Page { snapshot, page } => Input::Page { snapshot, page },
                Request::Adopted(_) => continue,
                Request::Stop { hand_over } => {
                    let handed = hand_over && self.replica.hand_over();
                    let until = if handed { now + HAND_OVER_TIME } else { now };
                    self.stopping = Some(until);
                    continue;
                }
            };
            self.replica.step(now, input, out);
        }
    }

    fn wait(&mut self, waiter: Waiter) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.insert(ticket, waiter);
        ticket
    }

    fn handle_readies(&mut self, out: &mut Vec<Output>) {
        // Bounded, so that ticks go on under a flood; what is left comes with the next wake-up.
        for _ in 0..64 {
            if !self.replica.has_ready() {
                break;
            }
            self.replica.take_ready(clock::now(), out);
            self.perform(out);
            self.replica.apply_ready(clock::now(), out);
            self.perform(out);
            self.replica.persist_ready(clock::now(), out);
            self.perform(out);
        }
    }

    fn perform(&mut self, out: &mut Vec<Output>) {
        // Readers must know of a commit before any message can tell it to a follower.
        let shared = &self.driver.shared;
        let replica = &self.replica;
        shared.publish(replica.commit(), replica.applied(), replica.lease_until());
        let mut proposals = 0;
        let mut reads = 0;
        for output in out.drain(..) {
            match output {
                Output::Send { address, batch } => self.driver.link.send(&address, batch),
                Output::Fetch { address, request } => self.driver.fetch(&address, request),
                Output::Answer { ticket, answer } => {
                    if let Some(Waiter::Proposal(reply)) = self.waiters.remove(&ticket) {
                        proposals += 1;
                        // An asker that went away does not need the answer.
                        let _ = reply.send(answer);
                    }
                }
                Output::Read { ticket, may } => {
                    if let Some(Waiter::Read(reply)) = self.waiters.remove(&ticket) {
                        reads += 1;
                        let _ = reply.send(may);
                    }
                }
                Output::Joined { ticket, reply: joined } => {
                    if let Some(Waiter::Join(reply)) = self.waiters.remove(&ticket) {
                        let _ = reply.send(joined);
                    }
                }
                Output::Done { ticket, done } => {
                    if let Some(Waiter::Done(reply)) = self.waiters.remove(&ticket) {
                        let _ = reply.send(done);
                    }
                }
                Output::Leadership(leadership) => self.driver.shared.lead(leadership),
                Output::Applied => self.driver.shared.show(self.replica.machine().view()),
                Output::Removed => {
                    tracing::warn!(group = %self.driver.config.group,
                        "this replica was removed from its group; its folder can be deleted");
                }
                Output::Stop(reason) => {
                    tracing::error!("{reason}");
                    eprintln!("ff2: {reason}");
                    std::process::abort();
                }
            }
        }
        self.driver.shared.inbox.proposals_answered(proposals);
        self.driver.shared.inbox.reads_answered(reads);
    }

    fn publish_status(&self) {
        *self.driver.shared.status.lock() = self.replica.status();
    }

    fn is_over(&self) -> bool {
        let Some(until) = self.stopping else { return false };
        let leads = self.replica.status().leader_node == self.driver.config.node;
        !leads || clock::now() >= until
    }

    fn close(mut self) {
        let shared = &self.driver.shared;
        shared.publish(self.replica.commit(), self.replica.applied(), None);
        for (_, waiter) in mem::take(&mut self.waiters) {
            let why = "the group stopped";
            let code = match waiter {
                Waiter::Proposal(_) => pb::Code::UnknownOutcome,
                _ => pb::Code::ShuttingDown,
            };
            let status = Status::new(code, why);
            match waiter {
                Waiter::Proposal(reply) => drop(reply.send(Err(status))),
                Waiter::Read(reply) | Waiter::Done(reply) => drop(reply.send(Err(status))),
                Waiter::Join(reply) => drop(reply.send(Err(status))),
            }
        }
        shared.end();
        self.replica.into_store().close();
    }
}

impl<S: StateMachine> Driver<S> {
    fn fetch(&self, address: &str, request: pb::FetchSnapshotRequest) {
        let snapshot = request.snapshot;
        let pending = self.link.fetch_snapshot(address, request);
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            let page = match tokio::time::timeout(limits::PAGE_TIMEOUT, pending).await {
                Ok(page) => page,
                Err(_) => Err(Status::new(pb::Code::Timeout, "a snapshot page did not come")),
            };
            if page.is_err() {
                // The next try comes at once: give the peer a moment.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // A closed inbox means that nobody needs the page any more.
            let _ = shared.inbox.request(Request::Page { snapshot, page });
        });
    }
}
