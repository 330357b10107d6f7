//! What the gRPC servers of daemons share: connections that are bounded and encrypted, calls that are timed, and
//! how one that does not lead says who does.

mod incoming;
mod timed;

pub use incoming::{Incoming, incoming};
pub use timed::Timed;
use tonic::Status;

/// Metadata key that names the leader's gRPC address.
const LEADER_KEY: &str = "ff2-leader";

/// Names the one that leads, if it is known.
pub fn ask(leader: Option<&str>) -> Status {
    let mut refusal = match leader {
        Some(leader) => Status::unavailable(format!("ask the leader, {leader}")),
        None => Status::unavailable("no leader is known: retry in a second"),
    };
    if let Some(value) = leader.and_then(|leader| leader.parse().ok()) {
        refusal.metadata_mut().insert(LEADER_KEY, value);
    }
    refusal
}
