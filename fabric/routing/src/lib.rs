//! Routing of a network: which port of each switch leads to each network port of a host.
//!
//! It never does I/O. The commands of `ff2ctl fabric` and the flow simulator call it.
//!
//! The story of the data: [`Graph::new`] numbers the parts of a [`Network`](ff2_topology::Network) and ranks its
//! switches; [`Tables::build`] fills the linear forwarding tables (LFTs); after failures [`Tables::repair`] changes
//! as few entries as it can; [`Tables::path`] follows them, [`loads`] counts, [`credit_loop`] proves them safe.
#![forbid(unsafe_code)]

mod credit;
mod graph;
mod lfts;
mod load;
mod tables;

pub use credit::credit_loop;
pub use graph::{Channel, Endpoint, Graph, Peer, Unsound};
pub use lfts::{BadDump, read_dump};
pub use load::{largest, loads, shift};
pub use tables::{Change, Lost, Policy, Tables};
