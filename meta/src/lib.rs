//! `ff2-metad`: hosts group 0 (the cluster machine) and the namespace groups, and serves them.
//!
//! Owns no state of its own beyond what a leader may forget: heartbeats and leases ([`cluster`]),
//! keepalives of sessions ([`namespace`]). Everything that must survive is a command of a group. All
//! decisions are pure functions of `ff2-meta-core`; this crate stamps commands with time, seeds and
//! layouts, proposes them, and does what the leader owes afterwards: cut truncated chunks, collect
//! the chunks of orphans, ask the chains for lengths, expire sessions.
//!
//! The story of a mutation: a client's request arrives on the data plane ([`namespace`]), is checked
//! against the identity of its connection, stamped, proposed to the volume's group, applied on every
//! replica, and its answer gets a grant before it goes back. People come in through gRPC ([`admin`])
//! and the status page ([`http`]).

mod admin;
mod audit;
mod cluster;
mod format;
mod http;
pub mod limits;
mod metrics;
mod namespace;
mod restore;
mod run;

pub use admin::admin_token;
pub use format::format;
pub use restore::{Restore, restore};
pub use run::{Metad, serve};

/// The namespace group that new volumes go to.
pub const NAMESPACE_GROUP: ff2_proto::GroupId = ff2_proto::GroupId(1);
