//! The chunk server: targets of replication chains, on local disks.
//!
//! Owns the disks ([`disk`]), the chunk engine over them ([`engine`]), one task for each target that
//! drives its pure CRAQ machine ([`target`]), and the data-plane service ([`service`]). It never
//! decides a target's public state (the cluster manager does) and holds no file names.
//!
//! The story of an update: the service checks grant and checksum and puts it into the target's
//! mailbox; the target's task steps its machine and performs what comes out: the engine makes it
//! durable while the successor does the same; then the machine commits and the caller is answered.

pub mod disk;
pub mod engine;
mod format;
pub mod limits;
mod metrics;
mod node;
mod run;
mod service;
mod target;

pub use format::format;
pub use run::serve;
