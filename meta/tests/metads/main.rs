//! Three metads in one process, on loopback ports and temporary folders, asked through their RPC as a
//! mount and `ff2ctl` ask them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod administration;
mod check;
mod files;
mod locks;
mod members;
mod security;
mod store;
mod world;
