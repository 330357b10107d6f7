//! What the parts of one storage node share: its disks, its targets, its place in the cluster.

mod disks;
mod identity;
mod report;
mod targets;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

pub(crate) use disks::NodeDisk;
use ff2_fabric::{
    BufPool, ClusterKey, Peers, RoutingCache,
    membership::{Lease, Membership},
};
use ff2_proto::{ChainId, TargetId};
pub(crate) use identity::Identity;
use parking_lot::RwLock;

use crate::{metrics::Traffic, target::TargetHandle};

/// See the module.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: ClusterKey,
    pub(crate) pool: Arc<BufPool>,
    /// Buffers of full copies; see [`crate::limits::COPY_BYTES`].
    pub(crate) copies: Arc<BufPool>,
    pub(crate) routing: Arc<RoutingCache>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) disks: Vec<NodeDisk>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) resync_bytes_per_s: u64,
    started: Instant,
    /// Set once the cluster let this node in.
    place: OnceLock<Place>,
    targets: RwLock<Targets>,
}

/// This node in the cluster.
struct Place {
    node: u32,
    lease: Lease,
    heartbeat: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Targets {
    by_id: BTreeMap<TargetId, TargetHandle>,
    /// A node has at most one target of a chain.
    by_chain: BTreeMap<ChainId, TargetId>,
}

impl Node {
    #[expect(clippy::too_many_arguments, reason = "one caller, which has just made all of them")]
    pub(crate) fn new(
        key: ClusterKey,
        pool: Arc<BufPool>,
        routing: Arc<RoutingCache>,
        peers: Arc<Peers>,
        disks: Vec<NodeDisk>,
        traffic: Arc<Traffic>,
        resync_bytes_per_s: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            pool,
            copies: BufPool::new(crate::limits::COPY_BYTES),
            routing,
            peers,
            disks,
            traffic,
            resync_bytes_per_s,
            started: Instant::now(),
            place: OnceLock::new(),
            targets: RwLock::default(),
        })
    }

    /// The cluster let this node in.
    pub(crate) fn joined(&self, membership: &Membership) {
        let place = Place {
            node: membership.node_id().0,
            lease: membership.lease(),
            heartbeat: Box::new(membership.heartbeat_trigger()),
        };
        self.place.set(place).expect("a node joins once");
    }

    pub(crate) fn node_id(&self) -> u32 {
        self.place.get().map_or(0, |place| place.node)
    }

    /// The moment of a step, for the machines.
    pub(crate) fn now(&self) -> ff2_storage_core::target::Now {
        let lease = self.place.get().is_some_and(|place| place.lease.is_valid());
        ff2_storage_core::target::Now { at: self.started.elapsed(), lease }
    }

    /// A report changed: telling the cluster now saves time.
    pub(crate) fn heartbeat_now(&self) {
        if let Some(place) = self.place.get() {
            (place.heartbeat)();
        }
    }

    pub(crate) fn target(&self, id: TargetId) -> Option<TargetHandle> {
        self.targets.read().by_id.get(&id).cloned()
    }

    /// This node's target of a chain.
    pub(crate) fn target_of(&self, chain: ChainId) -> Option<TargetHandle> {
        let targets = self.targets.read();
        targets.by_id.get(targets.by_chain.get(&chain)?).cloned()
    }

    pub(crate) fn all_targets(&self) -> Vec<TargetHandle> {
        self.targets.read().by_id.values().cloned().collect()
    }
}
