//! The chunk server: targets of replication chains, on local disks.
//!
//! Owns the disks ([`disk`]), the chunk engine over them ([`engine`]), one task for each target that
//! drives its pure CRAQ machine ([`target_driver`]), and the data-plane service ([`service`]). It
//! never decides a target's public state (the cluster manager does) and holds no file names.
//!
//! The story of a write: the service takes the payload, which the connection put into a pool buffer,
//! checks it, and gives it to the target's task; the machine answers with a store operation and a
//! forward, which run at the same time; when both are done it commits, and the service answers. The
//! buffer is never copied on the way to the disk and to the successor.
mod cuts;
pub mod disk;
pub mod disks;
pub mod engine;
mod grants;
mod heart;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod neighbour;
pub mod node;
pub mod payload;
mod replace;
pub mod scrub;
pub mod service;
pub mod target_driver;
pub mod targets;
pub mod wire;

pub use disks::format;
pub use node::serve;
