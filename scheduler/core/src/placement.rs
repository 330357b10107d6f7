//! Where the tasks of a job lie.

use ff2_topology::NodeId;
use serde::{Deserialize, Serialize};

/// Tasks on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    pub node: NodeId,
    pub tasks: u32,
}

/// All tasks of a job, each node once, in the order of zone, pod, leaf and node: ranks are given in this order, so
/// neighbours in a ring share a leaf where that can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub slots: Vec<Slot>,
}

impl Placement {
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.slots.iter().map(|slot| slot.node)
    }

    pub fn tasks(&self) -> u32 {
        self.slots.iter().map(|slot| slot.tasks).sum()
    }

    pub fn has(&self, node: NodeId) -> bool {
        self.slots.iter().any(|slot| slot.node == node)
    }
}
