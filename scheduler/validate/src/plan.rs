//! What is to be tried.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use crate::{Depth, Limits};

/// What is to be tried, and what figures are compared with. A part whose input is missing is not tried, and the
/// report says so.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub depth: Depth,
    /// A folder on the node's own disk. Nothing stays in it.
    pub disk: Option<PathBuf>,
    /// A folder on the cluster's file system. Nothing stays in it.
    pub file_system: Option<PathBuf>,
    /// Another node, where a [`pair::Server`](crate::pair::Server) runs.
    pub peer: Option<Peer>,
    /// How many GPUs the node should have: fewer fail. `None`: as many as there are.
    pub gpus: Option<u32>,
    /// Errors of GPUs in the kernel's log before this second since the start of the machine are no longer counted:
    /// when somebody last repaired them.
    pub gpus_repaired_s: u64,
    /// NVML, where it is not in its usual place.
    pub nvml: Option<PathBuf>,
    pub limits: Limits,
    /// Medians of nodes of the same kind ([`medians`](crate::medians)); empty if there are none.
    pub peers: BTreeMap<String, f64>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// The one that the peer's server was started with.
    pub token: Vec<u8>,
}

/// Without the token.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("address", &self.address).finish_non_exhaustive()
    }
}
