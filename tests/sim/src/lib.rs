//! The whole cluster in one deterministic process: the replica of `ff2-group`, the cluster and namespace
//! machines of `ff2-meta-core` and the CRAQ machine of `ff2-storage-core`, with a simulated network,
//! simulated disks that lose what was not synced, and clients that remember what they were told.
//!
//! A run is a function of its seed: [`run`] draws the network's weather, the faults and the load from
//! it, lets chaos reign, heals everything, waits for the cluster to converge, and checks what was
//! promised. The same machines, driven by threads and disks, are the daemons.
//!
//! What moves messages there is the simulator's own. [`run_rpc`] is the other half: the real RPC layer
//! and chain client of `ff2-fabric` in virtual time, over connections that break (see `rpc`).

mod audit;
mod chunk_client;
mod clock;
mod disk;
mod duties;
mod events;
mod failover;
mod faults;
mod history;
mod joining;
mod keeping;
mod lock_client;
mod locking;
mod message;
mod metad;
mod mutation;
mod name_client;
mod names;
mod net;
mod operator;
mod pace;
mod panics;
mod process;
mod rng;
mod rpc;
mod seen;
mod setting;
mod snapshots;
mod storaged;
mod table;
mod verdict;
mod wishes;
mod world;

pub use failover::{Failover, failover};
pub use ff2_proto::marks;
pub use mutation::Mutation;
pub use rpc::run_rpc;
pub use seen::Seen;
pub use setting::Setting;
pub use table::Table;
pub use verdict::Verdict;
pub use world::{run, run_as};
