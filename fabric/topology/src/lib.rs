//! The network as data: which nodes hang at which leaf switches, and how near two of them are.
//!
//! A cluster is a tree of zones, pods and leaf switches, with nodes at the leaves by one or more ports. In a
//! fat tree of two layers a zone is one pod; Clos networks of three layers have several. Real clusters are
//! ragged, so nothing here assumes that leaves have equally many nodes.
//!
//! It never does I/O. Whoever has a file reads it and hands over its text or its [`Description`].
//!
//! The story of the data: a [`Description`] comes from a file, from [`FatTree::describe`] or from
//! [`lingjun::describe`]; [`Topology::new`] checks it and numbers its parts; placement asks that one.
#![forbid(unsafe_code)]

mod description;
mod generate;
pub mod ibnetdiscover;
pub mod lingjun;
mod network;
pub mod slurm;
mod topology;
mod tree;

pub use description::{Description, LeafSwitch, Port, Role, Server};
pub use generate::{FatTree, TooFewPorts};
pub use network::{End, Fault, Host, Link, Network, Switch, svg};
pub use topology::{Leaf, LeafId, Node, NodeId, Pod, PodId, Problem, Proximity, Topology, ZoneId};
pub use tree::{Impossible, Tree};
