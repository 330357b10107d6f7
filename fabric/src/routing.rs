//! The routing information that one process knows: read by every call, replaced as a whole.
//!
//! Owns the newest [`Routing`] and who waits for a newer one. It never asks anybody: deltas come
//! from heartbeat replies and from [`crate::membership::RoutingWatch`], single chains from refusals.
//! [`RoutingCache::heard_of`] is how a connection says that its peer knows more than we do.

mod changes;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use changes::Changes;
pub use changes::{Changed, Gone};
use ff2_proto::{ChainId, Routing, RoutingVersion, pb};
use parking_lot::Mutex;
use tokio::sync::watch as channel;
pub use watch::RoutingWatch;

/// The newest routing; cheap to read, shared by reference.
#[derive(Debug)]
pub struct RoutingCache {
    current: ArcSwap<Routing>,
    /// Held while a new value is made, so that no change is lost between load and store.
    writer: Mutex<()>,
    changed: Changes,
    heard: channel::Sender<RoutingVersion>,
}

impl Default for RoutingCache {
    fn default() -> Self {
        Self::with(Routing::default())
    }
}

impl RoutingCache {
    /// Knows nothing yet: version 0.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Starts from what is known already (metad knows from its own group).
    pub fn with(routing: Routing) -> Self {
        let version = routing.version;
        Self {
            current: ArcSwap::from_pointee(routing),
            writer: Mutex::new(()),
            changed: Changes::new(),
            heard: channel::Sender::new(version),
        }
    }

    pub fn get(&self) -> Arc<Routing> {
        self.current.load_full()
    }

    pub fn version(&self) -> RoutingVersion {
        self.current.load().version
    }

    /// Takes in a delta; false if it is not newer or does not build on what is here.
    ///
    /// A chain that a refusal taught us may be newer than the delta: it stays, because chain
    /// versions only grow.
    pub fn apply(&self, delta: pb::RoutingDelta) -> bool {
        let guard = self.writer.lock();
        let known = self.current.load_full();
        let mut next = Routing::clone(&known);
        if !next.apply(delta) {
            return false;
        }
        keep_newer_chains(&known.chains, &mut next.chains);
        let version = next.version;
        assert!(version > known.version, "an applied delta makes the routing newer");
        self.current.store(Arc::new(next));
        drop(guard);
        self.changed.tell();
        true
    }

    /// Replaces everything by a newer value (metad's own view); false if it is not newer.
    pub fn replace(&self, routing: Arc<Routing>) -> bool {
        let guard = self.writer.lock();
        let version = routing.version;
        if version <= self.current.load().version {
            return false;
        }
        self.current.store(routing);
        drop(guard);
        self.changed.tell();
        true
    }

    /// Takes in one chain as a refusal carries it; false if it is not newer. The watcher is told
    /// that the cluster moved on, since a chain rarely changes alone.
    pub fn apply_chain(&self, chain: &pb::Chain) -> bool {
        let guard = self.writer.lock();
        let mut next = Routing::clone(&self.current.load());
        if !next.apply_chain(chain) {
            return false;
        }
        self.current.store(Arc::new(next));
        drop(guard);
        self.changed.tell();
        self.heard_of(RoutingVersion(chain.changed_at));
        true
    }

    /// Somebody knows this version: if it is newer than ours, the watcher asks for it now.
    pub fn heard_of(&self, version: RoutingVersion) {
        if version <= self.version() {
            return;
        }
        self.heard.send_if_modified(|heard| {
            let newer = version > *heard;
            if newer {
                *heard = version;
            }
            newer
        });
    }

    /// Waits until the routing is newer than `version`, at most `patience`; answers what is known then.
    pub async fn wait_newer(&self, version: RoutingVersion, patience: Duration) -> Arc<Routing> {
        let mut changed = self.subscribe();
        let newer = async { while self.version() <= version && changed.changed().await.is_ok() {} };
        // The cache outlives this wait, so the only other end of it is the time-out.
        let _ = tokio::time::timeout(patience, newer).await;
        self.get()
    }

