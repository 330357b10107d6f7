//! `Group<S>`: one replicated state machine over raft-rs and RocksDB.
//!
//! Owns a group's log, its key-value state and its membership on one node, and the thread that runs
//! them. Knows nothing of what the state machine means. Peers are reached through [`PeerLink`]: over the data plane
//! by [`Link`] and [`RaftService`], in tests in memory. `ff2-metad` opens one for the cluster group and one for each
//! namespace group.
//!
//! The story of a command: [`Group::propose`] puts it into the bounded inbox. The group's thread takes
//! all that waits, packs it into entries (`commands.rs`), and gives them to raft. The leader's messages
//! leave at once, while its own log is written with one sync. When a majority has synced, the entry
//! is committed: the machine applies its commands to an overlay over the state, and the changes go
//! to disk with the applied index in one batch. Then the proposers get their answers.
//!
//! The story of a read: under the leader's lease it runs at once on the reader's thread; otherwise
//! all reads that wait share one round of heartbeats (`replica/reads.rs`).
//!
//! [`Replica`] is all of this without thread, clock and disk: a machine that the simulator runs on
//! [`MemStore`].

pub mod archive;
mod clock;
mod commands;
mod driver;
mod error;
mod format;
mod group;
mod hosted;
mod inbox;
pub mod limits;
mod link;
pub mod loopback;
mod membership;
mod metrics;
pub mod probe;
mod published;
pub mod replica;
mod service;
mod store;
mod term;
mod trace;
mod wire;
mod word;

pub use error::GroupError;
pub use format::group_folder;
pub use group::{BackupPage, Group, GroupConfig};
pub use link::{PeerLink, Pending};
pub use membership::Membership;
pub use metrics::{GroupMetrics, RaftMetrics};
pub use replica::{Input, Leadership, Output, Replica, ReplicaConfig};
pub use service::{Admit, RaftService};
pub use store::{Install, LogStore, MemStore, RocksStore, StoreBatch, format_group, restore_group};
pub use term::{Term, lead_each_term};
pub use wire::Link;

pub use ff2_proto::pb::Member;
