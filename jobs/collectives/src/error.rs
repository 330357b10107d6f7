//! Why ranks cannot compute together (any more).

use std::{io, path::PathBuf, time::Duration};

use ff2_fabric::{auth::AuthError, rdma::RdmaError, tls::TlsError};

/// An operation that failed leaves the communicator useless: all ranks end, and the job starts again.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    #[error(
        "environment variable {name}: found {found}, expected {expected}: start the rank with `ff2ctl job`, or set it"
    )]
    Environment { name: &'static str, found: String, expected: String },

    #[error(
        "the ranks' key {}: rank 0 makes it where all ranks can read it, in FF2_CHECKPOINT or as FF2_RANK_KEY says",
        path.display()
    )]
    Key { path: PathBuf, source: AuthError },

    #[error(
        "cannot serve the other ranks at {address}: is MASTER_PORT taken, or MASTER_ADDR another host?"
    )]
    Serve { address: String, source: io::Error },

    #[error(
        "cannot use RDMA, which FF2_TRANSPORT=rdma demands: say auto or tcp where there is none"
    )]
    Rdma(#[source] RdmaError),

    #[error("cannot encrypt what ranks exchange")]
    Encrypt(#[source] TlsError),

    #[error("ranks {ranks:?} of {world} did not come within {waited:?}: look at their logs")]
    Missing { ranks: Vec<usize>, world: usize, waited: Duration },

    #[error("rank 0 at {master} did not let rank {rank} in within {waited:?}: {detail}")]
    NotAdmitted { rank: usize, master: String, waited: Duration, detail: String },

    #[error("rank {rank} failed: {reason}")]
    Lost { rank: usize, reason: String },

    #[error("{0}")]
    Input(String),
}
