//! Peers in one process, with cut and lossy wires: for tests and the throughput probe.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ff2_meta_core::StateMachine;
use ff2_proto::{Status, pb};
use parking_lot::Mutex;

use crate::{Group, PeerLink, Pending, hosted::Hosted};

/// Wires between groups that registered under their addresses. Clones share them.
#[derive(Clone, Default)]
pub struct Loopback(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    ends: BTreeMap<String, Arc<dyn Hosted>>,
    /// Sender and receiver between which nothing passes.
    cut: BTreeSet<(String, String)>,
    /// Of 1000 batches, so many are dropped.
    loss: u64,
    random: u64,
}

impl std::fmt::Debug for Loopback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loopback({} ends)", self.0.lock().ends.len())
    }
}

impl Loopback {
    /// What arrives at `address` goes to this group. Replaces an earlier one.
    pub fn register<S: StateMachine>(&self, address: &str, group: &Group<S>) {
        self.0.lock().ends.insert(address.into(), Arc::new(group.clone()));
    }

    pub fn unregister(&self, address: &str) {
        self.0.lock().ends.remove(address);
    }

    /// The link that the group at `address` sends through.
    pub fn link(&self, address: &str) -> Arc<dyn PeerLink> {
        Arc::new(Wire { from: address.into(), wires: self.clone() })
    }

    /// Lets nothing pass between the two any more.
    pub fn cut(&self, one: &str, other: &str) {
        let mut wires = self.0.lock();
        wires.cut.insert((one.into(), other.into()));
        wires.cut.insert((other.into(), one.into()));
    }

    /// Cuts `address` off from all others.
    pub fn isolate(&self, address: &str) {
        let others: Vec<String> = self.0.lock().ends.keys().cloned().collect();
        for other in others.iter().filter(|other| *other != address) {
            self.cut(address, other);
        }
    }

    /// Mends all wires.
    pub fn heal(&self) {
        let mut wires = self.0.lock();
        wires.cut.clear();
        wires.loss = 0;
    }

    /// Drops so many of 1000 batches, drawn from the seed.
    pub fn lose(&self, per_mille: u64, seed: u64) {
        let mut wires = self.0.lock();
        wires.loss = per_mille;
        wires.random = seed | 1;
    }
}

impl Wires {
    fn end(&mut self, from: &str, to: &str) -> Option<Arc<dyn Hosted>> {
        if self.cut.contains(&(from.to_owned(), to.to_owned())) {
            return None;
        }
        if self.loss > 0 {
            // xorshift64 (Marsaglia 2003).
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            if self.random % 1_000 < self.loss {
                return None;
            }
        }
        self.ends.get(to).cloned()
    }
}

struct Wire {
    from: String,
    wires: Loopback,
}

impl Wire {
    fn end(&self, to: &str) -> Option<Arc<dyn Hosted>> {
        self.wires.0.lock().end(&self.from, to)
    }
}

impl PeerLink for Wire {
    fn send(&self, address: &str, batch: pb::RaftBatch) {
        if let Some(end) = self.end(address) {
            end.step(batch);
        }
    }

    fn fetch_snapshot(
        &self,
        address: &str,
        request: pb::FetchSnapshotRequest,
    ) -> Pending<pb::FetchSnapshotReply> {
        match self.end(address) {
            Some(end) => end.fetch_snapshot(request),
            None => Box::pin(async { Err(Status::from(pb::Code::Unreachable)) }),
        }
    }

    fn join(&self, address: &str, request: pb::JoinGroupRequest) -> Pending<pb::JoinGroupReply> {
        match self.end(address) {
            Some(end) => end.join(request),
            None => Box::pin(async { Err(Status::from(pb::Code::Unreachable)) }),
        }
    }
}
