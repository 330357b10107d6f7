//! The replicated state machines of metad, pure: the cluster machine (group 0) and the namespace
//! machine (a volume's group), over one key-value trait.
//!
//! They never read a clock, draw a random number or touch a file: the leader stamps such things into
//! each command before it is logged. `ff2-group` runs them on RocksDB, the simulator in memory.
#![forbid(unsafe_code)]

pub mod callbacks;
pub mod cluster;
pub mod kv;
pub mod machine;
pub mod namespace;

pub use kv::{Kv, KvRead, MemKv, Overlay};
pub use machine::StateMachine;