    /// Wakes at each change, also at one that only taught a chain (the version is then the old one).
    pub fn subscribe(&self) -> Changed {
        self.changed.subscribe()
    }

    /// The newest version that anybody spoke of: for the watcher.
    pub(crate) fn heard(&self) -> channel::Receiver<RoutingVersion> {
        self.heard.subscribe()
    }
}

fn keep_newer_chains(
    known: &BTreeMap<ChainId, pb::Chain>,
    next: &mut BTreeMap<ChainId, pb::Chain>,
) {
    for (id, chain) in next.iter_mut() {
        if let Some(before) = known.get(id)
            && before.version > chain.version
        {
            *chain = before.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(id: u32, version: u64, changed_at: u64) -> pb::Chain {
        pb::Chain { id, version, changed_at, members: Vec::new(), ..Default::default() }
    }

    fn delta(since: u64, version: u64, chains: Vec<pb::Chain>) -> pb::RoutingDelta {
        pb::RoutingDelta { since, version, chains, ..Default::default() }
    }

    #[test]
    fn a_chain_from_a_refusal_survives_an_older_delta() {
        let cache = RoutingCache::new();
        assert!(cache.apply(delta(0, 5, vec![chain(1, 2, 5)])));
        assert!(cache.apply_chain(&chain(1, 4, 8)));
        assert!(!cache.apply_chain(&chain(1, 4, 8)));
        assert!(cache.apply(delta(5, 7, vec![chain(1, 3, 7)])));
        assert_eq!(cache.get().chains[&ChainId(1)].version, 4);
        assert!(cache.apply(delta(0, 9, vec![chain(1, 3, 7)])), "a full answer, from a laggard");
        assert_eq!(cache.get().chains[&ChainId(1)].version, 4);
        assert!(cache.apply(delta(9, 10, vec![chain(1, 5, 10)])));
        assert_eq!(cache.get().chains[&ChainId(1)].version, 5);
    }

    #[test]
    fn rumours_reach_the_watcher_once_and_only_if_newer() {
        let cache = RoutingCache::new();
        assert!(cache.apply(delta(0, 5, vec![])));
        let mut heard = cache.heard();
        cache.heard_of(RoutingVersion(5));
        assert!(!heard.has_changed().unwrap());
        cache.heard_of(RoutingVersion(8));
        assert!(heard.has_changed().unwrap());
        assert_eq!(*heard.borrow_and_update(), RoutingVersion(8));
        cache.heard_of(RoutingVersion(7));
        assert!(!heard.has_changed().unwrap());
        assert!(cache.apply_chain(&chain(3, 1, 11)));
        assert_eq!(*heard.borrow_and_update(), RoutingVersion(11));
    }

    #[test]
    fn subscribers_wake_for_deltas_and_for_chains() {
        let cache = RoutingCache::new();
        let mut changed = cache.subscribe();
        assert!(cache.apply(delta(0, 2, vec![])));
        assert!(changed.take());
        assert!(!cache.apply(delta(0, 2, vec![])));
        assert!(!cache.apply(delta(3, 4, vec![])));
        assert!(!changed.take());
        assert!(cache.apply_chain(&chain(1, 1, 3)));
        assert!(changed.take());
    }

    #[tokio::test]
    async fn waiting_ends_with_a_newer_version_or_the_time_out() {
        let cache = RoutingCache::new();
        let (short, patience) = (Duration::from_millis(5), Duration::from_secs(60));
        assert_eq!(cache.wait_newer(RoutingVersion(0), short).await.version, RoutingVersion(0));
        let waiter = {
            let cache = cache.clone();
            tokio::spawn(async move { cache.wait_newer(RoutingVersion(3), patience).await.version })
        };
        tokio::task::yield_now().await;
        assert!(cache.apply(delta(0, 3, vec![])));
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        assert!(cache.apply(delta(3, 4, vec![])));
        assert_eq!(waiter.await.unwrap(), RoutingVersion(4));
    }
}
