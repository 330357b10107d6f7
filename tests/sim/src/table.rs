//! How the chains of the one table lie on the storage nodes.

use clap::ValueEnum;
use ff2_meta_core::cluster::{self, PlaceableDisk};
use ff2_proto::pb;

/// Storage nodes that the table is laid over.
pub(crate) const NODES: usize = 4;
pub(crate) const REPLICAS: u32 = 3;
const CHAINS: u32 = 4;

/// Of [`Table::Fixed`], by the order of nodes.
const FIXED: [[usize; REPLICAS as usize]; CHAINS as usize] =
    [[0, 1, 2], [1, 3, 0], [2, 3, 0], [3, 1, 2]];

/// Who says where the chains lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// The cluster's own plan.
    #[default]
    Planned,
    /// A plan of the past, which nothing changes: with another one a seed is another run, so those that were
    /// found on it (`tests/named.rs`) are kept with it.
    Fixed,
}

impl Table {
    /// The chains on the disks of [`NODES`] nodes, one a node.
    pub(crate) fn chains(self, disks: &[PlaceableDisk]) -> Vec<pb::PlacedChain> {
        assert_eq!(disks.len(), NODES, "one disk a node");
        let target = |at: usize| pb::PlacedTarget {
            node: disks[at].node.0,
            disk_uuid: disks[at].uuid.clone().into(),
        };
        match self {
            Self::Planned => cluster::place(disks, &cluster::Leaves::new(), REPLICAS, CHAINS)
                .expect("four nodes hold three replicas"),
            Self::Fixed => {
                FIXED.map(|chain| pb::PlacedChain { targets: chain.map(target).into() }).into()
            }
        }
    }
}
